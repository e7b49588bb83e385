// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'quantize-weights{format="int5"}' --verify-diagnostics | filecheck %s --check-prefix=FORMAT
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'quantize-weights{head="fp8:zp"}' --verify-diagnostics | filecheck %s --check-prefix=ZEROS
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'quantize-weights{format="int8:g32"}' --verify-diagnostics | filecheck %s --check-prefix=GROUP
// RUN: amk-opt %s -p 'quantize-weights{head=int8}' --verify-diagnostics | filecheck %s

// FORMAT: quantize-weights: format: quantised format 'int5': expected int8, int4 or fp8
// ZEROS: quantize-weights: head: quantised format: fp8 has no zero points
// GROUP: quantize-weights: @q_proj: groups of 32 values do not fit rows of 24 columns; use smaller groups, or keep @q_proj

// A weight whose rows are not the same for all users cannot have scales for them.
graph.model @m max_seq 8 {
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x2x2xbf16>
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x2xbf16>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x2xf32>
    %a = graph.linear %x, @w : (tensor<1x2xf32>) -> tensor<1x2x2xf32>
    %b = graph.linear %a, @w : (tensor<1x2x2xf32>) -> tensor<1x2xf32>
    %logits = graph.linear %b, @embed : (tensor<1x2xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: quantize-weights: @w is used in rows of 2 and of 4 columns; declare it twice
