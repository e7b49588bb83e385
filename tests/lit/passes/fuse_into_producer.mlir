// RUN: amk-opt %s --split-input-file -p fuse-into-producer | filecheck %s

// Bias, rope and the append to the cache continue the matmul; the three buffers between are gone.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x2x2x2x8xf32>
  task.buffer @b weight from #amk.checkpoint<"l.{layer}.b"> : tensor<2x2x2x2xf32>
  task.buffer @f weight from #amk.rope_frequencies<head_dim = 4, theta = 10000.0> : tensor<2xf32>
  task.buffer @x input : tensor<2x1x8xf32>
  task.buffer @q scratch : tensor<2x1x2x2x2xf32>
  task.buffer @qb scratch : tensor<2x1x2x2x2xf32>
  task.buffer @qr scratch : tensor<2x1x2x2x2xf32>
  task.buffer @kc state : tensor<2x8x2x2x2xbf16>
  task.family @linear_q (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 2, 0 : 2, 0 : 2, 0 : 8] : tensor<2x2x2x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x2x2x8xf32>) -> tensor<1x2x2x2xf32>
    task.store %y, @q[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
  }
  task.family @bias_add_q (layer = 2) {
    %y = task.load @q[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %b = task.load @b[layer, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2xf32>
    %z = task.bias_add %y, %b : (tensor<1x2x2x2xf32>, tensor<2x2x2xf32>)
    task.store %z, @qb[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
  }
  task.family @rope_q (layer = 2) {
    %z = task.load @qb[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %f = task.load @f[0 : 2] : tensor<2xf32>
    %r = task.rope %z, %f : (tensor<1x2x2x2xf32>, tensor<2xf32>)
    task.store %r, @qr[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
  }
  task.family @append_k (layer = 2) {
    %r = task.load @qr[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    task.store %r, @kc[layer, pos : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
          task.call @linear_q[layer]
          task.call @bias_add_q[layer]
          task.call @rope_q[layer]
          task.call @append_k[layer]
        }
  }
}

// CHECK: task.family @linear_q (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 2, 0 : 2, 0 : 2, 0 : 8] : tensor<2x2x2x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x2x2x8xf32>) -> tensor<1x2x2x2xf32>
// CHECK-NEXT:       %b = task.load @b[layer, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2xf32>
// CHECK-NEXT:       %z = task.bias_add %y, %b : (tensor<1x2x2x2xf32>, tensor<2x2x2xf32>)
// CHECK-NEXT:       %f = task.load @f[0 : 2] : tensor<2xf32>
// CHECK-NEXT:       %r = task.rope %z, %f : (tensor<1x2x2x2xf32>, tensor<2xf32>)
// CHECK-NEXT:       task.store %r, @kc[layer, pos : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_q[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Gate and up become one family with the gated activation; they share the load of their input. The residual is loaded.
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
  task.family @linear_gate (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @linear_up (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @u[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @act (layer = 2) {
    %l = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %r = task.load @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %s = task.silu_mul %l, %r : tensor<1x8xf32>
    task.store %s, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @add (layer = 2) {
    %l = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %r = task.load @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %s = task.add %l, %r : tensor<1x8xf32>
    task.store %s, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @first[]
        task.for layer = 0 to 2 {
          task.call @linear_gate[layer]
          task.call @linear_up[layer]
          task.call @act[layer]
          task.call @add[layer]
        }
  }
}

// CHECK: task.family @first () {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_gate_up (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       %w_1 = task.stream @u[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y_1 = task.matmul %x, %w_1 : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       %s = task.silu_mul %y, %y_1 : tensor<1x8xf32>
// CHECK-NEXT:       %s_1 = task.add %x, %s : tensor<1x8xf32>
// CHECK-NEXT:       task.store %s_1, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @first[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_gate_up[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// A residual that is read before it is added to: the load stays where the consumer had it.
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
    task.store %s, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @first[]
        task.for layer = 0 to 2 {
          task.call @linear_o[layer]
          task.call @add[layer]
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
// CHECK-NEXT:       task.store %s, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @first[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_o[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Not fused: the value has a second reader.
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
    task.store %s, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @also (layer = 2) {
    %v = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %v, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @first[]
        task.for layer = 0 to 2 {
          task.call @linear_o[layer]
          task.call @add[layer]
          task.call @also[layer]
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
// CHECK-NEXT:       task.store %y, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @add (layer = 2) {
// CHECK-NEXT:       %l = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %r = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %s = task.add %l, %r : tensor<1x8xf32>
// CHECK-NEXT:       task.store %s, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @also (layer = 2) {
// CHECK-NEXT:       %v = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %v, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @first[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_o[layer]
// CHECK-NEXT:         task.call @add[layer]
// CHECK-NEXT:         task.call @also[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Not fused: the consumer reads the slot of another layer, and one reads a part.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xf32>
  task.buffer @x input : tensor<2x1x8xf32>
  task.buffer @a scratch : tensor<3x1x8xf32>
  task.buffer @b scratch : tensor<2x1x8xf32>
  task.buffer @c scratch : tensor<2x1x8xf32>
  task.buffer @d scratch : tensor<2x1x4xf32>
  task.family @linear (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @a[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @shift (layer = 2) {
    %v = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %v, @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @linear_2 (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @part (layer = 2) {
    %v = task.load @c[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %v, @d[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
          task.call @linear[layer]
          task.call @shift[layer]
          task.call @linear_2[layer]
          task.call @part[layer]
        }
  }
}

// CHECK: task.family @linear (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @a[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @shift (layer = 2) {
// CHECK-NEXT:       %v = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %v, @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_2 (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @part (layer = 2) {
// CHECK-NEXT:       %v = task.load @c[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
// CHECK-NEXT:       task.store %v, @d[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear[layer]
// CHECK-NEXT:         task.call @shift[layer]
// CHECK-NEXT:         task.call @linear_2[layer]
// CHECK-NEXT:         task.call @part[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Not fused: different domains.
task.program @p max_seq 8 tokens 1 {
  task.buffer @a scratch : tensor<2x1x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.buffer @o output : tensor<1x8xf32>
  task.family @make (layer = 2) {
    %v = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %v, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @use () {
    %v = task.load @a[1, 0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %v, @o[0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
          task.call @make[layer]
        }
        task.call @use[]
  }
}

// CHECK: task.family @make (layer = 2) {
// CHECK-NEXT:       %v = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %v, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @use () {
// CHECK-NEXT:       %v = task.load @a[1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %v, @o[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @make[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:       task.call @use[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Not fused: a call between overwrites what the producer reads, which would run later.
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
  task.family @overwrite (layer = 2) {
    %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %i, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @use (layer = 2) {
    %v = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %v, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @first[]
        task.for layer = 0 to 2 {
          task.call @linear_o[layer]
          task.call @overwrite[layer]
          task.call @use[layer]
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
// CHECK-NEXT:       task.store %y, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @overwrite (layer = 2) {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @use (layer = 2) {
// CHECK-NEXT:       %v = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %v, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @first[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_o[layer]
// CHECK-NEXT:         task.call @overwrite[layer]
// CHECK-NEXT:         task.call @use[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Not fused: the sum is written to what the matmul reads, so that its tiles would depend on each other.
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
    task.store %s, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @first[]
        task.for layer = 0 to 2 {
          task.call @linear_o[layer]
          task.call @add[layer]
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
// CHECK-NEXT:       task.store %y, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @add (layer = 2) {
// CHECK-NEXT:       %l = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %r = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %s = task.add %l, %r : tensor<1x8xf32>
// CHECK-NEXT:       task.store %s, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @first[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_o[layer]
// CHECK-NEXT:         task.call @add[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Fused with one of two matmuls only: they multiply different activations, of which a task holds one.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xf32>
  task.buffer @u weight from #amk.checkpoint<"l.{layer}.u"> : tensor<2x8x8xf32>
  task.buffer @x input : tensor<2x1x8xf32>
  task.buffer @z input : tensor<2x1x8xf32>
  task.buffer @a scratch : tensor<2x1x8xf32>
  task.buffer @b scratch : tensor<2x1x8xf32>
  task.buffer @c scratch : tensor<2x1x8xf32>
  task.family @linear_o (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @linear_down (layer = 2) {
    %x = task.load @z[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @u[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @add (layer = 2) {
    %l = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %r = task.load @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %s = task.add %l, %r : tensor<1x8xf32>
    task.store %s, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
          task.call @linear_o[layer]
          task.call @linear_down[layer]
          task.call @add[layer]
        }
  }
}

// CHECK: task.family @linear_o (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_down (layer = 2) {
// CHECK-NEXT:       %x = task.load @z[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @u[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       %l = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %s = task.add %l, %y : tensor<1x8xf32>
// CHECK-NEXT:       task.store %s, @c[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_o[layer]
// CHECK-NEXT:         task.call @linear_down[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Not fused: the value is an output of the program.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xf32>
  task.buffer @x input : tensor<2x1x8xf32>
  task.buffer @a output : tensor<2x1x8xf32>
  task.buffer @b scratch : tensor<2x1x8xf32>
  task.family @linear_o (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @use (layer = 2) {
    %v = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %v, @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
          task.call @linear_o[layer]
          task.call @use[layer]
        }
  }
}

// CHECK: task.family @linear_o (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @use (layer = 2) {
// CHECK-NEXT:       %v = task.load @a[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %v, @b[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_o[layer]
// CHECK-NEXT:         task.call @use[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
