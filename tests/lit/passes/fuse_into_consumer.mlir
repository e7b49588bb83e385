// RUN: amk-opt %s --split-input-file -p fuse-into-consumer | filecheck %s

// A norm is recomputed in both of its consumers, and gone. A consumer that loads the norm's input itself loads it once.
task.program @p max_seq 8 tokens 1 {
  task.buffer @g weight from #amk.checkpoint<"l.{layer}.g"> : tensor<2x8xf32>
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xf32>
  task.buffer @x scratch : tensor<3x1x8xf32>
  task.buffer @n scratch : tensor<2x1x8xf32>
  task.buffer @q scratch : tensor<2x1x8xf32>
  task.buffer @k scratch : tensor<2x1x8xf32>
  task.buffer @in input : tensor<1x8xf32>
  task.family @start () {
    %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @norm (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %n, @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @linear_q (layer = 2) {
    %a = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %a, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @q[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @read_k (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %a = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %a, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    %s = task.add %x, %y : tensor<1x8xf32>
    task.store %s, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @start[]
        task.for layer = 0 to 2 {
          task.call @norm[layer]
          task.call @linear_q[layer]
          task.call @read_k[layer]
        }
  }
}

// CHECK: task.family @start () {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_q (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %n, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @q[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @read_k (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %n, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       %s = task.add %x, %y : tensor<1x8xf32>
// CHECK-NEXT:       task.store %s, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @start[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_q[layer]
// CHECK-NEXT:         task.call @read_k[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Tiled consumers: every tile recomputes the norm. The producer is bound to the consumer's layer.
task.program @p max_seq 8 tokens 1 {
  task.buffer @g weight from #amk.checkpoint<"l.{layer}.g"> : tensor<2x8xf32>
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xf32>
  task.buffer @x scratch : tensor<3x1x8xf32>
  task.buffer @n scratch : tensor<2x1x8xf32>
  task.buffer @q scratch : tensor<2x1x8xf32>
  task.buffer @k scratch : tensor<2x1x8xf32>
  task.buffer @in input : tensor<1x8xf32>
  task.family @start () {
    %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @norm (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %n, @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @read_q (layer = 2, tile = 2) {
    %a = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, tile*4 : 4, 0 : 8] : tensor<4x8xf32>
    %y = task.matmul %a, %w : (tensor<1x8xf32>, tensor<4x8xf32>) -> tensor<1x4xf32>
    task.store %y, @q[layer, 0 : 1, tile*4 : 4] : tensor<1x4xf32>
  }
  task.order {
    task.call @start[]
        task.for layer = 0 to 2 {
          task.call @norm[layer]
          task.call @read_q[layer]
        }
  }
}

// CHECK: task.family @start () {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @read_q (layer = 2, tile = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       %w = task.stream @w[layer, tile*4 : 4, 0 : 8] : tensor<4x8xf32>
// CHECK-NEXT:       %y = task.matmul %n, %w : (tensor<1x8xf32>, tensor<4x8xf32>) -> tensor<1x4xf32>
// CHECK-NEXT:       task.store %y, @q[layer, 0 : 1, tile*4 : 4] : tensor<1x4xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @start[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @read_q[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// A consumer of a part cannot take the whole: the norm stays for it, and only for it.
task.program @p max_seq 8 tokens 1 {
  task.buffer @g weight from #amk.checkpoint<"l.{layer}.g"> : tensor<2x8xf32>
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xf32>
  task.buffer @x scratch : tensor<3x1x8xf32>
  task.buffer @n scratch : tensor<2x1x8xf32>
  task.buffer @q scratch : tensor<2x1x8xf32>
  task.buffer @k scratch : tensor<2x1x8xf32>
  task.buffer @in input : tensor<1x8xf32>
  task.family @start () {
    %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @norm (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %n, @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @linear_q (layer = 2) {
    %a = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %a, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @q[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @read_k (layer = 2) {
    %a = task.load @n[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %a, @k[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
    task.call @start[]
        task.for layer = 0 to 2 {
          task.call @norm[layer]
          task.call @linear_q[layer]
          task.call @read_k[layer]
        }
  }
}

// CHECK: task.family @start () {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @norm (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       task.store %n, @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_q (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %n, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @q[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @read_k (layer = 2) {
// CHECK-NEXT:       %a = task.load @n[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
// CHECK-NEXT:       task.store %a, @k[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @start[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @norm[layer]
// CHECK-NEXT:         task.call @linear_q[layer]
// CHECK-NEXT:         task.call @read_k[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// A norm of a norm: both go, the inner one into the outer one's consumer.
task.program @p max_seq 8 tokens 1 {
  task.buffer @g weight from #amk.checkpoint<"l.{layer}.g"> : tensor<2x8xf32>
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xf32>
  task.buffer @x scratch : tensor<3x1x8xf32>
  task.buffer @n scratch : tensor<2x1x8xf32>
  task.buffer @q scratch : tensor<2x1x8xf32>
  task.buffer @k scratch : tensor<2x1x8xf32>
  task.buffer @in input : tensor<1x8xf32>
  task.family @start () {
    %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @norm (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %n, @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @norm2 (layer = 2) {
    %x = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %n, @k[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @linear_q (layer = 2) {
    %a = task.load @k[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %a, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @q[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @start[]
        task.for layer = 0 to 2 {
          task.call @norm[layer]
          task.call @norm2[layer]
          task.call @linear_q[layer]
        }
  }
}

// CHECK: task.family @start () {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_q (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       %n_1 = task.rms_norm %n, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %n_1, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @q[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @start[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @linear_q[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Unsound: the input is overwritten before the consumer reads.
task.program @p max_seq 8 tokens 1 {
  task.buffer @g weight from #amk.checkpoint<"l.{layer}.g"> : tensor<2x8xf32>
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xf32>
  task.buffer @x scratch : tensor<3x1x8xf32>
  task.buffer @n scratch : tensor<2x1x8xf32>
  task.buffer @q scratch : tensor<2x1x8xf32>
  task.buffer @k scratch : tensor<2x1x8xf32>
  task.buffer @in input : tensor<1x8xf32>
  task.family @start () {
    %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @norm (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %n, @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @overwrite (layer = 2) {
    %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %i, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @linear_q (layer = 2) {
    %a = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %a, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @q[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @start[]
        task.for layer = 0 to 2 {
          task.call @norm[layer]
          task.call @overwrite[layer]
          task.call @linear_q[layer]
        }
  }
}

// CHECK: task.family @start () {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @norm (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       task.store %n, @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @overwrite (layer = 2) {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_q (layer = 2) {
// CHECK-NEXT:       %a = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %a, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @q[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @start[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @norm[layer]
// CHECK-NEXT:         task.call @overwrite[layer]
// CHECK-NEXT:         task.call @linear_q[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Unsound: the consumer reads the result of the layer before.
task.program @p max_seq 8 tokens 1 {
  task.buffer @g weight from #amk.checkpoint<"l.{layer}.g"> : tensor<2x8xf32>
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xf32>
  task.buffer @x scratch : tensor<3x1x8xf32>
  task.buffer @n scratch : tensor<3x1x8xf32>
  task.buffer @q scratch : tensor<2x1x8xf32>
  task.buffer @in input : tensor<1x8xf32>
  task.family @start () {
    %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @norm (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %n, @n[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @linear_q (layer = 2) {
    %a = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %a, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    task.store %y, @q[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @start[]
        task.for layer = 0 to 2 {
          task.call @norm[layer]
          task.call @linear_q[layer]
        }
  }
}

// CHECK: task.family @start () {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @norm (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       task.store %n, @n[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_q (layer = 2) {
// CHECK-NEXT:       %a = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %a, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @q[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @start[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @norm[layer]
// CHECK-NEXT:         task.call @linear_q[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Not fused: a norm in two tasks, and one whose result is an output of the program.
task.program @p max_seq 8 tokens 1 {
  task.buffer @g weight from #amk.checkpoint<"l.{layer}.g"> : tensor<2x8xf32>
  task.buffer @x scratch : tensor<2x2x8xf32>
  task.buffer @n scratch : tensor<2x2x8xf32>
  task.buffer @o output : tensor<2x1x8xf32>
  task.buffer @q scratch : tensor<2x2x8xf32>
  task.buffer @k scratch : tensor<2x1x8xf32>
  task.family @rows (layer = 2, row = 2) {
    %x = task.load @x[layer, row : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %n, @n[layer, row : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @read_q (layer = 2) {
    %a = task.load @n[layer, 0 : 2, 0 : 8] : tensor<2x8xf32>
    task.store %a, @q[layer, 0 : 2, 0 : 8] : tensor<2x8xf32>
  }
  task.family @out (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %n, @o[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @read_k (layer = 2) {
    %a = task.load @o[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %a, @k[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
          task.call @rows[layer]
          task.call @read_q[layer]
          task.call @out[layer]
          task.call @read_k[layer]
        }
  }
}

// CHECK: task.family @rows (layer = 2, row = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, row : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       task.store %n, @n[layer, row : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @read_q (layer = 2) {
// CHECK-NEXT:       %a = task.load @n[layer, 0 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:       task.store %a, @q[layer, 0 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @out (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %g = task.load @g[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %g {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       task.store %n, @o[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @read_k (layer = 2) {
// CHECK-NEXT:       %a = task.load @o[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %a, @k[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @rows[layer]
// CHECK-NEXT:         task.call @read_q[layer]
// CHECK-NEXT:         task.call @out[layer]
// CHECK-NEXT:         task.call @read_k[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
