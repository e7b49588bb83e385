// RUN: amk-opt %s --verify-diagnostics -p 'split-attention-output{tasks=0}' | filecheck %s --check-prefix=TASKS
// RUN: amk-opt %s --verify-diagnostics -p 'split-attention-output{rows=-8}' | filecheck %s --check-prefix=ROWS

// Numbers that are none.
builtin.module {
}
// TASKS: split-attention-output: tasks must be at least 1, found 0
// ROWS: split-attention-output: rows must be at least 1, found -8
