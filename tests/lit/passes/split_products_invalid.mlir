// RUN: amk-opt %s --verify-diagnostics -p 'split-products{values=-1}' | filecheck %s --check-prefix=VALUES
// RUN: amk-opt %s --verify-diagnostics -p 'split-products{sms=0}' | filecheck %s --check-prefix=SMS

// Numbers that are none.
builtin.module {
}
// VALUES: split-products: values must be at least 0, found -1
// SMS: split-products: sms must be at least 1, found 0
