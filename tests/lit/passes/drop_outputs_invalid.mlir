// RUN: amk-opt %s --split-input-file --verify-diagnostics -p 'drop-outputs{names=other}' | filecheck %s --check-prefix=NAMES
// RUN: amk-opt %s --split-input-file --verify-diagnostics -p drop-outputs | filecheck %s --check-prefix=ALL

// A name that is none; nothing left.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @out output : tensor<1x8xf32>
  task.family @copy () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %x, @out[0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @copy[]
  }
}
// NAMES: drop-outputs: program @p has no output @other, expected some of @out
// ALL: drop-outputs: nothing would be left of program @p: it has no state and no other output
