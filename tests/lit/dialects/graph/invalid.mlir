// RUN: amk-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// A model has positions.
graph.model @m max_seq 0 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: max_seq must be at least 1, found 0

// -----

// A model has one step.
graph.model @m max_seq 8 {
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4xf32>
}
// CHECK: a model has exactly one graph.step, found 0

// -----

// Nothing but declarations and the step stands in a model.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  "test.op"() : () -> ()
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: a model holds weights, caches and one step, found 'test.op'

// -----

// A weight of every layer needs the layer in its source.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w layers 2 from #amk.checkpoint<"w"> : tensor<4x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: checkpoint entry "w" must contain {layer} exactly if the weight has layers

// -----

// A weight without layers cannot name the layer.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"l.{layer}.w"> : tensor<4x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: must contain {layer} exactly if the weight has layers

// -----

// There is at least one layer.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w layers 0 from #amk.checkpoint<"l.{layer}.w"> : tensor<4x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: layers must be at least 1, found 0

// -----

// Weights are static.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<?x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: weight shape must be static and positive, found tensor<?x4xf32>

// -----

// Rope frequencies are half a head.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @f from #amk.rope_frequencies<head_dim = 8, theta = 1.0> : tensor<8xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: rope frequencies of head_dim 8 are tensor<4xf32>, without layers

// -----

// A cache has three dimensions.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.cache @c : tensor<8x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: a cache is [max_seq, kv_heads, head_dim], found tensor<8x4xf32>

// -----

// A cache holds all positions.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.cache @c : tensor<9x1x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: cache holds 9 positions, the model has max_seq 8

// -----

// A step takes token ids and the position.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: a step takes (tensor<Txi32>, index), found (tensor<1xi32>)

// -----

// A step has no more tokens than there are positions.
graph.model @m max_seq 2 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<3xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<3xi32>) -> tensor<3x4xf32>
    %logits = graph.linear %x, @embed : (tensor<3x4xf32>) -> tensor<3x5xf32>
    %next = graph.argmax %logits : tensor<3x5xf32> -> tensor<3xi32>
    graph.return %logits, %next : tensor<3x5xf32>, tensor<3xi32>
  }
}
// CHECK: a step takes at most max_seq = 2 tokens, found 3

// -----

// A step ends in its results.
graph.model @m max_seq 8 {
  graph.step (%token : tensor<1xi32>, %pos : index) {
    "test.termop"() : () -> ()
  }
}
// CHECK: a step ends in graph.return

// -----

// Layers end in the values for the next layer.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    graph.layers 2 (%h = %x) : tensor<1x4xf32> {
      "test.termop"() : () -> ()
    }
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: graph.layers ends in graph.yield

// -----

// What is carried keeps its type.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.cache @c : tensor<8x1x4xf32>
  graph.weight @w layers 2 from #amk.checkpoint<"l.{layer}.w"> : tensor<3x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.layers 2 (%h = %x) : tensor<1x4xf32> {
      %s = graph.linear %h, @w : (tensor<1x4xf32>) -> tensor<1x3xf32>
      graph.yield %s : tensor<1x3xf32>
    }
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: carried values, block arguments, yielded values and results must have equal types

// -----

// A loop of no layers.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.layers 0 (%h = %x) : tensor<1x4xf32> {
      graph.yield %h : tensor<1x4xf32>
    }
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: the number of layers must be at least 1, found 0

// -----

// A weight of every layer is used inside the layers only.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w layers 2 from #amk.checkpoint<"l.{layer}.w"> : tensor<4x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: 'graph.linear' uses @w declared with 2 layers inside no graph.layers

// -----

// The number of layers of a weight is that of the loop.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w layers 2 from #amk.checkpoint<"l.{layer}.w"> : tensor<4x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.layers 3 (%h = %x) : tensor<1x4xf32> {
      %s = graph.linear %h, @w : (tensor<1x4xf32>) -> tensor<1x4xf32>
      graph.yield %s : tensor<1x4xf32>
    }
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: 'graph.linear' uses @w declared with 2 layers inside graph.layers 3

// -----

// A weight that is not declared.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.linear %x, @missing : (tensor<1x4xf32>) -> tensor<1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: 'graph.linear' refers to @missing, expected a graph.weight of the model

// -----

// A cache is no weight.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.cache @c : tensor<8x1x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.linear %x, @c : (tensor<1x4xf32>) -> tensor<1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: 'graph.linear' refers to @c, expected a graph.weight, found graph.cache of the model

// -----

// Rows of a table have its width.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x5xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: table 5x4 and ids 1 do not give 1x5

// -----

// A weight maps its k dimensions to its n dimensions.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: weight @embed 5x4 does not take 1x4 to 1x4

// -----

// A bias has the shape of a row of the result.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @b from #amk.checkpoint<"b"> : tensor<4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.linear %x, @embed bias @b : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: bias @b is 4, expected 5

// -----

// A norm has one weight an element of the last dimension.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @g from #amk.checkpoint<"g"> : tensor<5xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.rms_norm %x, @g {eps = 1.0e-05 : f64} : tensor<1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: norm weight @g is 5, input is 1x4

// -----

// Rope needs as many frequencies as pairs.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x6x4xf32>
  graph.weight @f from #amk.rope_frequencies<head_dim = 4, theta = 1.0> : tensor<2xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x6xf32>
    %r = graph.rope %q, @f at %pos : tensor<1x2x6xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: rope rotates [T, heads, head_dim] with [head_dim / 2] frequencies, found 1x2x6 and 2

// -----

// What is appended fits the cache.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x4x4xf32>
  graph.cache @c : tensor<8x1x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
    %k = graph.cache_append %q, @c at %pos : (tensor<1x2x4xf32>) -> tensor<8x1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: rows 1x2x4 do not fit cache tensor<8x1x4xf32>

// -----

// An append gives the whole cache.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<1x4x4xf32>
  graph.cache @c : tensor<8x1x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x1x4xf32>
    %k = graph.cache_append %q, @c at %pos : (tensor<1x1x4xf32>) -> tensor<4x1x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: result tensor<4x1x4xf32> differs from cache tensor<8x1x4xf32>

// -----

// KV heads divide the heads.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<3x4x4xf32>
  graph.weight @wk from #amk.checkpoint<"wk"> : tensor<2x4x4xf32>
  graph.cache @c : tensor<8x2x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x3x4xf32>
    %k = graph.linear %x, @wk : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
    %c = graph.cache_append %k, @c at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
    %o = graph.attention %q, %c, %c at %pos {scale = 1.0 : f64} : (tensor<1x3x4xf32>, tensor<8x2x4xf32>, tensor<8x2x4xf32>) -> tensor<1x3x4xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: 3 heads are not divisible by 2 KV heads

// -----

// Queries and keys have one head dimension.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x6x4xf32>
  graph.weight @wk from #amk.checkpoint<"wk"> : tensor<2x4x4xf32>
  graph.cache @c : tensor<8x2x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x6xf32>
    %k = graph.linear %x, @wk : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
    %c = graph.cache_append %k, @c at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
    %o = graph.attention %q, %c, %c at %pos {scale = 1.0 : f64} : (tensor<1x2x6xf32>, tensor<8x2x4xf32>, tensor<8x2x4xf32>) -> tensor<1x2x6xf32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: attention takes q [T, heads, head_dim], found 1x2x6, and k 8x2x4

// -----

// Argmax is over rows of a matrix.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x4x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
    %a = graph.argmax %q : tensor<1x2x4xf32> -> tensor<1xi32>
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: argmax takes [T, vocab] to [T], found 1x2x4

// -----

// A norm that divides by the root of something positive.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %n = graph.rms_norm %x, @w {eps = 0.0 : f64} : tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: eps must be finite and positive, found 0.0

// -----

// A norm that divides by the root of something positive.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %n = graph.rms_norm %x, @w {eps = -1.0e-05 : f64} : tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: eps must be finite and positive, found -1e-05

// -----

// A norm that divides by the root of something positive.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %n = graph.rms_norm %x, @w {eps = 0x7ff0000000000000 : f64} : tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: eps must be finite and positive, found inf

// -----

// A norm that divides by the root of something positive.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %n = graph.rms_norm %x, @w {eps = 0x7ff8000000000000 : f64} : tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: eps must be finite and positive, found nan

// -----

// Scores that depend on queries and keys.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @q from #amk.checkpoint<"q"> : tensor<1x2x4xf32>
  graph.cache @k : tensor<8x1x2xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @q : (tensor<1x4xf32>) -> tensor<1x1x2xf32>
    %k = graph.cache_append %q, @k at %pos : (tensor<1x1x2xf32>) -> tensor<8x1x2xf32>
    %o = graph.attention %q, %k, %k at %pos {scale = 0.0 : f64} : (tensor<1x1x2xf32>, tensor<8x1x2xf32>, tensor<8x1x2xf32>) -> tensor<1x1x2xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: scale must be finite and not zero, found 0.0

// -----

// Scores that depend on queries and keys.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @q from #amk.checkpoint<"q"> : tensor<1x2x4xf32>
  graph.cache @k : tensor<8x1x2xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @q : (tensor<1x4xf32>) -> tensor<1x1x2xf32>
    %k = graph.cache_append %q, @k at %pos : (tensor<1x1x2xf32>) -> tensor<8x1x2xf32>
    %o = graph.attention %q, %k, %k at %pos {scale = 0xfff0000000000000 : f64} : (tensor<1x1x2xf32>, tensor<8x1x2xf32>, tensor<8x1x2xf32>) -> tensor<1x1x2xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: scale must be finite and not zero, found -inf

// -----

// Scores that depend on queries and keys.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @q from #amk.checkpoint<"q"> : tensor<1x2x4xf32>
  graph.cache @k : tensor<8x1x2xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %q = graph.linear %x, @q : (tensor<1x4xf32>) -> tensor<1x1x2xf32>
    %k = graph.cache_append %q, @k at %pos : (tensor<1x1x2xf32>) -> tensor<8x1x2xf32>
    %o = graph.attention %q, %k, %k at %pos {scale = 0x7ff8000000000000 : f64} : (tensor<1x1x2xf32>, tensor<8x1x2xf32>, tensor<8x1x2xf32>) -> tensor<1x1x2xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: scale must be finite and not zero, found nan

// -----

// Positions are counted in 32 bits.
graph.model @m max_seq 2147483648 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: max_seq must be at most 2147483647, found 2147483648

// -----

// Positions are counted in 32 bits.
graph.model @m max_seq 9223372036854775808 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: max_seq must be at most 2147483647, found 9223372036854775808

// -----

// Positions are counted in 32 bits.
graph.model @m max_seq 1180591620717411303424 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: max_seq must be at most 2147483647, found 1180591620717411303424

// -----

// Also in generic syntax.
"graph.model"() <{sym_name = "m", max_seq = 2147483648 : i64}> ({
  graph.weight @w from #amk.checkpoint<"w"> : tensor<4xf32>
}) : () -> ()
// CHECK: max_seq must be at most 2147483647, found 2147483648

// -----

// No model has so many layers.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w layers 10001 from #amk.checkpoint<"w{layer}"> : tensor<4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: layers must be at most 10000, found 10001

// -----

// Nor so many caches.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.cache @k layers 10001 : tensor<8x1x2xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: layers must be at most 10000, found 10001

// -----

// Nor a loop over as many.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.layers 9223372036854775808 (%h = %x) : tensor<1x4xf32> {
      graph.yield %h : tensor<1x4xf32>
    }

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: the number of layers must be at most 10000, found 9223372036854775808

// -----

// Also in generic syntax.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = "graph.layers"(%x) <{count = 10001 : i64}> ({
    ^bb0(%h : tensor<1x4xf32>):
      graph.yield %h : tensor<1x4xf32>
    }) : (tensor<1x4xf32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: the number of layers must be at most 10000, found 10001

// -----

// A dimension is counted in 32 bits.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2147483648xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: a dimension is at most 2147483647, found 2147483648

// -----

// A weight that no machine has.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w layers 2 from #amk.checkpoint<"w{layer}"> : tensor<1073741824x131072xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: a tensor has at most 281474976710655 elements in all layers together, found 281474976710656

// -----

// A cache that no machine has.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.cache @k : tensor<8x536870912x67108864xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>

    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
// CHECK: a tensor has at most 281474976710655 elements in all layers together, found 288230376151711744

// -----

// Tokens that no step takes.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<2147483648xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<2147483648xi32>) -> tensor<2147483648x4xf32>

    %logits = graph.linear %x, @embed : (tensor<2147483648x4xf32>) -> tensor<2147483648x5xf32>
    %next = graph.argmax %logits : tensor<2147483648x5xf32> -> tensor<2147483648xi32>
    graph.return %logits, %next : tensor<2147483648x5xf32>, tensor<2147483648xi32>
  }
}
// CHECK: a dimension is at most 2147483647, found 2147483648
