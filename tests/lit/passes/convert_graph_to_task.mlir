// RUN: amk-opt %s --split-input-file -p convert-graph-to-task | filecheck %s

// Every op of a model with two layers: embedding, norm, linear, rope, append, attention, residual, gated activation,
// argmax. The embedding is also the head: one buffer. Head dimensions become 2 x half. The carried value has a slot more
// than there are layers.
graph.model @tiny max_seq 16 {
  graph.weight @embed from #amk.checkpoint<"model.embed_tokens.weight"> : tensor<50x8xbf16>
  graph.weight @attn_norm layers 2 from #amk.checkpoint<"model.layers.{layer}.input_layernorm.weight"> : tensor<8xf32>
  graph.weight @q_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.weight"> : tensor<2x4x8xbf16>
  graph.weight @o_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.o_proj.weight"> : tensor<8x2x4xbf16>
  graph.weight @unused layers 2 from #amk.checkpoint<"model.layers.{layer}.unused"> : tensor<8xf32>
  graph.weight @inv_freq from #amk.rope_frequencies<head_dim = 4, theta = 10000.0> : tensor<2xf32>
  graph.cache @k_cache layers 2 : tensor<16x2x4xbf16>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x8xf32>
    %hidden = graph.layers 2 (%h = %x) : tensor<1x8xf32> {
      %n = graph.rms_norm %h, @attn_norm {eps = 1.0e-05 : f64} : tensor<1x8xf32>
      %q = graph.linear %n, @q_proj : (tensor<1x8xf32>) -> tensor<1x2x4xf32>
      %r = graph.rope %q, @inv_freq at %pos : tensor<1x2x4xf32>
      %k = graph.cache_append %r, @k_cache at %pos : (tensor<1x2x4xf32>) -> tensor<16x2x4xbf16>
      %mixed = graph.attention %r, %k, %k at %pos {scale = 0.5 : f64} : (tensor<1x2x4xf32>, tensor<16x2x4xbf16>, tensor<16x2x4xbf16>) -> tensor<1x2x4xf32>
      %0 = graph.linear %mixed, @o_proj : (tensor<1x2x4xf32>) -> tensor<1x8xf32>
      %act = graph.silu_mul %0, %n : tensor<1x8xf32>
      %out = graph.add %h, %act : tensor<1x8xf32>
      graph.yield %out : tensor<1x8xf32>
    }
    %logits = graph.linear %hidden, @embed : (tensor<1x8xf32>) -> tensor<1x50xf32>
    %next = graph.argmax %logits : tensor<1x50xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x50xf32>, tensor<1xi32>
  }
}

// CHECK: builtin.module {
// CHECK-NEXT:   task.program @tiny max_seq 16 tokens 1 {
// CHECK-NEXT:     task.buffer @embed weight from #amk.checkpoint<"model.embed_tokens.weight"> : tensor<50x8xbf16>
// CHECK-NEXT:     task.buffer @attn_norm weight from #amk.checkpoint<"model.layers.{layer}.input_layernorm.weight"> : tensor<2x8xf32>
// CHECK-NEXT:     task.buffer @q_proj weight from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.weight"> : tensor<2x2x2x2x8xbf16>
// CHECK-NEXT:     task.buffer @o_proj weight from #amk.checkpoint<"model.layers.{layer}.self_attn.o_proj.weight"> : tensor<2x8x2x2x2xbf16>
// CHECK-NEXT:     task.buffer @inv_freq weight from #amk.rope_frequencies<head_dim = 4, theta = 10000.0> : tensor<2xf32>
// CHECK-NEXT:     task.buffer @k_cache state : tensor<2x16x2x2x2xbf16>
// CHECK-NEXT:     task.buffer @token input : tensor<1xi32>
// CHECK-NEXT:     task.buffer @x scratch : tensor<3x1x8xf32>
// CHECK-NEXT:     task.buffer @logits output : tensor<1x50xf32>
// CHECK-NEXT:     task.buffer @next_token output : tensor<1xi32>
// CHECK-NEXT:     task.buffer @n scratch : tensor<2x1x8xf32>
// CHECK-NEXT:     task.buffer @q scratch : tensor<2x1x2x2x2xf32>
// CHECK-NEXT:     task.buffer @r scratch : tensor<2x1x2x2x2xf32>
// CHECK-NEXT:     task.buffer @mixed scratch : tensor<2x1x2x2x2xf32>
// CHECK-NEXT:     task.buffer @o_proj_out scratch : tensor<2x1x8xf32>
// CHECK-NEXT:     task.buffer @act scratch : tensor<2x1x8xf32>
// CHECK-NEXT:     task.family @embedding_x () {
// CHECK-NEXT:       %token = task.load @token[0 : 1] : tensor<1xi32>
// CHECK-NEXT:       %x = task.gather %token, @embed[0 : 50, 0 : 8] : (tensor<1xi32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %x, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @rms_norm_n (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %attn_norm = task.load @attn_norm[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %attn_norm {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       task.store %n, @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_q (layer = 2) {
// CHECK-NEXT:       %n = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %q_proj = task.stream @q_proj[layer, 0 : 2, 0 : 2, 0 : 2, 0 : 8] : tensor<2x2x2x8xbf16>
// CHECK-NEXT:       %q = task.matmul %n, %q_proj : (tensor<1x8xf32>, tensor<2x2x2x8xbf16>) -> tensor<1x2x2x2xf32>
// CHECK-NEXT:       task.store %q, @q[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @rope_r (layer = 2) {
// CHECK-NEXT:       %q = task.load @q[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:       %inv_freq = task.load @inv_freq[0 : 2] : tensor<2xf32>
// CHECK-NEXT:       %r = task.rope %q, %inv_freq : (tensor<1x2x2x2xf32>, tensor<2xf32>)
// CHECK-NEXT:       task.store %r, @r[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @append_k_cache (layer = 2) {
// CHECK-NEXT:       %r = task.load @r[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:       task.store %r, @k_cache[layer, pos : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @attention_mixed (layer = 2) {
// CHECK-NEXT:       %r = task.load @r[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:       %k_cache = task.stream @k_cache[layer, 0 : pos, 0 : 2, 0 : 2, 0 : 2] : tensor<?x2x2x2xbf16>
// CHECK-NEXT:       %k_cache_1 = task.stream @k_cache[layer, 0 : pos, 0 : 2, 0 : 2, 0 : 2] : tensor<?x2x2x2xbf16>
// CHECK-NEXT:       %r_1 = task.load @r[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:       %r_2 = task.load @r[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:       %mixed = task.attention %r, %k_cache, %k_cache_1, %r_1, %r_2 {scale = 5.000000e-01 : f64} : (tensor<1x2x2x2xf32>, tensor<?x2x2x2xbf16>, tensor<1x2x2x2xf32>)
// CHECK-NEXT:       task.store %mixed, @mixed[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_o (layer = 2) {
// CHECK-NEXT:       %mixed = task.load @mixed[layer, 0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
// CHECK-NEXT:       %o_proj = task.stream @o_proj[layer, 0 : 8, 0 : 2, 0 : 2, 0 : 2] : tensor<8x2x2x2xbf16>
// CHECK-NEXT:       %0 = task.matmul %mixed, %o_proj : (tensor<1x2x2x2xf32>, tensor<8x2x2x2xbf16>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %0, @o_proj_out[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @silu_mul_act (layer = 2) {
// CHECK-NEXT:       %o_proj_out = task.load @o_proj_out[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %n = task.load @n[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %act = task.silu_mul %o_proj_out, %n : tensor<1x8xf32>
// CHECK-NEXT:       task.store %act, @act[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @add_out (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %act = task.load @act[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %out = task.add %x, %act : tensor<1x8xf32>
// CHECK-NEXT:       task.store %out, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_logits () {
// CHECK-NEXT:       %x = task.load @x[2, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %embed = task.stream @embed[0 : 50, 0 : 8] : tensor<50x8xbf16>
// CHECK-NEXT:       %logits = task.matmul %x, %embed : (tensor<1x8xf32>, tensor<50x8xbf16>) -> tensor<1x50xf32>
// CHECK-NEXT:       task.store %logits, @logits[0 : 1, 0 : 50] : tensor<1x50xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @argmax_next () {
// CHECK-NEXT:       %logits = task.load @logits[0 : 1, 0 : 50] : tensor<1x50xf32>
// CHECK-NEXT:       %next = task.argmax %logits : tensor<1x50xf32> -> tensor<1xi32>
// CHECK-NEXT:       task.store %next, @next_token[0 : 1] : tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @embedding_x[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @rms_norm_n[layer]
// CHECK-NEXT:         task.call @linear_q[layer]
// CHECK-NEXT:         task.call @rope_r[layer]
// CHECK-NEXT:         task.call @append_k_cache[layer]
// CHECK-NEXT:         task.call @attention_mixed[layer]
// CHECK-NEXT:         task.call @linear_o[layer]
// CHECK-NEXT:         task.call @silu_mul_act[layer]
// CHECK-NEXT:         task.call @add_out[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:       task.call @linear_logits[]
// CHECK-NEXT:       task.call @argmax_next[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// A bias becomes a family of its own. Two tokens a step; a cache and weights without layers.
graph.model @bias max_seq 16 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<50x8xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x4x8xf32>
  graph.weight @b from #amk.checkpoint<"b"> : tensor<2x4xf32>
  graph.weight @o from #amk.checkpoint<"o"> : tensor<8x2x4xf32>
  graph.cache @c : tensor<16x2x4xf32>
  graph.step (%token : tensor<2xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<2xi32>) -> tensor<2x8xf32>
    %q = graph.linear %x, @w bias @b : (tensor<2x8xf32>) -> tensor<2x2x4xf32>
    %k = graph.cache_append %q, @c at %pos : (tensor<2x2x4xf32>) -> tensor<16x2x4xf32>
    %a = graph.attention %q, %k, %k at %pos {scale = 0.5 : f64} : (tensor<2x2x4xf32>, tensor<16x2x4xf32>, tensor<16x2x4xf32>) -> tensor<2x2x4xf32>
    %y = graph.linear %a, @o : (tensor<2x2x4xf32>) -> tensor<2x8xf32>
    %logits = graph.linear %y, @embed : (tensor<2x8xf32>) -> tensor<2x50xf32>
    %next = graph.argmax %logits : tensor<2x50xf32> -> tensor<2xi32>
    graph.return %logits, %next : tensor<2x50xf32>, tensor<2xi32>
  }
}

// CHECK: builtin.module {
// CHECK-NEXT:   task.program @bias max_seq 16 tokens 2 {
// CHECK-NEXT:     task.buffer @embed weight from #amk.checkpoint<"embed"> : tensor<50x8xf32>
// CHECK-NEXT:     task.buffer @w weight from #amk.checkpoint<"w"> : tensor<2x2x2x8xf32>
// CHECK-NEXT:     task.buffer @b weight from #amk.checkpoint<"b"> : tensor<2x2x2xf32>
// CHECK-NEXT:     task.buffer @o weight from #amk.checkpoint<"o"> : tensor<8x2x2x2xf32>
// CHECK-NEXT:     task.buffer @c state : tensor<16x2x2x2xf32>
// CHECK-NEXT:     task.buffer @token input : tensor<2xi32>
// CHECK-NEXT:     task.buffer @logits output : tensor<2x50xf32>
// CHECK-NEXT:     task.buffer @next_token output : tensor<2xi32>
// CHECK-NEXT:     task.buffer @x scratch : tensor<2x8xf32>
// CHECK-NEXT:     task.buffer @q_unbiased scratch : tensor<2x2x2x2xf32>
// CHECK-NEXT:     task.buffer @q scratch : tensor<2x2x2x2xf32>
// CHECK-NEXT:     task.buffer @a scratch : tensor<2x2x2x2xf32>
// CHECK-NEXT:     task.buffer @y scratch : tensor<2x8xf32>
// CHECK-NEXT:     task.family @embedding_x () {
// CHECK-NEXT:       %token = task.load @token[0 : 2] : tensor<2xi32>
// CHECK-NEXT:       %x = task.gather %token, @embed[0 : 50, 0 : 8] : (tensor<2xi32>) -> tensor<2x8xf32>
// CHECK-NEXT:       task.store %x, @x[0 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_q () {
// CHECK-NEXT:       %x = task.load @x[0 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:       %w = task.stream @w[0 : 2, 0 : 2, 0 : 2, 0 : 8] : tensor<2x2x2x8xf32>
// CHECK-NEXT:       %q = task.matmul %x, %w : (tensor<2x8xf32>, tensor<2x2x2x8xf32>) -> tensor<2x2x2x2xf32>
// CHECK-NEXT:       task.store %q, @q_unbiased[0 : 2, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @bias_add_q () {
// CHECK-NEXT:       %q_unbiased = task.load @q_unbiased[0 : 2, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2x2xf32>
// CHECK-NEXT:       %b = task.load @b[0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2xf32>
// CHECK-NEXT:       %q = task.bias_add %q_unbiased, %b : (tensor<2x2x2x2xf32>, tensor<2x2x2xf32>)
// CHECK-NEXT:       task.store %q, @q[0 : 2, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @append_c () {
// CHECK-NEXT:       %q = task.load @q[0 : 2, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2x2xf32>
// CHECK-NEXT:       task.store %q, @c[pos : 2, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @attention_a () {
// CHECK-NEXT:       %q = task.load @q[0 : 2, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2x2xf32>
// CHECK-NEXT:       %c = task.stream @c[0 : pos, 0 : 2, 0 : 2, 0 : 2] : tensor<?x2x2x2xf32>
// CHECK-NEXT:       %c_1 = task.stream @c[0 : pos, 0 : 2, 0 : 2, 0 : 2] : tensor<?x2x2x2xf32>
// CHECK-NEXT:       %q_1 = task.load @q[0 : 2, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2x2xf32>
// CHECK-NEXT:       %q_2 = task.load @q[0 : 2, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2x2xf32>
// CHECK-NEXT:       %a = task.attention %q, %c, %c_1, %q_1, %q_2 {scale = 5.000000e-01 : f64} : (tensor<2x2x2x2xf32>, tensor<?x2x2x2xf32>, tensor<2x2x2x2xf32>)
// CHECK-NEXT:       task.store %a, @a[0 : 2, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_y () {
// CHECK-NEXT:       %a = task.load @a[0 : 2, 0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2x2xf32>
// CHECK-NEXT:       %o = task.stream @o[0 : 8, 0 : 2, 0 : 2, 0 : 2] : tensor<8x2x2x2xf32>
// CHECK-NEXT:       %y = task.matmul %a, %o : (tensor<2x2x2x2xf32>, tensor<8x2x2x2xf32>) -> tensor<2x8xf32>
// CHECK-NEXT:       task.store %y, @y[0 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_logits () {
// CHECK-NEXT:       %y = task.load @y[0 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:       %embed = task.stream @embed[0 : 50, 0 : 8] : tensor<50x8xf32>
// CHECK-NEXT:       %logits = task.matmul %y, %embed : (tensor<2x8xf32>, tensor<50x8xf32>) -> tensor<2x50xf32>
// CHECK-NEXT:       task.store %logits, @logits[0 : 2, 0 : 50] : tensor<2x50xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @argmax_next () {
// CHECK-NEXT:       %logits = task.load @logits[0 : 2, 0 : 50] : tensor<2x50xf32>
// CHECK-NEXT:       %next = task.argmax %logits : tensor<2x50xf32> -> tensor<2xi32>
// CHECK-NEXT:       task.store %next, @next_token[0 : 2] : tensor<2xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @embedding_x[]
// CHECK-NEXT:       task.call @linear_q[]
// CHECK-NEXT:       task.call @bias_add_q[]
// CHECK-NEXT:       task.call @append_c[]
// CHECK-NEXT:       task.call @attention_a[]
// CHECK-NEXT:       task.call @linear_y[]
// CHECK-NEXT:       task.call @linear_logits[]
// CHECK-NEXT:       task.call @argmax_next[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Copies: layers that exchange two carried values, both of one initial value, and a result carried on by other layers.
graph.model @copies max_seq 16 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<50x8xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x8xf32>
    %y, %z = graph.layers 2 (%a = %x, %b = %x) : tensor<1x8xf32>, tensor<1x8xf32> {
      graph.yield %b, %a : tensor<1x8xf32>, tensor<1x8xf32>
    }
    %u = graph.layers 3 (%c = %y) : tensor<1x8xf32> {
      %d = graph.add %c, %z : tensor<1x8xf32>
      graph.yield %d : tensor<1x8xf32>
    }
    %logits = graph.linear %u, @embed : (tensor<1x8xf32>) -> tensor<1x50xf32>
    %next = graph.argmax %logits : tensor<1x50xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x50xf32>, tensor<1xi32>
  }
}

// CHECK: builtin.module {
// CHECK-NEXT:   task.program @copies max_seq 16 tokens 1 {
// CHECK-NEXT:     task.buffer @embed weight from #amk.checkpoint<"embed"> : tensor<50x8xf32>
// CHECK-NEXT:     task.buffer @token input : tensor<1xi32>
// CHECK-NEXT:     task.buffer @x scratch : tensor<3x1x8xf32>
// CHECK-NEXT:     task.buffer @x_2 scratch : tensor<3x1x8xf32>
// CHECK-NEXT:     task.buffer @y scratch : tensor<4x1x8xf32>
// CHECK-NEXT:     task.buffer @logits output : tensor<1x50xf32>
// CHECK-NEXT:     task.buffer @next_token output : tensor<1xi32>
// CHECK-NEXT:     task.family @embedding_x () {
// CHECK-NEXT:       %token = task.load @token[0 : 1] : tensor<1xi32>
// CHECK-NEXT:       %x = task.gather %token, @embed[0 : 50, 0 : 8] : (tensor<1xi32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %x, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @copy_x_2 () {
// CHECK-NEXT:       %x = task.load @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %x, @x_2[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @copy_x (layer = 2) {
// CHECK-NEXT:       %x = task.load @x_2[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %x, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @copy_x_2_2 (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %x, @x_2[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @copy_y () {
// CHECK-NEXT:       %x = task.load @x[2, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %x, @y[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @add_d (layer = 3) {
// CHECK-NEXT:       %y = task.load @y[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %x = task.load @x_2[2, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %d = task.add %y, %x : tensor<1x8xf32>
// CHECK-NEXT:       task.store %d, @y[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear_logits () {
// CHECK-NEXT:       %y = task.load @y[3, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %embed = task.stream @embed[0 : 50, 0 : 8] : tensor<50x8xf32>
// CHECK-NEXT:       %logits = task.matmul %y, %embed : (tensor<1x8xf32>, tensor<50x8xf32>) -> tensor<1x50xf32>
// CHECK-NEXT:       task.store %logits, @logits[0 : 1, 0 : 50] : tensor<1x50xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @argmax_next () {
// CHECK-NEXT:       %logits = task.load @logits[0 : 1, 0 : 50] : tensor<1x50xf32>
// CHECK-NEXT:       %next = task.argmax %logits : tensor<1x50xf32> -> tensor<1xi32>
// CHECK-NEXT:       task.store %next, @next_token[0 : 1] : tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @embedding_x[]
// CHECK-NEXT:       task.call @copy_x_2[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @copy_x[layer]
// CHECK-NEXT:         task.call @copy_x_2_2[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:       task.call @copy_y[]
// CHECK-NEXT:       task.for layer = 0 to 3 {
// CHECK-NEXT:         task.call @add_d[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:       task.call @linear_logits[]
// CHECK-NEXT:       task.call @argmax_next[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
