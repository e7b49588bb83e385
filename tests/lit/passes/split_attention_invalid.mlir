// RUN: amk-opt %s --verify-diagnostics -p 'split-attention{parts=-1}' | filecheck %s --check-prefix=PARTS
// RUN: amk-opt %s --verify-diagnostics -p 'split-attention{block=-1}' | filecheck %s --check-prefix=BLOCK
// RUN: amk-opt %s --verify-diagnostics -p 'split-attention{sms=-3}' | filecheck %s --check-prefix=SMS
// RUN: amk-opt %s --verify-diagnostics -p 'task-to-queue{parts=-2}' | filecheck %s --check-prefix=QUEUE

// Numbers that are none.
builtin.module {
}
// PARTS: split-attention: parts must be at least 0, found -1
// BLOCK: split-attention: block must be at least 0, found -1
// SMS: split-attention: sms must be at least 0, found -3
// QUEUE: split-attention: parts must be at least 0, found -2
