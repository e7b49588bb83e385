// RUN: amk-opt %s --split-input-file -p 'tile-tasks{tasks=4}' | filecheck %s

// At most four tasks of equal size: 13 rows each.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<50x8xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @y output : tensor<1x50xf32>
  task.family @linear () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 50, 0 : 8] : tensor<50x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<50x8xf32>) -> tensor<1x50xf32>
    task.store %y, @y[0 : 1, 0 : 50] : tensor<1x50xf32>
  }
  task.order {
    task.call @linear[]
  }
}

// CHECK: task.family @linear (tile = 4) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[tile*13 : 13 to 50, 0 : 8] : tensor<13x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<13x8xf32>) -> tensor<1x13xf32>
// CHECK-NEXT:       task.store %y, @y[0 : 1, tile*13 : 13 to 50] : tensor<1x13xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @linear[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Fewer heads than tasks: two parts of each of two heads.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<2x2x5x8xf32>
  task.buffer @f weight from #amk.rope_frequencies<head_dim = 10, theta = 10000.0> : tensor<5xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @c state : tensor<8x2x2x5xf32>
  task.family @keys () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 2, 0 : 2, 0 : 5, 0 : 8] : tensor<2x2x5x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x2x5x8xf32>) -> tensor<1x2x2x5xf32>
    %f = task.load @f[0 : 5] : tensor<5xf32>
    %r = task.rope %y, %f : (tensor<1x2x2x5xf32>, tensor<5xf32>)
    task.store %r, @c[pos : 1, 0 : 2, 0 : 2, 0 : 5] : tensor<1x2x2x5xf32>
  }
  task.order {
    task.call @keys[]
  }
}

// CHECK: task.family @keys (head = 2, part = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[head, 0 : 2, part*3 : 3 to 5, 0 : 8] : tensor<2x3x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x3x8xf32>) -> tensor<1x2x3xf32>
// CHECK-NEXT:       %f = task.load @f[part*3 : 3 to 5] : tensor<3xf32>
// CHECK-NEXT:       %r = task.rope %y, %f : (tensor<1x2x3xf32>, tensor<3xf32>)
// CHECK-NEXT:       task.store %r, @c[pos : 1, head, 0 : 2, part*3 : 3 to 5] : tensor<1x2x3xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @keys[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// More heads than tasks: two heads a task.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<7x2x2x8xf32>
  task.buffer @f weight from #amk.rope_frequencies<head_dim = 4, theta = 10000.0> : tensor<2xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @c state : tensor<8x7x2x2xf32>
  task.family @keys () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 7, 0 : 2, 0 : 2, 0 : 8] : tensor<7x2x2x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<7x2x2x8xf32>) -> tensor<1x7x2x2xf32>
    %f = task.load @f[0 : 2] : tensor<2xf32>
    %r = task.rope %y, %f : (tensor<1x7x2x2xf32>, tensor<2xf32>)
    task.store %r, @c[pos : 1, 0 : 7, 0 : 2, 0 : 2] : tensor<1x7x2x2xf32>
  }
  task.order {
    task.call @keys[]
  }
}

// CHECK: task.family @keys (head = 4) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[head*2 : 2 to 7, 0 : 2, 0 : 2, 0 : 8] : tensor<2x2x2x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x2x2x8xf32>) -> tensor<1x2x2x2xf32>
// CHECK-NEXT:       %f = task.load @f[0 : 2] : tensor<2xf32>
// CHECK-NEXT:       %r = task.rope %y, %f : (tensor<1x2x2x2xf32>, tensor<2xf32>)
// CHECK-NEXT:       task.store %r, @c[pos : 1, head*2 : 2 to 7, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @keys[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Attention: the number of KV heads divides into equal tasks.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q input : tensor<1x12x2x2xf32>
  task.buffer @k state : tensor<8x6x2x2xbf16>
  task.buffer @kn input : tensor<1x6x2x2xf32>
  task.buffer @o output : tensor<1x12x2x2xf32>
  task.family @attention () {
    %q = task.load @q[0 : 1, 0 : 12, 0 : 2, 0 : 2] : tensor<1x12x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 6, 0 : 2, 0 : 2] : tensor<?x6x2x2xbf16>
    %kn = task.load @kn[0 : 1, 0 : 6, 0 : 2, 0 : 2] : tensor<1x6x2x2xf32>
    %o = task.attention %q, %k, %k, %kn, %kn {scale = 0.5 : f64} : (tensor<1x12x2x2xf32>, tensor<?x6x2x2xbf16>, tensor<1x6x2x2xf32>)
    task.store %o, @o[0 : 1, 0 : 12, 0 : 2, 0 : 2] : tensor<1x12x2x2xf32>
  }
  task.order {
    task.call @attention[]
  }
}

// CHECK: task.family @attention (kv_head = 3) {
// CHECK-NEXT:       %q = task.load @q[0 : 1, kv_head*4 : 4, 0 : 2, 0 : 2] : tensor<1x4x2x2xf32>
// CHECK-NEXT:       %k = task.stream @k[0 : pos, kv_head*2 : 2, 0 : 2, 0 : 2] : tensor<?x2x2x2xbf16>
// CHECK-NEXT:       %kn = task.load @kn[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:       %o = task.attention %q, %k, %k, %kn, %kn {scale = 5.000000e-01 : f64} : (tensor<1x4x2x2xf32>, tensor<?x2x2x2xbf16>, tensor<1x2x2x2xf32>)
// CHECK-NEXT:       task.store %o, @o[0 : 1, kv_head*4 : 4, 0 : 2, 0 : 2] : tensor<1x4x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @attention[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Gate and up count together.
task.program @p max_seq 8 tokens 1 {
  task.buffer @g weight from #amk.checkpoint<"g"> : tensor<10x8xf32>
  task.buffer @u weight from #amk.checkpoint<"u"> : tensor<10x8xf32>
  task.buffer @gb weight from #amk.checkpoint<"gb"> : tensor<10xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @mlp () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.stream @g[0 : 10, 0 : 8] : tensor<10x8xf32>
    %a = task.matmul %x, %g : (tensor<1x8xf32>, tensor<10x8xf32>) -> tensor<1x10xf32>
    %b = task.load @gb[0 : 10] : tensor<10xf32>
    %ab = task.bias_add %a, %b : (tensor<1x10xf32>, tensor<10xf32>)
    %u = task.stream @u[0 : 10, 0 : 8] : tensor<10x8xf32>
    %c = task.matmul %x, %u : (tensor<1x8xf32>, tensor<10x8xf32>) -> tensor<1x10xf32>
    %s = task.silu_mul %ab, %c : tensor<1x10xf32>
    task.store %s, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.order {
    task.call @mlp[]
  }
}

// CHECK: task.family @mlp (tile = 4) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.stream @g[tile*3 : 3 to 10, 0 : 8] : tensor<3x8xf32>
// CHECK-NEXT:       %a = task.matmul %x, %g : (tensor<1x8xf32>, tensor<3x8xf32>) -> tensor<1x3xf32>
// CHECK-NEXT:       %b = task.load @gb[tile*3 : 3 to 10] : tensor<3xf32>
// CHECK-NEXT:       %ab = task.bias_add %a, %b : (tensor<1x3xf32>, tensor<3xf32>)
// CHECK-NEXT:       %u = task.stream @u[tile*3 : 3 to 10, 0 : 8] : tensor<3x8xf32>
// CHECK-NEXT:       %c = task.matmul %x, %u : (tensor<1x8xf32>, tensor<3x8xf32>) -> tensor<1x3xf32>
// CHECK-NEXT:       %s = task.silu_mul %ab, %c : tensor<1x3xf32>
// CHECK-NEXT:       task.store %s, @y[0 : 1, tile*3 : 3 to 10] : tensor<1x3xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @mlp[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Columns of an embedding.
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

// CHECK: task.family @embedding (tile = 4) {
// CHECK-NEXT:       %t = task.load @t[0 : 1] : tensor<1xi32>
// CHECK-NEXT:       %x = task.gather %t, @e[0 : 50, tile*25 : 25] : (tensor<1xi32>) -> tensor<1x25xf32>
// CHECK-NEXT:       task.store %x, @y[0 : 1, tile*25 : 25] : tensor<1x25xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @embedding[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
