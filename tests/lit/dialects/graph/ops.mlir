// RUN: ROUNDTRIP
// RUN: GENERIC

// Every op of the dialect: a model of two layers with a bias, cached keys and values, and rope.
graph.model @tiny max_seq 16 {
  graph.weight @embed from #amk.checkpoint<"model.embed_tokens.weight"> : tensor<50x8xbf16>
  graph.weight @norm layers 2 from #amk.checkpoint<"model.layers.{layer}.input_layernorm.weight"> : tensor<8xf32>
  graph.weight @q_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.weight"> : tensor<2x4x8xbf16>
  graph.weight @q_bias layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.bias"> : tensor<2x4xf32>
  graph.weight @o_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.o_proj.weight"> : tensor<8x2x4xbf16>
  graph.weight @inv_freq from #amk.rope_frequencies<head_dim = 4, theta = 10000.0> : tensor<2xf32>
  graph.cache @k_cache layers 2 : tensor<16x2x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x8xf32>
    %y = graph.layers 2 (%h = %x) : tensor<1x8xf32> {
      %n = graph.rms_norm %h, @norm {eps = 1.000000e-05 : f64} : tensor<1x8xf32>
      %q = graph.linear %n, @q_proj bias @q_bias : (tensor<1x8xf32>) -> tensor<1x2x4xf32>
      %r = graph.rope %q, @inv_freq at %pos : tensor<1x2x4xf32>
      %k = graph.cache_append %r, @k_cache at %pos : (tensor<1x2x4xf32>) -> tensor<16x2x4xf32>
      %a = graph.attention %r, %k, %k at %pos {scale = 5.000000e-01 : f64} : (tensor<1x2x4xf32>, tensor<16x2x4xf32>, tensor<16x2x4xf32>) -> tensor<1x2x4xf32>
      %o = graph.linear %a, @o_proj : (tensor<1x2x4xf32>) -> tensor<1x8xf32>
      %m = graph.silu_mul %o, %n : tensor<1x8xf32>
      %s = graph.add %h, %m : tensor<1x8xf32>
      graph.yield %s : tensor<1x8xf32>
    }
    %l = graph.linear %y, @embed : (tensor<1x8xf32>) -> tensor<1x50xf32>
    %next = graph.argmax %l : tensor<1x50xf32> -> tensor<1xi32>
    graph.return %l, %next : tensor<1x50xf32>, tensor<1xi32>
  }
}

// CHECK: builtin.module {
// CHECK-NEXT:   graph.model @tiny max_seq 16 {
// CHECK-NEXT:     graph.weight @embed from #amk.checkpoint<"model.embed_tokens.weight"> : tensor<50x8xbf16>
// CHECK-NEXT:     graph.weight @norm layers 2 from #amk.checkpoint<"model.layers.{layer}.input_layernorm.weight"> : tensor<8xf32>
// CHECK-NEXT:     graph.weight @q_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.weight"> : tensor<2x4x8xbf16>
// CHECK-NEXT:     graph.weight @q_bias layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.bias"> : tensor<2x4xf32>
// CHECK-NEXT:     graph.weight @o_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.o_proj.weight"> : tensor<8x2x4xbf16>
// CHECK-NEXT:     graph.weight @inv_freq from #amk.rope_frequencies<head_dim = 4, theta = 10000.0> : tensor<2xf32>
// CHECK-NEXT:     graph.cache @k_cache layers 2 : tensor<16x2x4xf32>
// CHECK-NEXT:     graph.step (%token: tensor<1xi32>, %pos: index) {
// CHECK-NEXT:       %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x8xf32>
// CHECK-NEXT:       %y = graph.layers 2 (%h = %x) : tensor<1x8xf32> {
// CHECK-NEXT:         %n = graph.rms_norm %h, @norm {eps = 1.000000e-05 : f64} : tensor<1x8xf32>
// CHECK-NEXT:         %q = graph.linear %n, @q_proj bias @q_bias : (tensor<1x8xf32>) -> tensor<1x2x4xf32>
// CHECK-NEXT:         %r = graph.rope %q, @inv_freq at %pos : tensor<1x2x4xf32>
// CHECK-NEXT:         %k = graph.cache_append %r, @k_cache at %pos : (tensor<1x2x4xf32>) -> tensor<16x2x4xf32>
// CHECK-NEXT:         %a = graph.attention %r, %k, %k at %pos {scale = 5.000000e-01 : f64} : (tensor<1x2x4xf32>, tensor<16x2x4xf32>, tensor<16x2x4xf32>) -> tensor<1x2x4xf32>
// CHECK-NEXT:         %o = graph.linear %a, @o_proj : (tensor<1x2x4xf32>) -> tensor<1x8xf32>
// CHECK-NEXT:         %m = graph.silu_mul %o, %n : tensor<1x8xf32>
// CHECK-NEXT:         %s = graph.add %h, %m : tensor<1x8xf32>
// CHECK-NEXT:         graph.yield %s : tensor<1x8xf32>
// CHECK-NEXT:       }
// CHECK-NEXT:       %l = graph.linear %y, @embed : (tensor<1x8xf32>) -> tensor<1x50xf32>
// CHECK-NEXT:       %next = graph.argmax %l : tensor<1x50xf32> -> tensor<1xi32>
// CHECK-NEXT:       graph.return %l, %next : tensor<1x50xf32>, tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// The generic form of each op.
// CHECK-GENERIC: "graph.model"() <{sym_name = "tiny", max_seq = 16 : i64}> ({
// CHECK-GENERIC: "graph.weight"() <{sym_name = "embed", source = #amk.checkpoint<"model.embed_tokens.weight">, type = tensor<50x8xbf16>}> : () -> ()
// CHECK-GENERIC: "graph.cache"() <{sym_name = "k_cache", layers = 2 : i64, type = tensor<16x2x4xf32>}> : () -> ()
// CHECK-GENERIC: %x = "graph.embedding"(%token) <{table = @embed}> : (tensor<1xi32>) -> tensor<1x8xf32>
// CHECK-GENERIC: %y = "graph.layers"(%x) <{count = 2 : i64}> ({
// CHECK-GENERIC: %n = "graph.rms_norm"(%h) <{weight = @norm, eps = 1.000000e-05 : f64}> : (tensor<1x8xf32>) -> tensor<1x8xf32>
// CHECK-GENERIC: %q = "graph.linear"(%n) <{weight = @q_proj, bias = @q_bias}> : (tensor<1x8xf32>) -> tensor<1x2x4xf32>
// CHECK-GENERIC: %r = "graph.rope"(%q, %pos) <{frequencies = @inv_freq}> : (tensor<1x2x4xf32>, index) -> tensor<1x2x4xf32>
// CHECK-GENERIC: %k = "graph.cache_append"(%r, %pos) <{cache = @k_cache}> : (tensor<1x2x4xf32>, index) -> tensor<16x2x4xf32>
// CHECK-GENERIC: %a = "graph.attention"(%r, %k, %k, %pos) <{scale = 5.000000e-01 : f64}> : (tensor<1x2x4xf32>, tensor<16x2x4xf32>, tensor<16x2x4xf32>, index) -> tensor<1x2x4xf32>
// CHECK-GENERIC: %m = "graph.silu_mul"(%o, %n) : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
// CHECK-GENERIC: %s = "graph.add"(%h, %m) : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
// CHECK-GENERIC: "graph.yield"(%s) : (tensor<1x8xf32>) -> ()
// CHECK-GENERIC: %next = "graph.argmax"(%l) : (tensor<1x50xf32>) -> tensor<1xi32>
// CHECK-GENERIC: "graph.return"(%l, %next) : (tensor<1x50xf32>, tensor<1xi32>) -> ()

// -----

// Two tokens a step, a cache without layers, and layers that carry two values.
graph.model @two max_seq 8 attributes {origin = "hand"} {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.cache @c : tensor<8x1x4xf32>
  graph.step (%token : tensor<2xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<2xi32>) -> tensor<2x4xf32>
    %y, %z = graph.layers 3 (%a = %x, %b = %x) : tensor<2x4xf32>, tensor<2x4xf32> {
      graph.yield %b, %a : tensor<2x4xf32>, tensor<2x4xf32>
    }
    %s = graph.add %y, %z : tensor<2x4xf32>
    %l = graph.linear %s, @embed : (tensor<2x4xf32>) -> tensor<2x5xf32>
    %next = graph.argmax %l : tensor<2x5xf32> -> tensor<2xi32>
    graph.return %l, %next : tensor<2x5xf32>, tensor<2xi32>
  }
}

// CHECK: builtin.module {
// CHECK-NEXT:   graph.model @two max_seq 8  attributes {origin = "hand"} {
// CHECK-NEXT:     graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
// CHECK-NEXT:     graph.cache @c : tensor<8x1x4xf32>
// CHECK-NEXT:     graph.step (%token: tensor<2xi32>, %pos: index) {
// CHECK-NEXT:       %x = graph.embedding %token, @embed : (tensor<2xi32>) -> tensor<2x4xf32>
// CHECK-NEXT:       %y, %z = graph.layers 3 (%a = %x, %b = %x) : tensor<2x4xf32>, tensor<2x4xf32> {
// CHECK-NEXT:         graph.yield %b, %a : tensor<2x4xf32>, tensor<2x4xf32>
// CHECK-NEXT:       }
// CHECK-NEXT:       %s = graph.add %y, %z : tensor<2x4xf32>
// CHECK-NEXT:       %l = graph.linear %s, @embed : (tensor<2x4xf32>) -> tensor<2x5xf32>
// CHECK-NEXT:       %next = graph.argmax %l : tensor<2x5xf32> -> tensor<2xi32>
// CHECK-NEXT:       graph.return %l, %next : tensor<2x5xf32>, tensor<2xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
