// RUN: amk-opt %s --split-input-file -p tile-tasks | filecheck %s

// A matmul in tasks of eight output rows; two tokens.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x8xf32>
  task.buffer @x input : tensor<2x8xf32>
  task.buffer @y output : tensor<2x16xf32>
  task.family @linear () {
    %x = task.load @x[0 : 2, 0 : 8] : tensor<2x8xf32>
    %w = task.stream @w[0 : 16, 0 : 8] : tensor<16x8xf32>
    %y = task.matmul %x, %w : (tensor<2x8xf32>, tensor<16x8xf32>) -> tensor<2x16xf32>
    task.store %y, @y[0 : 2, 0 : 16] : tensor<2x16xf32>
  }
  task.order {
    task.call @linear[]
  }
}

// CHECK: task.family @linear (tile = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:       %w = task.stream @w[tile*8 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<2x8xf32>, tensor<8x8xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:       task.store %y, @y[0 : 2, tile*8 : 8] : tensor<2x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @linear[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// A ragged last tile: the stream reads zeros and the store writes nothing at or beyond the limit.
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

// CHECK: task.family @linear (tile = 7) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[tile*8 : 8 to 50, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @y[0 : 1, tile*8 : 8 to 50] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @linear[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Fewer rows than a tile: one task.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<5x8xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @y output : tensor<1x5xf32>
  task.family @linear () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 5, 0 : 8] : tensor<5x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<5x8xf32>) -> tensor<1x5xf32>
    task.store %y, @y[0 : 1, 0 : 5] : tensor<1x5xf32>
  }
  task.order {
    task.call @linear[]
  }
}

// CHECK: task.family @linear () {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[0 : 5, 0 : 8] : tensor<5x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<5x8xf32>) -> tensor<1x5xf32>
// CHECK-NEXT:       task.store %y, @y[0 : 1, 0 : 5] : tensor<1x5xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @linear[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Rotation pairs stay whole: four pairs of one head a task, the frequencies follow.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<3x2x8x8xf32>
  task.buffer @f weight from #amk.rope_frequencies<head_dim = 16, theta = 10000.0> : tensor<8xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @c state : tensor<8x3x2x8xf32>
  task.family @keys () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 3, 0 : 2, 0 : 8, 0 : 8] : tensor<3x2x8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<3x2x8x8xf32>) -> tensor<1x3x2x8xf32>
    %f = task.load @f[0 : 8] : tensor<8xf32>
    %r = task.rope %y, %f : (tensor<1x3x2x8xf32>, tensor<8xf32>)
    task.store %r, @c[pos : 1, 0 : 3, 0 : 2, 0 : 8] : tensor<1x3x2x8xf32>
  }
  task.order {
    task.call @keys[]
  }
}

// CHECK: task.family @keys (head = 3, part = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[head, 0 : 2, part*4 : 4, 0 : 8] : tensor<2x4x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x4x8xf32>) -> tensor<1x2x4xf32>
// CHECK-NEXT:       %f = task.load @f[part*4 : 4] : tensor<4xf32>
// CHECK-NEXT:       %r = task.rope %y, %f : (tensor<1x2x4xf32>, tensor<4xf32>)
// CHECK-NEXT:       task.store %r, @c[pos : 1, head, 0 : 2, part*4 : 4] : tensor<1x2x4xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @keys[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// An odd half: the last part of every head is cut.
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
// CHECK-NEXT:       %w = task.stream @w[head, 0 : 2, part*4 : 4 to 5, 0 : 8] : tensor<2x4x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x4x8xf32>) -> tensor<1x2x4xf32>
// CHECK-NEXT:       %f = task.load @f[part*4 : 4 to 5] : tensor<4xf32>
// CHECK-NEXT:       %r = task.rope %y, %f : (tensor<1x2x4xf32>, tensor<4xf32>)
// CHECK-NEXT:       task.store %r, @c[pos : 1, head, 0 : 2, part*4 : 4 to 5] : tensor<1x2x4xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @keys[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// A head of eight rows: one head a task, its dimension disappears.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x2x4x8xf32>
  task.buffer @f weight from #amk.rope_frequencies<head_dim = 8, theta = 10000.0> : tensor<4xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @c state : tensor<8x4x2x4xf32>
  task.family @keys () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 4, 0 : 2, 0 : 4, 0 : 8] : tensor<4x2x4x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<4x2x4x8xf32>) -> tensor<1x4x2x4xf32>
    %f = task.load @f[0 : 4] : tensor<4xf32>
    %r = task.rope %y, %f : (tensor<1x4x2x4xf32>, tensor<4xf32>)
    task.store %r, @c[pos : 1, 0 : 4, 0 : 2, 0 : 4] : tensor<1x4x2x4xf32>
  }
  task.order {
    task.call @keys[]
  }
}

// CHECK: task.family @keys (head = 4) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[head, 0 : 2, 0 : 4, 0 : 8] : tensor<2x4x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x4x8xf32>) -> tensor<1x2x4xf32>
// CHECK-NEXT:       %f = task.load @f[0 : 4] : tensor<4xf32>
// CHECK-NEXT:       %r = task.rope %y, %f : (tensor<1x2x4xf32>, tensor<4xf32>)
// CHECK-NEXT:       task.store %r, @c[pos : 1, head, 0 : 2, 0 : 4] : tensor<1x2x4xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @keys[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Small heads: two whole heads a task, the last task has one.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<5x2x2x8xf32>
  task.buffer @f weight from #amk.rope_frequencies<head_dim = 4, theta = 10000.0> : tensor<2xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @c state : tensor<8x5x2x2xf32>
  task.family @keys () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 5, 0 : 2, 0 : 2, 0 : 8] : tensor<5x2x2x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<5x2x2x8xf32>) -> tensor<1x5x2x2xf32>
    %f = task.load @f[0 : 2] : tensor<2xf32>
    %r = task.rope %y, %f : (tensor<1x5x2x2xf32>, tensor<2xf32>)
    task.store %r, @c[pos : 1, 0 : 5, 0 : 2, 0 : 2] : tensor<1x5x2x2xf32>
  }
  task.order {
    task.call @keys[]
  }
}

// CHECK: task.family @keys (head = 3) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[head*2 : 2 to 5, 0 : 2, 0 : 2, 0 : 8] : tensor<2x2x2x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x2x2x8xf32>) -> tensor<1x2x2x2xf32>
// CHECK-NEXT:       %f = task.load @f[0 : 2] : tensor<2xf32>
// CHECK-NEXT:       %r = task.rope %y, %f : (tensor<1x2x2x2xf32>, tensor<2xf32>)
// CHECK-NEXT:       task.store %r, @c[pos : 1, head*2 : 2 to 5, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @keys[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// One head: only parts are numbered.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<1x2x6x8xf32>
  task.buffer @f weight from #amk.rope_frequencies<head_dim = 12, theta = 10000.0> : tensor<6xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @c state : tensor<8x1x2x6xf32>
  task.family @keys () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 1, 0 : 2, 0 : 6, 0 : 8] : tensor<1x2x6x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<1x2x6x8xf32>) -> tensor<1x1x2x6xf32>
    %f = task.load @f[0 : 6] : tensor<6xf32>
    %r = task.rope %y, %f : (tensor<1x1x2x6xf32>, tensor<6xf32>)
    task.store %r, @c[pos : 1, 0 : 1, 0 : 2, 0 : 6] : tensor<1x1x2x6xf32>
  }
  task.order {
    task.call @keys[]
  }
}

// CHECK: task.family @keys (part = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[0 : 1, 0 : 2, part*4 : 4 to 6, 0 : 8] : tensor<1x2x4x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<1x2x4x8xf32>) -> tensor<1x1x2x4xf32>
// CHECK-NEXT:       %f = task.load @f[part*4 : 4 to 6] : tensor<4xf32>
// CHECK-NEXT:       %r = task.rope %y, %f : (tensor<1x1x2x4xf32>, tensor<4xf32>)
// CHECK-NEXT:       task.store %r, @c[pos : 1, 0 : 1, 0 : 2, part*4 : 4 to 6] : tensor<1x1x2x4xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @keys[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Gate and up: four rows of each, the bias with them.
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

// CHECK: task.family @mlp (tile = 3) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.stream @g[tile*4 : 4 to 10, 0 : 8] : tensor<4x8xf32>
// CHECK-NEXT:       %a = task.matmul %x, %g : (tensor<1x8xf32>, tensor<4x8xf32>) -> tensor<1x4xf32>
// CHECK-NEXT:       %b = task.load @gb[tile*4 : 4 to 10] : tensor<4xf32>
// CHECK-NEXT:       %ab = task.bias_add %a, %b : (tensor<1x4xf32>, tensor<4xf32>)
// CHECK-NEXT:       %u = task.stream @u[tile*4 : 4 to 10, 0 : 8] : tensor<4x8xf32>
// CHECK-NEXT:       %c = task.matmul %x, %u : (tensor<1x8xf32>, tensor<4x8xf32>) -> tensor<1x4xf32>
// CHECK-NEXT:       %s = task.silu_mul %ab, %c : tensor<1x4xf32>
// CHECK-NEXT:       task.store %s, @y[0 : 1, tile*4 : 4 to 10] : tensor<1x4xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @mlp[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// The prologue is computed whole by every tile, the residual in tiles.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x20x8xf32>
  task.buffer @g weight from #amk.checkpoint<"l.{layer}.g"> : tensor<2x8xf32>
  task.buffer @a input : tensor<2x1x8xf32>
  task.buffer @x scratch : tensor<3x1x20xf32>
  task.family @down (layer = 2) {
    %a = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %a, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    %w = task.stream @w[layer, 0 : 20, 0 : 8] : tensor<20x8xf32>
    %y = task.matmul %n, %w : (tensor<1x8xf32>, tensor<20x8xf32>) -> tensor<1x20xf32>
    %x = task.load @x[layer, 0 : 1, 0 : 20] : tensor<1x20xf32>
    %s = task.add %x, %y : tensor<1x20xf32>
    task.store %s, @x[layer + 1, 0 : 1, 0 : 20] : tensor<1x20xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
          task.call @down[layer]
        }
  }
}

// CHECK: task.family @down (layer = 2, tile = 3) {
// CHECK-NEXT:       %a = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %a, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       %w = task.stream @w[layer, tile*8 : 8 to 20, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %n, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, tile*8 : 8 to 20] : tensor<1x8xf32>
// CHECK-NEXT:       %s = task.add %x, %y : tensor<1x8xf32>
// CHECK-NEXT:       task.store %s, @x[layer + 1, 0 : 1, tile*8 : 8 to 20] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @down[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Attention: one KV head a task with its group of heads.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q input : tensor<1x6x2x2xf32>
  task.buffer @k state : tensor<8x2x2x2xbf16>
  task.buffer @kn input : tensor<1x2x2x2xf32>
  task.buffer @o output : tensor<1x6x2x2xf32>
  task.family @attention () {
    %q = task.load @q[0 : 1, 0 : 6, 0 : 2, 0 : 2] : tensor<1x6x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 2, 0 : 2, 0 : 2] : tensor<?x2x2x2xbf16>
    %kn = task.load @kn[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %o = task.attention %q, %k, %k, %kn, %kn {scale = 0.5 : f64} : (tensor<1x6x2x2xf32>, tensor<?x2x2x2xbf16>, tensor<1x2x2x2xf32>)
    task.store %o, @o[0 : 1, 0 : 6, 0 : 2, 0 : 2] : tensor<1x6x2x2xf32>
  }
  task.order {
    task.call @attention[]
  }
}

// CHECK: task.family @attention (kv_head = 2) {
// CHECK-NEXT:       %q = task.load @q[0 : 1, kv_head*3 : 3, 0 : 2, 0 : 2] : tensor<1x3x2x2xf32>
// CHECK-NEXT:       %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
// CHECK-NEXT:       %kn = task.load @kn[0 : 1, kv_head : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
// CHECK-NEXT:       %o = task.attention %q, %k, %k, %kn, %kn {scale = 5.000000e-01 : f64} : (tensor<1x3x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>)
// CHECK-NEXT:       task.store %o, @o[0 : 1, kv_head*3 : 3, 0 : 2, 0 : 2] : tensor<1x3x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @attention[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Attention with one KV head: one task.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q input : tensor<1x3x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @kn input : tensor<1x1x2x2xf32>
  task.buffer @o output : tensor<1x3x2x2xf32>
  task.family @attention () {
    %q = task.load @q[0 : 1, 0 : 3, 0 : 2, 0 : 2] : tensor<1x3x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %kn = task.load @kn[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %o = task.attention %q, %k, %k, %kn, %kn {scale = 0.5 : f64} : (tensor<1x3x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>)
    task.store %o, @o[0 : 1, 0 : 3, 0 : 2, 0 : 2] : tensor<1x3x2x2xf32>
  }
  task.order {
    task.call @attention[]
  }
}

// CHECK: task.family @attention () {
// CHECK-NEXT:       %q = task.load @q[0 : 1, 0 : 3, 0 : 2, 0 : 2] : tensor<1x3x2x2xf32>
// CHECK-NEXT:       %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
// CHECK-NEXT:       %kn = task.load @kn[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
// CHECK-NEXT:       %o = task.attention %q, %k, %k, %kn, %kn {scale = 5.000000e-01 : f64} : (tensor<1x3x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>)
// CHECK-NEXT:       task.store %o, @o[0 : 1, 0 : 3, 0 : 2, 0 : 2] : tensor<1x3x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @attention[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// An embedding in columns.
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

// CHECK: task.family @embedding (tile = 2) {
// CHECK-NEXT:       %t = task.load @t[0 : 1] : tensor<1xi32>
// CHECK-NEXT:       %x = task.gather %t, @e[0 : 50, tile*64 : 64 to 100] : (tensor<1xi32>) -> tensor<1x64xf32>
// CHECK-NEXT:       task.store %x, @y[0 : 1, tile*64 : 64 to 100] : tensor<1x64xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @embedding[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Norms and argmax need all columns: one task.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x100xf32>
  task.buffer @g weight from #amk.checkpoint<"g"> : tensor<100xf32>
  task.buffer @n output : tensor<1x100xf32>
  task.buffer @i output : tensor<1xi32>
  task.family @norm () {
    %x = task.load @x[0 : 1, 0 : 100] : tensor<1x100xf32>
    %g = task.load @g[0 : 100] : tensor<100xf32>
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x100xf32>, tensor<100xf32>)
    task.store %n, @n[0 : 1, 0 : 100] : tensor<1x100xf32>
  }
  task.family @argmax () {
    %x = task.load @x[0 : 1, 0 : 100] : tensor<1x100xf32>
    %i = task.argmax %x : tensor<1x100xf32> -> tensor<1xi32>
    task.store %i, @i[0 : 1] : tensor<1xi32>
  }
  task.order {
    task.call @norm[]
        task.call @argmax[]
  }
}

// CHECK: task.family @norm () {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 100] : tensor<1x100xf32>
// CHECK-NEXT:       %g = task.load @g[0 : 100] : tensor<100xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x100xf32>, tensor<100xf32>)
// CHECK-NEXT:       task.store %n, @n[0 : 1, 0 : 100] : tensor<1x100xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @argmax () {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 100] : tensor<1x100xf32>
// CHECK-NEXT:       %i = task.argmax %x : tensor<1x100xf32> -> tensor<1xi32>
// CHECK-NEXT:       task.store %i, @i[0 : 1] : tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @norm[]
// CHECK-NEXT:       task.call @argmax[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Rope and the cache append by themselves: whole heads or parts of them.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x3x2x40xf32>
  task.buffer @f weight from #amk.rope_frequencies<head_dim = 80, theta = 10000.0> : tensor<40xf32>
  task.buffer @y scratch : tensor<1x3x2x40xf32>
  task.buffer @c state : tensor<8x3x2x40xf32>
  task.family @rope () {
    %x = task.load @x[0 : 1, 0 : 3, 0 : 2, 0 : 40] : tensor<1x3x2x40xf32>
    %f = task.load @f[0 : 40] : tensor<40xf32>
    %r = task.rope %x, %f : (tensor<1x3x2x40xf32>, tensor<40xf32>)
    task.store %r, @y[0 : 1, 0 : 3, 0 : 2, 0 : 40] : tensor<1x3x2x40xf32>
  }
  task.family @append () {
    %y = task.load @y[0 : 1, 0 : 3, 0 : 2, 0 : 40] : tensor<1x3x2x40xf32>
    task.store %y, @c[pos : 1, 0 : 3, 0 : 2, 0 : 40] : tensor<1x3x2x40xf32>
  }
  task.order {
    task.call @rope[]
        task.call @append[]
  }
}

// CHECK: task.family @rope (head = 3, part = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, head, 0 : 2, part*32 : 32 to 40] : tensor<1x2x32xf32>
// CHECK-NEXT:       %f = task.load @f[part*32 : 32 to 40] : tensor<32xf32>
// CHECK-NEXT:       %r = task.rope %x, %f : (tensor<1x2x32xf32>, tensor<32xf32>)
// CHECK-NEXT:       task.store %r, @y[0 : 1, head, 0 : 2, part*32 : 32 to 40] : tensor<1x2x32xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @append (head = 3, part = 2) {
// CHECK-NEXT:       %y = task.load @y[0 : 1, head, 0 : 2, part*32 : 32 to 40] : tensor<1x2x32xf32>
// CHECK-NEXT:       task.store %y, @c[pos : 1, head, 0 : 2, part*32 : 32 to 40] : tensor<1x2x32xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @rope[]
// CHECK-NEXT:       task.call @append[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Two stores of different shapes: not tiled.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x100xf32>
  task.buffer @g weight from #amk.checkpoint<"g"> : tensor<100xf32>
  task.buffer @y output : tensor<1x100xf32>
  task.buffer @z output : tensor<1x50xf32>
  task.family @two () {
    %x = task.load @x[0 : 1, 0 : 100] : tensor<1x100xf32>
    %p = task.load @x[0 : 1, 0 : 50] : tensor<1x50xf32>
    task.store %x, @y[0 : 1, 0 : 100] : tensor<1x100xf32>
    task.store %p, @z[0 : 1, 0 : 50] : tensor<1x50xf32>
  }
  task.order {
    task.call @two[]
  }
}

// CHECK: task.family @two () {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 100] : tensor<1x100xf32>
// CHECK-NEXT:       %p = task.load @x[0 : 1, 0 : 50] : tensor<1x50xf32>
// CHECK-NEXT:       task.store %x, @y[0 : 1, 0 : 100] : tensor<1x100xf32>
// CHECK-NEXT:       task.store %p, @z[0 : 1, 0 : 50] : tensor<1x50xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @two[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Tasks that would read what other tiles write: not tiled.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<1x100xf32>
  task.family @shift () {
    %x = task.load @x[0 : 1, 0 : 99] : tensor<1x99xf32>
    task.store %x, @x[0 : 1, 1 : 99] : tensor<1x99xf32>
  }
  task.order {
    task.call @shift[]
  }
}

// CHECK: task.family @shift () {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 99] : tensor<1x99xf32>
// CHECK-NEXT:       task.store %x, @x[0 : 1, 1 : 99] : tensor<1x99xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @shift[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Tiled already: left alone.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x256xf32>
  task.buffer @y output : tensor<1x256xf32>
  task.family @copy (half = 2) {
    %x = task.load @x[0 : 1, half*128 : 128] : tensor<1x128xf32>
    task.store %x, @y[0 : 1, half*128 : 128] : tensor<1x128xf32>
  }
  task.order {
    task.call @copy[]
  }
}

// CHECK: task.family @copy (half = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, half*128 : 128] : tensor<1x128xf32>
// CHECK-NEXT:       task.store %x, @y[0 : 1, half*128 : 128] : tensor<1x128xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @copy[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
