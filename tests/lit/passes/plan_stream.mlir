// RUN: amk-opt %s -p 'place-tasks{sms=4},plan-stream' | filecheck %s

// Fetches follow the order of the body, with its placement; families without constant tiles, phases and loops of none of them have no place in the stream. Twelve stages of 16 KiB fit.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x16x16xf32>
  task.buffer @u weight from #amk.checkpoint<"l.{layer}.u"> : tensor<2x16x16xf32>
  task.buffer @h weight from #amk.checkpoint<"h"> : tensor<16x16xf32>
  task.buffer @x input : tensor<2x1x16xf32>
  task.buffer @a scratch : tensor<2x1x16xf32>
  task.buffer @b scratch : tensor<2x1x16xf32>
  task.buffer @c scratch : tensor<2x1x16xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.family @f (layer = 2, tile = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
    %w = task.stream @w[layer, tile*8 : 8, 0 : 16] : tensor<8x16xf32>
    %y = task.matmul %x, %w : (tensor<1x16xf32>, tensor<8x16xf32>) -> tensor<1x8xf32>
    task.store %y, @a[layer, 0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.family @g (layer = 2, tile = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
    %w = task.stream @u[layer, tile*8 : 8, 0 : 16] : tensor<8x16xf32>
    %y = task.matmul %x, %w : (tensor<1x16xf32>, tensor<8x16xf32>) -> tensor<1x8xf32>
    task.store %y, @b[layer, 0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.family @add (layer = 2) {
    %a = task.load @a[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
    %b = task.load @b[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
    %s = task.add %a, %b : tensor<1x16xf32>
    task.store %s, @c[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
  }
  task.family @head (tile = 2) {
    %x = task.load @x[1, 0 : 1, 0 : 16] : tensor<1x16xf32>
    %w = task.stream @h[tile*8 : 8, 0 : 16] : tensor<8x16xf32>
    %y = task.matmul %x, %w : (tensor<1x16xf32>, tensor<8x16xf32>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
          task.call @f[layer]
          task.call @g[layer]
          task.call @add[layer]
        }
        task.for layer = 0 to 2 {
          task.call @add[layer]
        }
        task.call @head[]
  }
}

// CHECK: queue.kernel @p target "sm_90a" sms 4 max_seq 8 tokens 1 ring #amk.ring<stages = 12, bytes = 16384, in_flight = 3> {
// CHECK-NEXT:     task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x16x16xf32>
// CHECK-NEXT:     task.buffer @u weight from #amk.checkpoint<"l.{layer}.u"> : tensor<2x16x16xf32>
// CHECK-NEXT:     task.buffer @h weight from #amk.checkpoint<"h"> : tensor<16x16xf32>
// CHECK-NEXT:     task.buffer @x input : tensor<2x1x16xf32>
// CHECK-NEXT:     task.buffer @a scratch : tensor<2x1x16xf32>
// CHECK-NEXT:     task.buffer @b scratch : tensor<2x1x16xf32>
// CHECK-NEXT:     task.buffer @c scratch : tensor<2x1x16xf32>
// CHECK-NEXT:     task.buffer @y output : tensor<1x16xf32>
// CHECK-NEXT:     task.family @f (layer = 2, tile = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, tile*8 : 8, 0 : 16] : tensor<8x16xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x16xf32>, tensor<8x16xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @a[layer, 0 : 1, tile*8 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @g (layer = 2, tile = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
// CHECK-NEXT:       %w = task.stream @u[layer, tile*8 : 8, 0 : 16] : tensor<8x16xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x16xf32>, tensor<8x16xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @b[layer, 0 : 1, tile*8 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @add (layer = 2) {
// CHECK-NEXT:       %a = task.load @a[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
// CHECK-NEXT:       %b = task.load @b[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
// CHECK-NEXT:       %s = task.add %a, %b : tensor<1x16xf32>
// CHECK-NEXT:       task.store %s, @c[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @head (tile = 2) {
// CHECK-NEXT:       %x = task.load @x[1, 0 : 1, 0 : 16] : tensor<1x16xf32>
// CHECK-NEXT:       %w = task.stream @h[tile*8 : 8, 0 : 16] : tensor<8x16xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x16xf32>, tensor<8x16xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.program sms 0 to 4 stream {
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         queue.fetch @f[layer] on cyclic layer
// CHECK-NEXT:         queue.fetch @g[layer] on cyclic layer + 2
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.fetch @head[] on cyclic 0
// CHECK-NEXT:     } body {
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @f[layer] on cyclic layer
// CHECK-NEXT:           queue.run @g[layer] on cyclic layer + 2
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @add[layer] on cyclic layer
// CHECK-NEXT:         }
// CHECK-NEXT:       }
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @add[layer] on cyclic layer + 2
// CHECK-NEXT:         }
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @head[] on cyclic 0
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
