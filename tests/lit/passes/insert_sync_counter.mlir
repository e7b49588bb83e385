// RUN: amk-opt %s --split-input-file -p 'place-tasks{sms=4},insert-sync{handoff=counter}' | filecheck %s

// A residual stream through layers: a counter for each slot; the first family signals slot 0, the last of layer l slot l + 1.
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @x scratch : tensor<3x1x10xf32>
  task.buffer @a scratch : tensor<2x1x10xf32>
  task.buffer @b scratch : tensor<2x1x10xf32>
  task.buffer @c scratch : tensor<2x1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @first (tile = 5) {
    %v = task.load @in[0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @x[0, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.family @f (layer = 2, tile = 5) {
    %v = task.load @x[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @a[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.family @h (layer = 2, tile = 5) {
    %v = task.load @a[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @c[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.family @k (layer = 2, tile = 5) {
    %v = task.load @c[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @x[layer + 1, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.family @last (tile = 5) {
    %v = task.load @x[2, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @y[0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.order {
    task.call @first[]
        task.for layer = 0 to 2 {
          task.call @f[layer]
          task.call @h[layer]
          task.call @k[layer]
        }
        task.call @last[]
  }
}

// CHECK: task.buffer @x scratch : tensor<3x1x10xf32>
// CHECK-NEXT:     task.buffer @a scratch : tensor<2x1x10xf32>
// CHECK-NEXT:     task.buffer @b scratch : tensor<2x1x10xf32>
// CHECK-NEXT:     task.buffer @c scratch : tensor<2x1x10xf32>
// CHECK-NEXT:     task.buffer @y output : tensor<1x10xf32>
// CHECK-NEXT:     task.family @first (tile = 5) {
// CHECK-NEXT:       %v = task.load @in[0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @x[0, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @f (layer = 2, tile = 5) {
// CHECK-NEXT:       %v = task.load @x[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @a[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @h (layer = 2, tile = 5) {
// CHECK-NEXT:       %v = task.load @a[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @c[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @k (layer = 2, tile = 5) {
// CHECK-NEXT:       %v = task.load @c[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @x[layer + 1, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @last (tile = 5) {
// CHECK-NEXT:       %v = task.load @x[2, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @y[0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.counter @x_done[3]
// CHECK-NEXT:     queue.counter @a_done[2]
// CHECK-NEXT:     queue.counter @c_done[2]
// CHECK-NEXT:     queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @first[] on cyclic 0
// CHECK-NEXT:         queue.signal @x_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.wait @x_done[layer] all
// CHECK-NEXT:           queue.run @f[layer] on cyclic layer*3 + 1
// CHECK-NEXT:           queue.signal @a_done[layer]
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.wait @a_done[layer] all
// CHECK-NEXT:           queue.run @h[layer] on cyclic layer*3 + 2
// CHECK-NEXT:           queue.signal @c_done[layer]
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.wait @c_done[layer] all
// CHECK-NEXT:           queue.run @k[layer] on cyclic layer*3 + 3
// CHECK-NEXT:           queue.signal @x_done[layer + 1]
// CHECK-NEXT:         }
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @x_done[2] all
// CHECK-NEXT:         queue.run @last[] on cyclic 3
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// The order of f before h follows from f before g before h: no wait for a in h.
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @b scratch : tensor<1x10xf32>
  task.buffer @c scratch : tensor<1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @f () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @g () {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @b[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @h () {
    %a = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    %b = task.load @b[0 : 1, 0 : 10] : tensor<1x10xf32>
    %s = task.add %a, %b : tensor<1x10xf32>
    task.store %s, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.order {
    task.call @f[]
        task.call @g[]
        task.call @h[]
  }
}

// CHECK: task.buffer @a scratch : tensor<1x10xf32>
// CHECK-NEXT:     task.buffer @b scratch : tensor<1x10xf32>
// CHECK-NEXT:     task.buffer @c scratch : tensor<1x10xf32>
// CHECK-NEXT:     task.buffer @y output : tensor<1x10xf32>
// CHECK-NEXT:     task.family @f () {
// CHECK-NEXT:       %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @g () {
// CHECK-NEXT:       %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @b[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @h () {
// CHECK-NEXT:       %a = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       %b = task.load @b[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       %s = task.add %a, %b : tensor<1x10xf32>
// CHECK-NEXT:       task.store %s, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.counter @a_done[1]
// CHECK-NEXT:     queue.counter @b_done[1]
// CHECK-NEXT:     queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @f[] on cyclic 0
// CHECK-NEXT:         queue.signal @a_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @a_done[0] all
// CHECK-NEXT:         queue.run @g[] on cyclic 1
// CHECK-NEXT:         queue.signal @b_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @b_done[0] all
// CHECK-NEXT:         queue.run @h[] on cyclic 2
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Readers of one half do not wait for the other half, which is written later: counters by phase.
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @left () {
    %v = task.load @in[0 : 1, 0 : 5] : tensor<1x5xf32>
    task.store %v, @a[0 : 1, 0 : 5] : tensor<1x5xf32>
  }
  task.family @use_left () {
    %v = task.load @a[0 : 1, 0 : 5] : tensor<1x5xf32>
    task.store %v, @y[0 : 1, 0 : 5] : tensor<1x5xf32>
  }
  task.family @right () {
    %v = task.load @y[0 : 1, 0 : 5] : tensor<1x5xf32>
    task.store %v, @a[0 : 1, 5 : 5] : tensor<1x5xf32>
  }
  task.family @use_right () {
    %v = task.load @a[0 : 1, 5 : 5] : tensor<1x5xf32>
    task.store %v, @y[0 : 1, 5 : 5] : tensor<1x5xf32>
  }
  task.order {
    task.call @left[]
        task.call @use_left[]
        task.call @right[]
        task.call @use_right[]
  }
}

// CHECK: task.buffer @a scratch : tensor<1x10xf32>
// CHECK-NEXT:     task.buffer @y output : tensor<1x10xf32>
// CHECK-NEXT:     task.family @left () {
// CHECK-NEXT:       %v = task.load @in[0 : 1, 0 : 5] : tensor<1x5xf32>
// CHECK-NEXT:       task.store %v, @a[0 : 1, 0 : 5] : tensor<1x5xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @use_left () {
// CHECK-NEXT:       %v = task.load @a[0 : 1, 0 : 5] : tensor<1x5xf32>
// CHECK-NEXT:       task.store %v, @y[0 : 1, 0 : 5] : tensor<1x5xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @right () {
// CHECK-NEXT:       %v = task.load @y[0 : 1, 0 : 5] : tensor<1x5xf32>
// CHECK-NEXT:       task.store %v, @a[0 : 1, 5 : 5] : tensor<1x5xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @use_right () {
// CHECK-NEXT:       %v = task.load @a[0 : 1, 5 : 5] : tensor<1x5xf32>
// CHECK-NEXT:       task.store %v, @y[0 : 1, 5 : 5] : tensor<1x5xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.counter @left_done[1]
// CHECK-NEXT:     queue.counter @right_done[1]
// CHECK-NEXT:     queue.counter @use_left_done[1]
// CHECK-NEXT:     queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @left[] on cyclic 0
// CHECK-NEXT:         queue.signal @left_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @left_done[0] all
// CHECK-NEXT:         queue.run @use_left[] on cyclic 1
// CHECK-NEXT:         queue.signal @use_left_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @use_left_done[0] all
// CHECK-NEXT:         queue.run @right[] on cyclic 2
// CHECK-NEXT:         queue.signal @right_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @right_done[0] all
// CHECK-NEXT:         queue.run @use_right[] on cyclic 3
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
