// RUN: amk-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// The dimensions of a weight make up whole rows.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4x4x!amk.quantized<"int8", columns = 8>>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: the trailing dimensions of 4x4 do not make up rows of 8 columns

// -----

// A linear op sums over rows.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4x4x!amk.quantized<"int8", columns = 16>>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: weight @w is quantised in rows of 16 columns, it is used in rows of 4

// -----

// An embedding takes rows.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4x2x!amk.quantized<"int8", columns = 8>>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.embedding %token, @w : (tensor<1xi32>) -> tensor<1x2xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: weight @w is quantised in rows of 8 columns, it is used in rows of 2

// -----

// Norm weights stay floats.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4x!amk.quantized<"int8", columns = 4>>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.rms_norm %x, @w {eps = 1.0e-05 : f64} : tensor<1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: 'graph.rms_norm' takes a weight of floats, @w is tensor<4x!amk.quantized<"int8", columns = 4>>

// -----

// So do biases.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4x4xf32>
  graph.weight @b from #amk.checkpoint<"b"> : tensor<4x!amk.quantized<"int8", columns = 4>>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.linear %x, @w bias @b : (tensor<1x4xf32>) -> tensor<1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: 'graph.linear' takes a weight of floats, @b is tensor<4x!amk.quantized<"int8", columns = 4>>

// -----

// Frequencies are computed, not quantised.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @f from #amk.rope_frequencies<head_dim = 4, theta = 10000.0> : tensor<2x!amk.quantized<"int8", columns = 2>>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: rope frequencies of head_dim 4 are tensor<2xf32>, without layers

// -----

// Caches are not quantised.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.cache @c : tensor<8x2x4x!amk.quantized<"int8", columns = 4>>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: Unexpected attribute !amk.quantized<"int8", columns = 4>
