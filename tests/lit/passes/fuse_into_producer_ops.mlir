// RUN: amk-opt %s --split-input-file -p 'fuse-into-producer{ops=add}' | filecheck %s

// Only the kinds that are asked for: the sum is fused, the gated activation is not.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xf32>
  task.buffer @u weight from #amk.checkpoint<"l.{layer}.u"> : tensor<2x8x8xf32>
  task.buffer @x scratch : tensor<3x1x8xf32>
  task.buffer @a scratch : tensor<2x1x8xf32>
  task.buffer @b scratch : tensor<2x1x8xf32>
  task.buffer @c scratch : tensor<2x1x8xf32>
  task.buffer @in input : tensor<1x8xf32>
  task.family @first () {
    %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @linear_o (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @add (layer = 2) {
    %l = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %r = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %s = task.add %l, %r : tensor<1x8xf32>
    task.store %s, @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @act (layer = 2) {
    %l = task.load @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %r = task.load @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %s = task.silu_mul %l, %r : tensor<1x8xf32>
    task.store %s, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @first[]
        task.for layer = 0 to 2 {
          task.call @linear_o[layer]
          task.call @add[layer]
          task.call @act[layer]
        }
  }
}

// CHECK: task.family @first () {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_o (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       %s = task.add %x, %y : tensor<1x8xf32>
// CHECK-NEXT:       task.store %s, @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @act (layer = 2) {
// CHECK-NEXT:       %l = task.load @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %r = task.load @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %s = task.silu_mul %l, %r : tensor<1x8xf32>
// CHECK-NEXT:       task.store %s, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @first[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_o[layer]
// CHECK-NEXT:         task.call @act[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
