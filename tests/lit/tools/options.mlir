// Targets and pass options reach AMK through xDSL's own driver.
// RUN: env COLUMNS=9999 amk-opt --help | filecheck %s --check-prefix=HELP
// RUN: env COLUMNS=9999 xdsl-opt --help | filecheck %s --check-prefix=HELP
// RUN: amk-opt --version | filecheck %s --check-prefix=VERSION
// RUN: amk-opt %s -p canonicalize | filecheck %s
// RUN: amk-opt %s -o %t && filecheck %s < %t

// HELP-DAG: cuda-source
// HELP-DAG: verify-schedule
// VERSION: amk-opt of AMK

// CHECK: builtin.module {
// CHECK-NEXT: }
builtin.module {
}
