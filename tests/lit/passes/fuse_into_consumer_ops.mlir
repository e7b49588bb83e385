// RUN: amk-opt %s --split-input-file -p 'fuse-into-consumer{ops=add,silu_mul}' | filecheck %s
// RUN: amk-opt %s --split-input-file -p 'fuse-into-consumer{ops=add,silu_mul readers=matmul}' | filecheck %s
// RUN: amk-opt %s --split-input-file -p 'fuse-into-consumer{ops=add,silu_mul readers=add}' | filecheck %s --check-prefix=READERS

// Only the kinds of producers that are asked for: the gated activation is recomputed, the norm stays. It is not where only
// another kind of reader may.
// READERS:      task.family @act (layer = 2) {
// READERS:      task.family @linear_q (layer = 2) {
// READERS-NEXT:   task.load @k[layer, 0 : 1, 0 : 8]
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
  task.family @act (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %n = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %m = task.silu_mul %x, %n : tensor<1x8xf32>
    task.store %m, @k[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
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
          task.call @act[layer]
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
// CHECK-NEXT:     task.family @linear_q (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %n = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %m = task.silu_mul %x, %n : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %m, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
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

// A producer that streams weights is never recomputed.
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
  task.family @mix (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
    %s = task.add %x, %y : tensor<1x8xf32>
    task.store %s, @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
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
          task.call @mix[layer]
          task.call @linear_q[layer]
        }
  }
}

// CHECK: task.family @start () {
// CHECK-NEXT:       %i = task.load @in[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %i, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @mix (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, 0 : 8, 0 : 8] : tensor<8x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:       %s = task.add %x, %y : tensor<1x8xf32>
// CHECK-NEXT:       task.store %s, @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
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
// CHECK-NEXT:         task.call @mix[layer]
// CHECK-NEXT:         task.call @linear_q[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
