// RUN: amk-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// A part of a group has no scale of its own.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x64x!amk.quantized<"int8:g64", columns = 64>>
  task.buffer @x input : tensor<1x64xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.family @f (tile = 2) {
    %x = task.load @x[0 : 1, 0 : 32] : tensor<1x32xf32>
    %w = task.stream @w[tile*8 : 8, 0 : 32] : tensor<8x32x!amk.quantized<"int8:g64", columns = 64>>
    %r = task.matmul %x, %w : (tensor<1x32xf32>, tensor<8x32x!amk.quantized<"int8:g64", columns = 64>>) -> tensor<1x8xf32>
    task.store %r, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
  }
}
// CHECK: a tile of a quantised weight has whole rows of 64 columns, or whole groups of them, found dimension 0 : 32 of 64 in @w[tile*8 : 8, 0 : 32]

// -----

// Nor has a row that is cut by a limit.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x64x!amk.quantized<"int8", columns = 64>>
  task.buffer @x input : tensor<1x64xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.family @f (tile = 2) {
    %w = task.stream @w[tile*8 : 8, tile*32 : 64 to 64] : tensor<8x64x!amk.quantized<"int8", columns = 64>>
    %x = task.load @x[0 : 1, 0 : 64] : tensor<1x64xf32>
    %r = task.matmul %x, %w : (tensor<1x64xf32>, tensor<8x64x!amk.quantized<"int8", columns = 64>>) -> tensor<1x8xf32>
    task.store %r, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
  }
}
// CHECK: a tile of a quantised weight has whole rows of 64 columns, or whole groups of them, found dimension tile*32 : 64 to 64 of 64

// -----

// A tile is of the buffer's format.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x64x!amk.quantized<"int8", columns = 64>>
  task.buffer @x input : tensor<1x64xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.family @f (tile = 2) {
    %x = task.load @x[0 : 1, tile*8 : 8] : tensor<1x8xf32>
    %w = task.stream @w[tile*8 : 8, 0 : 64] : tensor<8x64x!amk.quantized<"int8:g32", columns = 64>>
    task.store %x, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
  }
}
// CHECK: 'task.stream' accesses a tile of type tensor<8x64x!amk.quantized<"int8", columns = 64>>, found tensor<8x64x!amk.quantized<"int8:g32", columns = 64>>

// -----

// A product sums over rows.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x64x!amk.quantized<"int8", columns = 64>>
  task.buffer @x input : tensor<1x64xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.family @f (tile = 2) {
    %x = "test.op"() : () -> tensor<1x4x64xf32>
    %w = "test.op"() : () -> tensor<2x4x64x!amk.quantized<"int8", columns = 64>>
    %r = task.matmul %x, %w : (tensor<1x4x64xf32>, tensor<2x4x64x!amk.quantized<"int8", columns = 64>>) -> tensor<1x2xf32>
    task.store %r, @y[0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.order {
  }
}
// CHECK: the weight tile is quantised in rows of 64 columns, x has rows of 4x64

// -----

// Nothing else reads quantised weights.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x64x!amk.quantized<"int8", columns = 64>>
  task.buffer @x input : tensor<1x64xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.family @f () {
    %w = task.load @w[0 : 16, 0 : 64] : tensor<16x64x!amk.quantized<"int8", columns = 64>>
    %x = task.load @x[0 : 1, 0 : 16] : tensor<1x16xf32>
    task.store %x, @y[0 : 1, 0 : 16] : tensor<1x16xf32>
  }
  task.order {
  }
}
// CHECK: a quantised weight is streamed or gathered, 'task.load' loads @w

// -----

// Only weights are quantised.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x64x!amk.quantized<"int8", columns = 64>>
  task.buffer @x input : tensor<1x64xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.buffer @s scratch : tensor<16x64x!amk.quantized<"int8", columns = 64>>
  task.order {
  }
}
// CHECK: only weights of a checkpoint can be quantised, found scratch tensor<16x64x!amk.quantized<"int8", columns = 64>>

// -----

// The dimensions of a buffer make up whole rows.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x64x!amk.quantized<"int8", columns = 64>>
  task.buffer @x input : tensor<1x64xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.buffer @v weight from #amk.checkpoint<"v"> : tensor<16x60x!amk.quantized<"int8", columns = 64>>
  task.order {
  }
}
// CHECK: the trailing dimensions of 16x60 do not make up rows of 64 columns
