// RUN: amk-opt %s --split-input-file -p 'tile-tasks{rows=3 columns=40}' | filecheck %s

// Three rows a task; of a head, one pair.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<8x8xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @y output : tensor<1x8xf32>
  task.family @linear () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @linear[]
  }
}

// CHECK: task.family @linear (tile = 3) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[tile*3 : 3 to 8, 0 : 8] : tensor<3x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<3x8xf32>) -> tensor<1x3xf32>
// CHECK-NEXT:       task.store %y, @y[0 : 1, tile*3 : 3 to 8] : tensor<1x3xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @linear[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// One pair a task.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<1x2x2x8xf32>
  task.buffer @f weight from #amk.rope_frequencies<head_dim = 4, theta = 10000.0> : tensor<2xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @c state : tensor<8x1x2x2xf32>
  task.family @keys () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 1, 0 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<1x2x2x8xf32>) -> tensor<1x1x2x2xf32>
    %f = task.load @f[0 : 2] : tensor<2xf32>
    %r = task.rope %y, %f : (tensor<1x1x2x2xf32>, tensor<2xf32>)
    task.store %r, @c[pos : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
  }
  task.order {
    task.call @keys[]
  }
}

// CHECK: task.family @keys (part = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[0 : 1, 0 : 2, part : 1, 0 : 8] : tensor<1x2x1x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<1x2x1x8xf32>) -> tensor<1x1x2x1xf32>
// CHECK-NEXT:       %f = task.load @f[part : 1] : tensor<1xf32>
// CHECK-NEXT:       %r = task.rope %y, %f : (tensor<1x1x2x1xf32>, tensor<1xf32>)
// CHECK-NEXT:       task.store %r, @c[pos : 1, 0 : 1, 0 : 2, part : 1] : tensor<1x1x2x1xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @keys[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// One row of gate and one of up.
task.program @p max_seq 8 tokens 1 {
  task.buffer @g weight from #amk.checkpoint<"g"> : tensor<3x8xf32>
  task.buffer @u weight from #amk.checkpoint<"u"> : tensor<3x8xf32>
  task.buffer @gb weight from #amk.checkpoint<"gb"> : tensor<3xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @y output : tensor<1x3xf32>
  task.family @mlp () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.stream @g[0 : 3, 0 : 8] : tensor<3x8xf32>
    %a = task.matmul %x, %g : (tensor<1x8xf32>, tensor<3x8xf32>) -> tensor<1x3xf32>
    %b = task.load @gb[0 : 3] : tensor<3xf32>
    %ab = task.bias_add %a, %b : (tensor<1x3xf32>, tensor<3xf32>)
    %u = task.stream @u[0 : 3, 0 : 8] : tensor<3x8xf32>
    %c = task.matmul %x, %u : (tensor<1x8xf32>, tensor<3x8xf32>) -> tensor<1x3xf32>
    %s = task.silu_mul %ab, %c : tensor<1x3xf32>
    task.store %s, @y[0 : 1, 0 : 3] : tensor<1x3xf32>
  }
  task.order {
    task.call @mlp[]
  }
}

// CHECK: task.family @mlp (tile = 3) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.stream @g[tile : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %a = task.matmul %x, %g : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x1xf32>
// CHECK-NEXT:       %b = task.load @gb[tile : 1] : tensor<1xf32>
// CHECK-NEXT:       %ab = task.bias_add %a, %b : (tensor<1x1xf32>, tensor<1xf32>)
// CHECK-NEXT:       %u = task.stream @u[tile : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %c = task.matmul %x, %u : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x1xf32>
// CHECK-NEXT:       %s = task.silu_mul %ab, %c : tensor<1x1xf32>
// CHECK-NEXT:       task.store %s, @y[0 : 1, tile : 1] : tensor<1x1xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @mlp[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// 40 columns.
task.program @p max_seq 8 tokens 1 {
  task.buffer @e weight from #amk.checkpoint<"e"> : tensor<50x100xf32>
  task.buffer @t input : tensor<1xi32>
  task.buffer @y output : tensor<1x100xf32>
  task.family @embedding () {
    %t = task.load @t[0 : 1] : tensor<1xi32>
    %x = task.gather %t, @e[0 : 50, 0 : 100] : (tensor<1xi32>) -> tensor<1x100xf32>
    task.store %x, @y[0 : 1, 0 : 100] : tensor<1x100xf32>
  }
  task.order {
    task.call @embedding[]
  }
}

// CHECK: task.family @embedding (tile = 3) {
// CHECK-NEXT:       %t = task.load @t[0 : 1] : tensor<1xi32>
// CHECK-NEXT:       %x = task.gather %t, @e[0 : 50, tile*40 : 40 to 100] : (tensor<1xi32>) -> tensor<1x40xf32>
// CHECK-NEXT:       task.store %x, @y[0 : 1, tile*40 : 40 to 100] : tensor<1x40xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @embedding[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
