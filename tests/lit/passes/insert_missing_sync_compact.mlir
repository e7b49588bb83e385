// RUN: amk-opt %s --split-input-file -p insert-missing-sync,verify-schedule | filecheck %s

// No synchronisation at all: a counter for each buffer, an element for each layer; the loop stays a loop.
queue.kernel @k target "reference" sms 4 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @x scratch : tensor<4x4xf32>
  task.buffer @y scratch : tensor<3x4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @first (i = 4) {
    %v = task.load @in[i : 1] : tensor<1xf32>
    task.store %v, @x[0, i : 1] : tensor<1xf32>
  }
  task.family @f (layer = 3, i = 4) {
    %v = task.load @x[layer, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @y[layer, i : 1] : tensor<1xf32>
  }
  task.family @g (layer = 3, i = 4) {
    %v = task.load @y[layer, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @x[layer + 1, i : 1] : tensor<1xf32>
  }
  task.family @last (i = 4) {
    %v = task.load @x[3, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @out[i : 1] : tensor<1xf32>
  }
  queue.program sms 0 to 4 stream {} body {
    queue.phase {
      queue.run @first[] on cyclic 0
    }
    task.for layer = 0 to 3 {
      queue.phase {
        queue.run @f[layer] on cyclic 0
      }
      queue.phase {
        queue.run @g[layer] on cyclic 0
      }
    }
    queue.phase {
      queue.run @last[] on cyclic 0
    }
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @x_done[4]
// CHECK-NEXT: queue.counter @y_done[3]
// CHECK-NEXT: queue.program sms 0 to 4 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.run @first[] on cyclic 0
// CHECK-NEXT: queue.signal @x_done[0]
// CHECK-NEXT: }
// CHECK-NEXT: task.for layer = 0 to 3 {
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @x_done[layer] all
// CHECK-NEXT: queue.run @f[layer] on cyclic 0
// CHECK-NEXT: queue.signal @y_done[layer]
// CHECK-NEXT: }
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @y_done[layer] all
// CHECK-NEXT: queue.run @g[layer] on cyclic 0
// CHECK-NEXT: queue.signal @x_done[layer + 1]
// CHECK-NEXT: }
// CHECK-NEXT: }
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @x_done[3] all
// CHECK-NEXT: queue.run @last[] on cyclic 0
// CHECK-NEXT: }
// CHECK-NEXT: }

// -----

// One wait is missing, its counter and its signals are there.
queue.kernel @k target "reference" sms 4 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @x scratch : tensor<4x4xf32>
  task.buffer @y scratch : tensor<3x4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @first (i = 4) {
    %v = task.load @in[i : 1] : tensor<1xf32>
    task.store %v, @x[0, i : 1] : tensor<1xf32>
  }
  task.family @f (layer = 3, i = 4) {
    %v = task.load @x[layer, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @y[layer, i : 1] : tensor<1xf32>
  }
  task.family @g (layer = 3, i = 4) {
    %v = task.load @y[layer, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @x[layer + 1, i : 1] : tensor<1xf32>
  }
  task.family @last (i = 4) {
    %v = task.load @x[3, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @out[i : 1] : tensor<1xf32>
  }
  queue.counter @x_done[4]
  queue.counter @y_done[3]
  queue.program sms 0 to 4 stream {} body {
    queue.phase {
      queue.run @first[] on cyclic 0
      queue.signal @x_done[0]
    }
    task.for layer = 0 to 3 {
      queue.phase {
        queue.run @f[layer] on cyclic 0
        queue.signal @y_done[layer]
      }
      queue.phase {
        queue.wait @y_done[layer] all
        queue.run @g[layer] on cyclic 0
        queue.signal @x_done[layer + 1]
      }
    }
    queue.phase {
      queue.wait @x_done[3] all
      queue.run @last[] on cyclic 0
    }
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @x_done[4]
// CHECK-NEXT: queue.counter @y_done[3]
// CHECK-NEXT: queue.program sms 0 to 4 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.run @first[] on cyclic 0
// CHECK-NEXT: queue.signal @x_done[0]
// CHECK-NEXT: }
// CHECK-NEXT: task.for layer = 0 to 3 {
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @x_done[layer] all
// CHECK-NEXT: queue.run @f[layer] on cyclic 0
// CHECK-NEXT: queue.signal @y_done[layer]
// CHECK-NEXT: }
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @y_done[layer] all
// CHECK-NEXT: queue.run @g[layer] on cyclic 0
// CHECK-NEXT: queue.signal @x_done[layer + 1]
// CHECK-NEXT: }
// CHECK-NEXT: }
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @x_done[3] all
// CHECK-NEXT: queue.run @last[] on cyclic 0
// CHECK-NEXT: }
// CHECK-NEXT: }

// -----

// The signal of the first phase is missing: it gets a counter of its own.
queue.kernel @k target "reference" sms 4 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @x scratch : tensor<4x4xf32>
  task.buffer @y scratch : tensor<3x4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @first (i = 4) {
    %v = task.load @in[i : 1] : tensor<1xf32>
    task.store %v, @x[0, i : 1] : tensor<1xf32>
  }
  task.family @f (layer = 3, i = 4) {
    %v = task.load @x[layer, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @y[layer, i : 1] : tensor<1xf32>
  }
  task.family @g (layer = 3, i = 4) {
    %v = task.load @y[layer, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @x[layer + 1, i : 1] : tensor<1xf32>
  }
  task.family @last (i = 4) {
    %v = task.load @x[3, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @out[i : 1] : tensor<1xf32>
  }
  queue.counter @x_done[4]
  queue.counter @y_done[3]
  queue.program sms 0 to 4 stream {} body {
    queue.phase {
      queue.run @first[] on cyclic 0
    }
    task.for layer = 0 to 3 {
      queue.phase {
        queue.wait @x_done[layer] all
        queue.run @f[layer] on cyclic 0
        queue.signal @y_done[layer]
      }
      queue.phase {
        queue.wait @y_done[layer] all
        queue.run @g[layer] on cyclic 0
        queue.signal @x_done[layer + 1]
      }
    }
    queue.phase {
      queue.wait @x_done[3] all
      queue.run @last[] on cyclic 0
    }
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @x_done[4]
// CHECK-NEXT: queue.counter @y_done[3]
// CHECK-NEXT: queue.counter @x_done_2[4]
// CHECK-NEXT: queue.program sms 0 to 4 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.run @first[] on cyclic 0
// CHECK-NEXT: queue.signal @x_done_2[0]
// CHECK-NEXT: }
// CHECK-NEXT: task.for layer = 0 to 3 {
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @x_done_2[layer] all
// CHECK-NEXT: queue.wait @x_done[layer] all
// CHECK-NEXT: queue.run @f[layer] on cyclic 0
// CHECK-NEXT: queue.signal @y_done[layer]
// CHECK-NEXT: }
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @y_done[layer] all
// CHECK-NEXT: queue.run @g[layer] on cyclic 0
// CHECK-NEXT: queue.signal @x_done[layer + 1]
// CHECK-NEXT: }
// CHECK-NEXT: }
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @x_done[3] all
// CHECK-NEXT: queue.run @last[] on cyclic 0
// CHECK-NEXT: }
// CHECK-NEXT: }

// -----

// Both runs are in one phase: the wait goes between them.
queue.kernel @k target "reference" sms 4 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @x scratch : tensor<4x4xf32>
  task.buffer @y scratch : tensor<3x4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @first (i = 4) {
    %v = task.load @in[i : 1] : tensor<1xf32>
    task.store %v, @x[0, i : 1] : tensor<1xf32>
  }
  task.family @f (layer = 3, i = 4) {
    %v = task.load @x[layer, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @y[layer, i : 1] : tensor<1xf32>
  }
  task.family @g (layer = 3, i = 4) {
    %v = task.load @y[layer, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @x[layer + 1, i : 1] : tensor<1xf32>
  }
  task.family @last (i = 4) {
    %v = task.load @x[3, 0 : 4] : tensor<4xf32>
    %o = task.load @in[i : 1] : tensor<1xf32>
    task.store %o, @out[i : 1] : tensor<1xf32>
  }
  queue.program sms 0 to 4 stream {} body {
    queue.phase {
      queue.run @first[] on cyclic 0
    }
    task.for layer = 0 to 3 {
      queue.phase {
        queue.run @f[layer] on cyclic 0
        queue.run @g[layer] on cyclic 0
      }
    }
    queue.phase {
      queue.run @last[] on cyclic 0
    }
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @x_done[4]
// CHECK-NEXT: queue.counter @y_done[3]
// CHECK-NEXT: queue.program sms 0 to 4 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.run @first[] on cyclic 0
// CHECK-NEXT: queue.signal @x_done[0]
// CHECK-NEXT: }
// CHECK-NEXT: task.for layer = 0 to 3 {
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @x_done[layer] all
// CHECK-NEXT: queue.run @f[layer] on cyclic 0
// CHECK-NEXT: queue.signal @y_done[layer]
// CHECK-NEXT: queue.wait @y_done[layer] all
// CHECK-NEXT: queue.run @g[layer] on cyclic 0
// CHECK-NEXT: queue.signal @x_done[layer + 1]
// CHECK-NEXT: }
// CHECK-NEXT: }
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @x_done[3] all
// CHECK-NEXT: queue.run @last[] on cyclic 0
// CHECK-NEXT: }
// CHECK-NEXT: }

// -----

// Two programs: some SMs write, others read.
queue.kernel @k target "reference" sms 4 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @put (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @get (i = 2) {
    %v = task.load @a[0 : 4] : tensor<4xf32>
    %o = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %o, @out[i*2 : 2] : tensor<2xf32>
  }
  queue.program sms 0 to 2 stream {} body {
    queue.phase {
      queue.run @put[] on cyclic 0
    }
  }
  queue.program sms 2 to 4 stream {} body {
    queue.run @get[] on cyclic 0
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @a_done[1]
// CHECK-NEXT: queue.program sms 0 to 2 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.run @put[] on cyclic 0
// CHECK-NEXT: queue.signal @a_done[0]
// CHECK-NEXT: }
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 2 to 4 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.wait @a_done[0] all
// CHECK-NEXT: queue.run @get[] on cyclic 0
// CHECK-NEXT: }
