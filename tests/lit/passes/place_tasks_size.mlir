// RUN: amk-opt %s --verify-diagnostics -p 'place-tasks{target=reference sms=2}' | filecheck %s

// A loop that is legal, but stands for more ops than a kernel may unroll to: the pass refuses it.
task.program @long max_seq 8 tokens 1 {
  task.buffer @x input : tensor<300000x4xf32>
  task.buffer @y output : tensor<300000x4xf32>
  task.family @copy (i = 300000) {
    %x = task.load @x[i, 0 : 4] : tensor<4xf32>
    task.store %x, @y[i, 0 : 4] : tensor<4xf32>
  }
  task.order {
    task.for i = 0 to 300000 {
      task.call @copy[i]
    }
  }
}
// CHECK: place-tasks: kernel @long becomes too large: a kernel has at most 262144 ops when it is unrolled
