// RUN: amk-opt %s --split-input-file --verify-diagnostics -p convert-graph-to-task | filecheck %s

// A head dimension that cannot be stored as pairs.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x3x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x3xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: convert-graph-to-task: a head dimension is stored as 2 x half and must be even, found 2 heads of 3

// -----

// Two appends to one cache would be two states of it.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x4x4xf32>
  graph.cache @c : tensor<8x2x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
    %k = graph.cache_append %q, @c at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
    %l = graph.cache_append %q, @c at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: convert-graph-to-task: cache @c is appended to more than once

// -----

// Keys and values come from caches.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x4x4xf32>
  graph.cache @c : tensor<8x2x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
    %o = graph.attention %q, %q, %q at %pos {scale = 1.0 : f64} : (tensor<1x2x4xf32>, tensor<1x2x4xf32>, tensor<1x2x4xf32>) -> tensor<1x2x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: convert-graph-to-task: attention reads keys and values from graph.cache_append only

// -----

// A cache is not a value of this step.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x4x4xf32>
  graph.cache @c : tensor<8x2x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
    %k = graph.cache_append %q, @c at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
    %s = graph.add %k, %k : tensor<8x2x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: convert-graph-to-task: only attention reads a cache, found a use of 'k'

// -----

// Norms over heads have no tile op.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x4x4xf32>
  graph.cache @c : tensor<8x2x4xf32>
  graph.weight @g from #amk.checkpoint<"g"> : tensor<4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
    %n = graph.rms_norm %q, @g {eps = 1.0e-05 : f64} : tensor<1x2x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: convert-graph-to-task: rms_norm is supported over [T, width], found tensor<1x2x4xf32>

// -----

// One weight cannot be stored in two shapes: rows of heads here, columns of heads there.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x4x4xf32>
  graph.weight @v from #amk.checkpoint<"v"> : tensor<4x4x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @v : (tensor<1x4xf32>) -> tensor<1x4x4xf32>
    %y = graph.linear %q, @v : (tensor<1x4x4xf32>) -> tensor<1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: convert-graph-to-task: @v is used both as tensor<4x2x2x4xf32> and as tensor<4x4x2x2xf32>; declare it twice
