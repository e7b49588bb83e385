// RUN: ROUNDTRIP

// A quantised table that is both embedding and head, a weight a layer of several dimensions, a product over heads.
graph.model @tiny max_seq 16 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<50x8x!amk.quantized<"fp8", columns = 8>>
  graph.weight @q layers 2 from #amk.checkpoint<"{layer}.q"> : tensor<2x4x8x!amk.quantized<"int4:g4:zp", columns = 8>>
  graph.weight @o layers 2 from #amk.checkpoint<"{layer}.o"> : tensor<8x2x4x!amk.quantized<"int8:g4:f16", columns = 8>>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x8xf32>
    %y = graph.layers 2 (%h = %x) : tensor<1x8xf32> {
      %q = graph.linear %h, @q : (tensor<1x8xf32>) -> tensor<1x2x4xf32>
      %o = graph.linear %q, @o : (tensor<1x2x4xf32>) -> tensor<1x8xf32>
      graph.yield %o : tensor<1x8xf32>
    }
    %l = graph.linear %y, @embed : (tensor<1x8xf32>) -> tensor<1x50xf32>
    %next = graph.argmax %l : tensor<1x50xf32> -> tensor<1xi32>
    graph.return %l, %next : tensor<1x50xf32>, tensor<1xi32>
  }
}

// CHECK:      graph.weight @embed from #amk.checkpoint<"embed"> : tensor<50x8x!amk.quantized<"fp8", columns = 8>>
// CHECK-NEXT: graph.weight @q layers 2 from #amk.checkpoint<"{layer}.q"> : tensor<2x4x8x!amk.quantized<"int4:g4:zp", columns = 8>>
// CHECK-NEXT: graph.weight @o layers 2 from #amk.checkpoint<"{layer}.o"> : tensor<8x2x4x!amk.quantized<"int8:g4:f16", columns = 8>>
