// RUN: amk-opt %s -p 'place-tasks{target=sm_80}' | filecheck %s

// The number of SMs is that of the target.
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

// CHECK: queue.kernel @p target "sm_80" sms 108 max_seq 8 tokens 1 {
// CHECK-NEXT:     task.buffer @in input : tensor<1x10xf32>
// CHECK-NEXT:     task.buffer @x scratch : tensor<3x1x10xf32>
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
// CHECK-NEXT:     task.family @g (layer = 2, tile = 3) {
// CHECK-NEXT:       %v = task.load @x[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @b[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
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
// CHECK-NEXT:     queue.program sms 0 to 108 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @first[] on cyclic 0
// CHECK-NEXT:       }
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @f[layer] on cyclic layer*18 + 5
// CHECK-NEXT:           queue.run @g[layer] on cyclic layer*18 + 10
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @h[layer] on cyclic layer*18 + 13
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @k[layer] on cyclic layer*18 + 18
// CHECK-NEXT:         }
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @last[] on cyclic 41
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
