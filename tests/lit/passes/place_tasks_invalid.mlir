// RUN: amk-opt %s --verify-diagnostics -p 'place-tasks{target=sm_1}' | filecheck %s --check-prefix=TARGET
// RUN: amk-opt %s --verify-diagnostics -p 'place-tasks{sms=-1}' | filecheck %s --check-prefix=SMS

// A target and a grid that do not exist.
builtin.module {
}
// TARGET: place-tasks: unknown target 'sm_1', expected one of reference, sm_80
// SMS: place-tasks: sms must be at least 1, or 0 for the target's, found -1
