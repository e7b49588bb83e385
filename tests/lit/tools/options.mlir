// Targets and pass options reach AMK through xDSL's own driver.
// RUN: env COLUMNS=9999 amk-opt --help | filecheck %s --check-prefix=HELP
// RUN: env COLUMNS=9999 xdsl-opt --help | filecheck %s --check-prefix=HELP
// RUN: amk-opt --version | filecheck %s --check-prefix=VERSION
// RUN: amk-opt %s -p canonicalize | filecheck %s
// RUN: amk-opt %s -o %t && filecheck %s < %t

// HELP-DAG: cuda-source
// HELP-DAG: verify-schedule

// Not offered: an output format of which xDSL has only the name, and an option whose exit status is not AMK's.
// RUN: env COLUMNS=9999 amk-opt --help | filecheck %s --check-prefix=HIDDEN
// HIDDEN-NOT: {{,mps,|shrink}}
// HIDDEN: Target to use for output
// HIDDEN-NOT: {{,mps,|shrink}}
// HIDDEN: --split-input-file
// HIDDEN-NOT: shrink

// VERSION: amk-opt of AMK

// CHECK: builtin.module {
// CHECK-NEXT: }
builtin.module {
}
