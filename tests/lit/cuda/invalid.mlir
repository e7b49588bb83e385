// RUN: amk-opt %s -t cuda-source --split-input-file --verify-diagnostics | filecheck %s

// Nothing to emit.
// CHECK: cuda-source: the module has no queue.kernel; lower it with graph-to-queue
builtin.module {}

// -----

// The ring is planned by plan-stream.
// CHECK: cuda-source: kernel @k has no ring: run the pass plan-stream before emitting CUDA
queue.kernel @k target "sm_90a" sms 1 max_seq 8 tokens 1 {}

// -----

// Kernels for virtual SMs are not CUDA.
// CHECK: cuda-source: kernel @k is for target 'reference', the CUDA backend needs one of the sm_* targets
queue.kernel @k target "reference" sms 1 max_seq 8 tokens 1 ring #amk.ring<stages = 2, bytes = 512, in_flight = 1> {}
