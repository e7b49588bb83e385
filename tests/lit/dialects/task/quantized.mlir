// RUN: ROUNDTRIP

// Whole rows of a quantised weight are streamed, those of a product over heads too; rows or parts of rows are gathered.
task.program @p max_seq 8 tokens 1 {
  task.buffer @embed weight from #amk.checkpoint<"embed"> : tensor<50x64x!amk.quantized<"int8", columns = 64>>
  task.buffer @o weight from #amk.checkpoint<"{layer}.o"> : tensor<2x64x4x2x8x!amk.quantized<"int4:g32:zp:f16", columns = 64>>
  task.buffer @token input : tensor<1xi32>
  task.buffer @x scratch : tensor<1x4x2x8xf32>
  task.buffer @y output : tensor<1x64xf32>
  task.family @embedding (tile = 4) {
    %t = task.load @token[0 : 1] : tensor<1xi32>
    %e = task.gather %t, @embed[0 : 50, tile*16 : 16] : (tensor<1xi32>) -> tensor<1x16xf32>
    task.store %e, @y[0 : 1, tile*16 : 16] : tensor<1x16xf32>
  }
  task.family @linear (tile = 8) {
    %x = task.load @x[0 : 1, 0 : 4, 0 : 2, 0 : 8] : tensor<1x4x2x8xf32>
    %w = task.stream @o[1, tile*8 : 8, 0 : 4, 0 : 2, 0 : 8] : tensor<8x4x2x8x!amk.quantized<"int4:g32:zp:f16", columns = 64>>
    %r = task.matmul %x, %w : (tensor<1x4x2x8xf32>, tensor<8x4x2x8x!amk.quantized<"int4:g32:zp:f16", columns = 64>>) -> tensor<1x8xf32>
    task.store %r, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @embedding[]
    task.call @linear[]
  }
}

// CHECK:      task.buffer @embed weight from #amk.checkpoint<"embed"> : tensor<50x64x!amk.quantized<"int8", columns = 64>>
// CHECK-NEXT: task.buffer @o weight from #amk.checkpoint<"{layer}.o"> : tensor<2x64x4x2x8x!amk.quantized<"int4:g32:zp:f16", columns = 64>>
// CHECK:      %e = task.gather %t, @embed[0 : 50, tile*16 : 16] : (tensor<1xi32>) -> tensor<1x16xf32>
// CHECK:      %w = task.stream @o[1, tile*8 : 8, 0 : 4, 0 : 2, 0 : 8] : tensor<8x4x2x8x!amk.quantized<"int4:g32:zp:f16", columns = 64>>
// CHECK-NEXT: %r = task.matmul %x, %w : (tensor<1x4x2x8xf32>, tensor<8x4x2x8x!amk.quantized<"int4:g32:zp:f16", columns = 64>>) -> tensor<1x8xf32>
