// RUN: amk-opt %s --split-input-file -p 'place-tasks{sms=4}' | filecheck %s

// Independent adjacent calls share a phase (f and g), dependent ones do not. Each family starts where the one before it ended, modulo four: a layer has 18 tasks, so that layers are two SMs apart; after two layers and the five first tasks, the last family starts at SM 41 mod 4.
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
  task.family @g (layer = 2, tile = 3) {
    %v = task.load @x[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @b[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
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
          task.call @g[layer]
          task.call @h[layer]
          task.call @k[layer]
        }
        task.call @last[]
  }
}

// CHECK: queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @first[] on cyclic 0
// CHECK-NEXT:       }
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @f[layer] on cyclic layer*2 + 1
// CHECK-NEXT:           queue.run @g[layer] on cyclic layer*2 + 2
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @h[layer] on cyclic layer*2 + 1
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @k[layer] on cyclic layer*2 + 2
// CHECK-NEXT:         }
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @last[] on cyclic 1
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Two halves of one buffer are independent, a second write and a read of both are not.
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @b scratch : tensor<1x10xf32>
  task.buffer @c scratch : tensor<1x10xf32>
  task.family @f () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @half () {
    %v = task.load @in[0 : 1, 0 : 5] : tensor<1x5xf32>
    task.store %v, @b[0 : 1, 0 : 5] : tensor<1x5xf32>
  }
  task.family @other_half () {
    %v = task.load @in[0 : 1, 5 : 5] : tensor<1x5xf32>
    task.store %v, @b[0 : 1, 5 : 5] : tensor<1x5xf32>
  }
  task.family @war () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @raw () {
    %v = task.load @b[0 : 1, 4 : 2] : tensor<1x2xf32>
    task.store %v, @c[0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  task.order {
    task.call @f[]
        task.call @half[]
        task.call @other_half[]
        task.call @war[]
        task.call @raw[]
  }
}

// CHECK: queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @f[] on cyclic 0
// CHECK-NEXT:         queue.run @half[] on cyclic 1
// CHECK-NEXT:         queue.run @other_half[] on cyclic 2
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @war[] on cyclic 3
// CHECK-NEXT:         queue.run @raw[] on cyclic 0
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
