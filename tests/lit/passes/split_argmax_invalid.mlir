// RUN: amk-opt %s --verify-diagnostics -p 'split-argmax{parts=0}' | filecheck %s --check-prefix=PARTS
// RUN: amk-opt %s --verify-diagnostics -p 'split-argmax{columns=-1}' | filecheck %s --check-prefix=COLUMNS

// Numbers that are none.
builtin.module {
}
// PARTS: split-argmax: parts must be at least 1, found 0
// COLUMNS: split-argmax: columns must be at least 1, found -1
