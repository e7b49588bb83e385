// RUN: amk-opt %s --verify-diagnostics -p 'tile-tasks{rows=0}' | filecheck %s --check-prefix=ROWS
// RUN: amk-opt %s --verify-diagnostics -p 'tile-tasks{columns=-1}' | filecheck %s --check-prefix=COLUMNS
// RUN: amk-opt %s --verify-diagnostics -p 'tile-tasks{tasks=-4}' | filecheck %s --check-prefix=TASKS

// Sizes that are none.
builtin.module {
}
// ROWS: tile-tasks: rows must be at least 1, found 0
// COLUMNS: tile-tasks: columns must be at least 1, found -1
// TASKS: tile-tasks: tasks must be at least 0, found -4
