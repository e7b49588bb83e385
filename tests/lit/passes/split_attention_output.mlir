// RUN: amk-opt %s --split-input-file -p 'split-attention-output{tasks=8}' | filecheck %s
// RUN: amk-opt %s --split-input-file -p 'split-attention-output{tasks=8},fuse-into-consumer{ops=add,sum_parts}' | filecheck %s --check-prefix=SUMS
// RUN: amk-opt %s --split-input-file -p 'split-attention-output{tasks=8},tile-tasks,fuse-into-consumer{ops=attention}' | filecheck %s --check-prefix=FUSED
// RUN: amk-opt %s --split-input-file -p 'split-attention-output{tasks=2}' | filecheck %s --check-prefix=WIDE
// RUN: amk-opt %s --split-input-file -p 'split-attention-output{tasks=2 rows=8}' | filecheck %s --check-prefix=WHOLE

// Two KV heads with two heads each, 20 rows: with 8 tasks, 4 for a KV head, tiles of 8 rows, the last one cut.
task.program @layers max_seq 64 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.o"> : tensor<2x20x4x2x4xbf16>
  task.buffer @q input : tensor<1x4x2x4xf32>
  task.buffer @new input : tensor<1x2x2x4xf32>
  task.buffer @k state : tensor<2x64x2x2x4xbf16>
  task.buffer @v state : tensor<2x64x2x2x4xbf16>
  task.buffer @x input : tensor<1x20xf32>
  task.buffer @a scratch : tensor<2x1x4x2x4xf32>
  task.buffer @h scratch : tensor<2x1x20xf32>
  task.buffer @y output : tensor<2x1x20xf32>
  task.family @attention (layer = 2) {
    %q = task.load @q[0 : 1, 0 : 4, 0 : 2, 0 : 4] : tensor<1x4x2x4xf32>
    %k = task.stream @k[layer, 0 : pos, 0 : 2, 0 : 2, 0 : 4] : tensor<?x2x2x4xbf16>
    %v = task.stream @v[layer, 0 : pos, 0 : 2, 0 : 2, 0 : 4] : tensor<?x2x2x4xbf16>
    %n = task.load @new[0 : 1, 0 : 2, 0 : 2, 0 : 4] : tensor<1x2x2x4xf32>
    %a = task.attention %q, %k, %v, %n, %n {scale = 0.5 : f64} : (tensor<1x4x2x4xf32>, tensor<?x2x2x4xbf16>, tensor<1x2x2x4xf32>)
    task.store %a, @a[layer, 0 : 1, 0 : 4, 0 : 2, 0 : 4] : tensor<1x4x2x4xf32>
  }
  task.family @linear_o (layer = 2) {
    %a = task.load @a[layer, 0 : 1, 0 : 4, 0 : 2, 0 : 4] : tensor<1x4x2x4xf32>
    %w = task.stream @w[layer, 0 : 20, 0 : 4, 0 : 2, 0 : 4] : tensor<20x4x2x4xbf16>
    %o = task.matmul %a, %w : (tensor<1x4x2x4xf32>, tensor<20x4x2x4xbf16>) -> tensor<1x20xf32>
    %x = task.load @x[0 : 1, 0 : 20] : tensor<1x20xf32>
    %h = task.add %x, %o : tensor<1x20xf32>
    task.store %h, @h[layer, 0 : 1, 0 : 20] : tensor<1x20xf32>
  }
  task.family @copy (layer = 2) {
    %h = task.load @h[layer, 0 : 1, 0 : 20] : tensor<1x20xf32>
    task.store %h, @y[layer, 0 : 1, 0 : 20] : tensor<1x20xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
      task.call @attention[layer]
      task.call @linear_o[layer]
      task.call @copy[layer]
    }
  }
}

// CHECK:      task.buffer @y output : tensor<2x1x20xf32>
// CHECK-NEXT: task.buffer @o_parts scratch : tensor<2x1x2x20xf32>
// CHECK-NEXT: task.family @attention (layer = 2) {
// CHECK:      task.family @linear_o (layer = 2, kv_head = 2, tile = 3) {
// CHECK-NEXT:   %a = task.load @a[layer, 0 : 1, kv_head*2 : 2, 0 : 2, 0 : 4] : tensor<1x2x2x4xf32>
// CHECK-NEXT:   %w = task.stream @w[layer, tile*8 : 8 to 20, kv_head*2 : 2, 0 : 2, 0 : 4] : tensor<8x2x2x4xbf16>
// CHECK-NEXT:   %o = task.matmul %a, %w : (tensor<1x2x2x4xf32>, tensor<8x2x2x4xbf16>) -> tensor<1x8xf32>
// CHECK-NEXT:   task.store %o, @o_parts[layer, 0 : 1, kv_head, tile*8 : 8 to 20] : tensor<1x8xf32>
// CHECK-NEXT: }
// CHECK-NEXT: task.family @linear_o_sum (layer = 2) {
// CHECK-NEXT:   %o_parts = task.load @o_parts[layer, 0 : 1, 0 : 2, 0 : 20] : tensor<1x2x20xf32>
// CHECK-NEXT:   %o = task.sum_parts %o_parts : tensor<1x2x20xf32> -> tensor<1x20xf32>
// CHECK-NEXT:   %x = task.load @x[0 : 1, 0 : 20] : tensor<1x20xf32>
// CHECK-NEXT:   %h = task.add %x, %o : tensor<1x20xf32>
// CHECK-NEXT:   task.store %h, @h[layer, 0 : 1, 0 : 20] : tensor<1x20xf32>
// CHECK-NEXT: }
// CHECK:      task.for layer = 0 to 2 {
// CHECK-NEXT:   task.call @attention[layer]
// CHECK-NEXT:   task.call @linear_o[layer]
// CHECK-NEXT:   task.call @linear_o_sum[layer]
// CHECK-NEXT:   task.call @copy[layer]

// The reader sums.
// SUMS-NOT:  @h
// SUMS:      task.family @copy (layer = 2) {
// SUMS-NEXT:   %o_parts = task.load @o_parts[layer, 0 : 1, 0 : 2, 0 : 20] : tensor<1x2x20xf32>
// SUMS-NEXT:   %o = task.sum_parts %o_parts : tensor<1x2x20xf32> -> tensor<1x20xf32>
// SUMS-NEXT:   %x = task.load @x[0 : 1, 0 : 20] : tensor<1x20xf32>
// SUMS-NEXT:   %h = task.add %x, %o : tensor<1x20xf32>
// SUMS-NEXT:   task.store %h, @y[layer, 0 : 1, 0 : 20] : tensor<1x20xf32>
// SUMS:      task.for layer = 0 to 2 {
// SUMS-NEXT:   task.call @attention[layer]
// SUMS-NEXT:   task.call @linear_o[layer]
// SUMS-NEXT:   task.call @copy[layer]

// A task attends for its own KV head, whose earlier rows it streams before its weights.
// FUSED-NOT:  task.family @attention
// FUSED:      task.family @linear_o (layer = 2, kv_head = 2, tile = 3) {
// FUSED-NEXT:   %q = task.load @q[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 4] : tensor<1x2x2x4xf32>
// FUSED-NEXT:   %k = task.stream @k[layer, 0 : pos, kv_head : 1, 0 : 2, 0 : 4] : tensor<?x1x2x4xbf16>
// FUSED-NEXT:   %v = task.stream @v[layer, 0 : pos, kv_head : 1, 0 : 2, 0 : 4] : tensor<?x1x2x4xbf16>
// FUSED-NEXT:   %n = task.load @new[0 : 1, kv_head : 1, 0 : 2, 0 : 4] : tensor<1x1x2x4xf32>
// FUSED-NEXT:   %a = task.attention %q, %k, %v, %n, %n {scale = 5.000000e-01 : f64} : (tensor<1x2x2x4xf32>, tensor<?x1x2x4xbf16>, tensor<1x1x2x4xf32>)
// FUSED-NEXT:   %w = task.stream @w[layer, tile*8 : 8 to 20, kv_head*2 : 2, 0 : 2, 0 : 4] : tensor<8x2x2x4xbf16>
// FUSED-NEXT:   %o = task.matmul %a, %w : (tensor<1x2x2x4xf32>, tensor<8x2x2x4xbf16>) -> tensor<1x8xf32>
// FUSED-NEXT:   task.store %o, @o_parts[layer, 0 : 1, kv_head, tile*8 : 8 to 20] : tensor<1x8xf32>
// FUSED-NEXT: }

// One task for a KV head: all rows, in whole groups of eight.
// WIDE: task.family @linear_o (layer = 2, kv_head = 2, tile = 1) {
// WIDE: %w = task.stream @w[layer, tile*24 : 24 to 20, kv_head*2 : 2, 0 : 2, 0 : 4] : tensor<24x2x2x4xbf16>

// Not if a task would have more than 8 rows.
// WHOLE-NOT: sum_parts
// WHOLE:     task.family @linear_o (layer = 2) {
// WHOLE-NOT: sum_parts

// -----

// Only after an attention.
task.program @other max_seq 64 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"o"> : tensor<20x4x2x4xbf16>
  task.buffer @q input : tensor<1x4x2x4xf32>
  task.buffer @a scratch : tensor<1x4x2x4xf32>
  task.buffer @y output : tensor<1x20xf32>
  task.family @copy () {
    %q = task.load @q[0 : 1, 0 : 4, 0 : 2, 0 : 4] : tensor<1x4x2x4xf32>
    task.store %q, @a[0 : 1, 0 : 4, 0 : 2, 0 : 4] : tensor<1x4x2x4xf32>
  }
  task.family @linear_o () {
    %a = task.load @a[0 : 1, 0 : 4, 0 : 2, 0 : 4] : tensor<1x4x2x4xf32>
    %w = task.stream @w[0 : 20, 0 : 4, 0 : 2, 0 : 4] : tensor<20x4x2x4xbf16>
    %o = task.matmul %a, %w : (tensor<1x4x2x4xf32>, tensor<20x4x2x4xbf16>) -> tensor<1x20xf32>
    task.store %o, @y[0 : 1, 0 : 20] : tensor<1x20xf32>
  }
  task.order {
    task.call @copy[]
    task.call @linear_o[]
  }
}

// CHECK-LABEL: task.program @other
// CHECK-NOT:   sum_parts
