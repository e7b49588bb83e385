graph.model @tiny max_seq 32 {
  graph.weight @embed from #amk.checkpoint<"model.embed_tokens.weight"> : tensor<50x24xbf16>
  graph.weight @attn_norm layers 2 from #amk.checkpoint<"model.layers.{layer}.input_layernorm.weight"> : tensor<24xf32>
  graph.weight @q_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.weight"> : tensor<4x8x24xbf16>
  graph.weight @k_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.k_proj.weight"> : tensor<2x8x24xbf16>
  graph.weight @v_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.v_proj.weight"> : tensor<2x8x24xbf16>
  graph.weight @o_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.o_proj.weight"> : tensor<24x4x8xbf16>
  graph.weight @mlp_norm layers 2 from #amk.checkpoint<"model.layers.{layer}.post_attention_layernorm.weight"> : tensor<24xf32>
  graph.weight @gate_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.mlp.gate_proj.weight"> : tensor<44x24xbf16>
  graph.weight @up_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.mlp.up_proj.weight"> : tensor<44x24xbf16>
  graph.weight @down_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.mlp.down_proj.weight"> : tensor<24x44xbf16>
  graph.weight @norm from #amk.checkpoint<"model.norm.weight"> : tensor<24xf32>
  graph.weight @inv_freq from #amk.rope_frequencies<head_dim = 8, theta = 10000.0> : tensor<4xf32>
  graph.cache @k_cache layers 2 : tensor<32x2x8xbf16>
  graph.cache @v_cache layers 2 : tensor<32x2x8xbf16>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x24xf32>
    %hidden = graph.layers 2 (%h = %x) : tensor<1x24xf32> {
      %n = graph.rms_norm %h, @attn_norm {eps = 1.0e-05 : f64} : tensor<1x24xf32>
      %q = graph.linear %n, @q_proj : (tensor<1x24xf32>) -> tensor<1x4x8xf32>
      %k = graph.linear %n, @k_proj : (tensor<1x24xf32>) -> tensor<1x2x8xf32>
      %v = graph.linear %n, @v_proj : (tensor<1x24xf32>) -> tensor<1x2x8xf32>
      %qr = graph.rope %q, @inv_freq at %pos : tensor<1x4x8xf32>
      %kr = graph.rope %k, @inv_freq at %pos : tensor<1x2x8xf32>
      %keys = graph.cache_append %kr, @k_cache at %pos : (tensor<1x2x8xf32>) -> tensor<32x2x8xbf16>
      %values = graph.cache_append %v, @v_cache at %pos : (tensor<1x2x8xf32>) -> tensor<32x2x8xbf16>
      %mixed = graph.attention %qr, %keys, %values at %pos {scale = 0.35355339059327379 : f64} : (tensor<1x4x8xf32>, tensor<32x2x8xbf16>, tensor<32x2x8xbf16>) -> tensor<1x4x8xf32>
      %o = graph.linear %mixed, @o_proj : (tensor<1x4x8xf32>) -> tensor<1x24xf32>
      %attended = graph.add %h, %o : tensor<1x24xf32>
      %m = graph.rms_norm %attended, @mlp_norm {eps = 1.0e-05 : f64} : tensor<1x24xf32>
      %gate = graph.linear %m, @gate_proj : (tensor<1x24xf32>) -> tensor<1x44xf32>
      %up = graph.linear %m, @up_proj : (tensor<1x24xf32>) -> tensor<1x44xf32>
      %act = graph.silu_mul %gate, %up : tensor<1x44xf32>
      %down = graph.linear %act, @down_proj : (tensor<1x44xf32>) -> tensor<1x24xf32>
      %out = graph.add %attended, %down : tensor<1x24xf32>
      graph.yield %out : tensor<1x24xf32>
    }
    %normed = graph.rms_norm %hidden, @norm {eps = 1.0e-05 : f64} : tensor<1x24xf32>
    %logits = graph.linear %normed, @embed : (tensor<1x24xf32>) -> tensor<1x50xf32>
    %next = graph.argmax %logits : tensor<1x50xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x50xf32>, tensor<1xi32>
  }
}
