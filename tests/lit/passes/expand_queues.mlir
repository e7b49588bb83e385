// RUN: amk-opt %s --split-input-file -p expand-queues | filecheck %s

// Three tasks a layer on two SMs: an SM without a task of a phase skips it with its waits and signals; all and
// thresholds stay as they are.
queue.kernel @compact target "reference" sms 3 max_seq 4 tokens 1 ring #amk.ring<stages = 2, bytes = 512, in_flight = 1> {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x6x6xf32>
  task.buffer @in input : tensor<1x6xf32>
  task.buffer @x scratch : tensor<3x1x6xf32>
  task.family @start () {
    %v = task.load @in[0 : 1, 0 : 6] : tensor<1x6xf32>
    task.store %v, @x[0, 0 : 1, 0 : 6] : tensor<1x6xf32>
  }
  task.family @linear (layer = 2, tile = 3) {
    %x = task.load @x[layer, 0 : 1, 0 : 6] : tensor<1x6xf32>
    %w = task.stream @w[layer, tile*2 : 2, 0 : 6] : tensor<2x6xf32>
    %y = task.matmul %x, %w : (tensor<1x6xf32>, tensor<2x6xf32>) -> tensor<1x2xf32>
    task.store %y, @x[layer + 1, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  queue.counter @x_done[3]
  queue.program sms 0 to 2 stream {
    task.for layer = 0 to 2 {
      queue.fetch @linear[layer] on cyclic layer
    }
  } body {
    queue.phase {
      queue.run @start[] on cyclic 1
      queue.signal @x_done[0]
    }
    task.for layer = 0 to 2 {
      queue.phase {
        queue.wait @x_done[layer] >= layer + 1
        queue.run @linear[layer] on cyclic layer
        queue.signal @x_done[layer + 1]
      }
    }
  }
  queue.program sms 2 to 3 stream {
  } body {
    queue.wait @x_done[2] all
  }
}

// CHECK: queue.program sms 0 to 1 stream {
// CHECK-NEXT:       queue.fetch @linear[0, 0]
// CHECK-NEXT:       queue.fetch @linear[0, 2]
// CHECK-NEXT:       queue.fetch @linear[1, 1]
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.wait @x_done[0] >= 1
// CHECK-NEXT:       queue.run @linear[0, 0]
// CHECK-NEXT:       queue.run @linear[0, 2]
// CHECK-NEXT:       queue.signal @x_done[1]
// CHECK-NEXT:       queue.wait @x_done[1] >= 2
// CHECK-NEXT:       queue.run @linear[1, 1]
// CHECK-NEXT:       queue.signal @x_done[2]
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.program sms 1 to 2 stream {
// CHECK-NEXT:       queue.fetch @linear[0, 1]
// CHECK-NEXT:       queue.fetch @linear[1, 0]
// CHECK-NEXT:       queue.fetch @linear[1, 2]
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.run @start[]
// CHECK-NEXT:       queue.signal @x_done[0]
// CHECK-NEXT:       queue.wait @x_done[0] >= 1
// CHECK-NEXT:       queue.run @linear[0, 1]
// CHECK-NEXT:       queue.signal @x_done[1]
// CHECK-NEXT:       queue.wait @x_done[1] >= 2
// CHECK-NEXT:       queue.run @linear[1, 0]
// CHECK-NEXT:       queue.run @linear[1, 2]
// CHECK-NEXT:       queue.signal @x_done[2]
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.program sms 2 to 3 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.wait @x_done[2] all
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Blocked placement: contiguous tasks, counted from the SM of the offset. The explicit form stays as it is.
queue.kernel @blocked target "reference" sms 3 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<5xf32>
  task.buffer @y output : tensor<5xf32>
  task.family @copy (tile = 5) {
    %v = task.load @in[tile : 1] : tensor<1xf32>
    task.store %v, @y[tile : 1] : tensor<1xf32>
  }
  queue.program sms 0 to 2 stream {
  } body {
    queue.run @copy[] on blocked 1
  }
  queue.program sms 2 to 3 stream {
  } body {
    queue.run @copy[3]
  }
}

// CHECK: queue.program sms 0 to 1 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.run @copy[2]
// CHECK-NEXT:       queue.run @copy[3]
// CHECK-NEXT:       queue.run @copy[4]
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.program sms 1 to 2 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.run @copy[0]
// CHECK-NEXT:       queue.run @copy[1]
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.program sms 2 to 3 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.run @copy[3]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
