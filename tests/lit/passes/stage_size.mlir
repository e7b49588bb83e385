// The size of a ring stage follows from the longest rows of a model's matrices, whatever the number of tokens and the outputs, so
// that kernels which share weights cut them alike; and from the target.

// RUN: sed 's/44/1536/g' %S/Inputs/tiny_llama.mlir > %t.short.mlir
// RUN: sed 's/44/1537/g' %S/Inputs/tiny_llama.mlir > %t.long.mlir
// RUN: sed 's/tensor<1x/tensor<8x/g' %t.short.mlir > %t.tokens.mlir

// RUN: amk-opt %t.short.mlir -p 'graph-to-queue{sms=4}' | filecheck %s --check-prefix=LARGE
// RUN: amk-opt %t.short.mlir -p 'graph-to-queue{sms=4 outputs=false}' | filecheck %s --check-prefix=LARGE
// RUN: amk-opt %t.tokens.mlir -p 'graph-to-queue{sms=4}' | filecheck %s --check-prefix=TOKENS
// RUN: amk-opt %t.short.mlir -p 'graph-to-queue{sms=4 target=sm_80}' | filecheck %s --check-prefix=AMPERE
// RUN: amk-opt %t.short.mlir -p 'graph-to-queue{sms=4 target=sm_86}' | filecheck %s --check-prefix=SMALL
// RUN: amk-opt %t.short.mlir -p 'graph-to-queue{sms=4 bytes=8192}' | filecheck %s --check-prefix=CHOSEN
// RUN: amk-opt %t.long.mlir -p 'graph-to-queue{sms=4}' | filecheck %s --check-prefix=USUAL

// LARGE: ring #amk.ring<stages = 8, bytes = 24576,
// TOKENS: tokens 8 ring #amk.ring<stages = {{[0-9]+}}, bytes = 24576,
// AMPERE: ring #amk.ring<stages = 6, bytes = 24576,
// SMALL: ring #amk.ring<stages = 5, bytes = 16384,
// CHOSEN: ring #amk.ring<stages = 12, bytes = 8192,
// USUAL: ring #amk.ring<stages = 12, bytes = 16384,
