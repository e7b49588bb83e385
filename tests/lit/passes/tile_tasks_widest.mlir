// RUN: amk-opt %s --split-input-file -p 'tile-tasks{sms=4}' | filecheck %s
// RUN: amk-opt %s --split-input-file -p 'tile-tasks{sms=4 widest=16}' | filecheck %s --check-prefix=SIXTEEN
// RUN: amk-opt %s --split-input-file -p 'tile-tasks' | filecheck %s --check-prefix=NARROW

// 96 rows on 4 SMs: 12 tasks of 8 rows, 3 an SM, become 4 tasks of 24. With 16 rows, one SM would have two of 6 tasks: 32.
// CHECK: task.family @linear (tile = 4) {
// CHECK: task.stream @w[tile*24 : 24, 0 : 8]
// SIXTEEN: task.family @linear (tile = 12) {
// NARROW: task.family @linear (tile = 12) {
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<96x8xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @y output : tensor<1x96xf32>
  task.family @linear () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 96, 0 : 8] : tensor<96x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<96x8xf32>) -> tensor<1x96xf32>
    task.store %y, @y[0 : 1, 0 : 96] : tensor<1x96xf32>
  }
  task.order {
    task.call @linear[]
  }
}

// -----

// Two streams: rows of both together. 2 x 64 rows on 4 SMs: 32 rows a task, 16 of each weight.
// CHECK: task.family @gate_up (tile = 4) {
// CHECK: task.stream @g[tile*16 : 16, 0 : 8]
// CHECK: task.stream @u[tile*16 : 16, 0 : 8]
// SIXTEEN: task.family @gate_up (tile = 8) {
// NARROW: task.family @gate_up (tile = 16) {
task.program @p max_seq 8 tokens 1 {
  task.buffer @g weight from #amk.checkpoint<"g"> : tensor<64x8xf32>
  task.buffer @u weight from #amk.checkpoint<"u"> : tensor<64x8xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @y output : tensor<1x64xf32>
  task.family @gate_up () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %g = task.stream @g[0 : 64, 0 : 8] : tensor<64x8xf32>
    %a = task.matmul %x, %g : (tensor<1x8xf32>, tensor<64x8xf32>) -> tensor<1x64xf32>
    %u = task.stream @u[0 : 64, 0 : 8] : tensor<64x8xf32>
    %b = task.matmul %x, %u : (tensor<1x8xf32>, tensor<64x8xf32>) -> tensor<1x64xf32>
    %y = task.silu_mul %a, %b : tensor<1x64xf32>
    task.store %y, @y[0 : 1, 0 : 64] : tensor<1x64xf32>
  }
  task.order {
    task.call @gate_up[]
  }
}

// -----

// Heads: 2 heads of 32 elements on 4 SMs, 8 tasks of 8 rows, become 4 of 16 rows; 32 rows would leave two SMs idle.
// CHECK: task.family @queries (head = 2, part = 2) {
// CHECK: task.stream @w[head, 0 : 2, part*8 : 8, 0 : 8]
// SIXTEEN: task.family @queries (head = 2, part = 2) {
// NARROW: task.family @queries (head = 2, part = 4) {
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<2x2x16x8xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @y output : tensor<1x2x2x16xf32>
  task.family @queries () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[0 : 2, 0 : 2, 0 : 16, 0 : 8] : tensor<2x2x16x8xf32>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x2x16x8xf32>) -> tensor<1x2x2x16xf32>
    task.store %y, @y[0 : 1, 0 : 2, 0 : 2, 0 : 16] : tensor<1x2x2x16xf32>
  }
  task.order {
    task.call @queries[]
  }
}
