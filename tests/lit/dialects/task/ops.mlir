// RUN: ROUNDTRIP
// RUN: GENERIC

// Every op of the dialect, every kind of buffer, and every form of a dimension: single, range, ragged, of the position.
task.program @tiny max_seq 16 tokens 1 {
  task.buffer @embed weight from #amk.checkpoint<"model.embed_tokens.weight"> : tensor<50x8xbf16>
  task.buffer @norm weight from #amk.checkpoint<"model.layers.{layer}.norm.weight"> : tensor<2x8xf32>
  task.buffer @q_proj weight from #amk.checkpoint<"model.layers.{layer}.q_proj.weight"> : tensor<2x2x2x3x8xbf16>
  task.buffer @q_bias weight from #amk.checkpoint<"model.layers.{layer}.q_proj.bias"> : tensor<2x2x2x3xf32>
  task.buffer @inv_freq weight from #amk.rope_frequencies<head_dim = 6, theta = 10000.0> : tensor<3xf32>
  task.buffer @token input : tensor<1xi32>
  task.buffer @x scratch tagged : tensor<3x1x8xf32>
  task.buffer @q scratch : tensor<2x1x2x2x3xf32>
  task.buffer @o scratch : tensor<2x1x2x2x3xf32>
  task.buffer @k_cache state : tensor<2x16x2x2x3xbf16>
  task.buffer @logits output : tensor<1x50xf32>
  task.buffer @next output : tensor<1xi32>
  task.family @embedding () {
    %token = task.load @token[0 : 1] : tensor<1xi32>
    %x = task.gather %token, @embed[0 : 50, 0 : 8] : (tensor<1xi32>) -> tensor<1x8xf32>
    task.store %x, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @query (layer = 2, head = 2, part = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %norm = task.load @norm[layer, 0 : 8] : tensor<8xf32>
    %n = task.rms_norm %x, %norm {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
    %w = task.stream @q_proj[layer, head, 0 : 2, part*2 : 2 to 3, 0 : 8] : tensor<2x2x8xbf16>
    %y = task.matmul %n, %w : (tensor<1x8xf32>, tensor<2x2x8xbf16>) -> tensor<1x2x2xf32>
    %bias = task.load @q_bias[layer, head, 0 : 2, part*2 : 2 to 3] : tensor<2x2xf32>
    %b = task.bias_add %y, %bias : (tensor<1x2x2xf32>, tensor<2x2xf32>)
    %f = task.load @inv_freq[part*2 : 2 to 3] : tensor<2xf32>
    %r = task.rope %b, %f : (tensor<1x2x2xf32>, tensor<2xf32>)
    task.store %r, @q[layer, 0 : 1, head, 0 : 2, part*2 : 2 to 3] : tensor<1x2x2xf32>
    task.store %r, @k_cache[layer, pos : 1, head, 0 : 2, part*2 : 2 to 3] : tensor<1x2x2xf32>
  }
  task.family @attention (layer = 2, head = 2) {
    %q = task.load @q[layer, 0 : 1, head : 1, 0 : 2, 0 : 3] : tensor<1x1x2x3xf32>
    %k = task.stream @k_cache[layer, 0 : pos, head : 1, 0 : 2, 0 : 3] : tensor<?x1x2x3xbf16>
    %o = task.attention %q, %k, %k, %q, %q {scale = 5.000000e-01 : f64} : (tensor<1x1x2x3xf32>, tensor<?x1x2x3xbf16>, tensor<1x1x2x3xf32>)
    task.store %o, @o[layer, 0 : 1, head : 1, 0 : 2, 0 : 3] : tensor<1x1x2x3xf32>
  }
  task.family @mix (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %m = task.silu_mul %x, %x : tensor<1x8xf32>
    %s = task.add %x, %m : tensor<1x8xf32>
    task.store %s, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @head (tile = 7) attributes {note = "ragged"} {
    %x = task.load @x[2, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @embed[tile*8 : 8 to 50, 0 : 8] : tensor<8x8xbf16>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xbf16>) -> tensor<1x8xf32>
    task.store %y, @logits[0 : 1, tile*8 : 8 to 50] : tensor<1x8xf32>
  }
  task.family @argmax () {
    %l = task.load @logits[0 : 1, 0 : 50] : tensor<1x50xf32>
    %next = task.argmax %l : tensor<1x50xf32> -> tensor<1xi32>
    task.store %next, @next[0 : 1] : tensor<1xi32>
  }
  task.order {
    task.call @embedding[]
    task.for layer = 0 to 2 {
      task.call @query[layer]
      task.call @attention[layer, 0]
      task.call @attention[layer, 1]
      task.call @mix[layer]
    }
    task.call @head[]
    task.call @argmax[]
  }
}

// CHECK: builtin.module {
// CHECK-NEXT:   task.program @tiny max_seq 16 tokens 1 {
// CHECK-NEXT:     task.buffer @embed weight from #amk.checkpoint<"model.embed_tokens.weight"> : tensor<50x8xbf16>
// CHECK-NEXT:     task.buffer @norm weight from #amk.checkpoint<"model.layers.{layer}.norm.weight"> : tensor<2x8xf32>
// CHECK-NEXT:     task.buffer @q_proj weight from #amk.checkpoint<"model.layers.{layer}.q_proj.weight"> : tensor<2x2x2x3x8xbf16>
// CHECK-NEXT:     task.buffer @q_bias weight from #amk.checkpoint<"model.layers.{layer}.q_proj.bias"> : tensor<2x2x2x3xf32>
// CHECK-NEXT:     task.buffer @inv_freq weight from #amk.rope_frequencies<head_dim = 6, theta = 10000.0> : tensor<3xf32>
// CHECK-NEXT:     task.buffer @token input : tensor<1xi32>
// CHECK-NEXT:     task.buffer @x scratch tagged : tensor<3x1x8xf32>
// CHECK-NEXT:     task.buffer @q scratch : tensor<2x1x2x2x3xf32>
// CHECK-NEXT:     task.buffer @o scratch : tensor<2x1x2x2x3xf32>
// CHECK-NEXT:     task.buffer @k_cache state : tensor<2x16x2x2x3xbf16>
// CHECK-NEXT:     task.buffer @logits output : tensor<1x50xf32>
// CHECK-NEXT:     task.buffer @next output : tensor<1xi32>
// CHECK-NEXT:     task.family @embedding () {
// CHECK-NEXT:       %token = task.load @token[0 : 1] : tensor<1xi32>
// CHECK-NEXT:       %x = task.gather %token, @embed[0 : 50, 0 : 8] : (tensor<1xi32>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %x, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @query (layer = 2, head = 2, part = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %norm = task.load @norm[layer, 0 : 8] : tensor<8xf32>
// CHECK-NEXT:       %n = task.rms_norm %x, %norm {eps = 1.000000e-05 : f64} : (tensor<1x8xf32>, tensor<8xf32>)
// CHECK-NEXT:       %w = task.stream @q_proj[layer, head, 0 : 2, part*2 : 2 to 3, 0 : 8] : tensor<2x2x8xbf16>
// CHECK-NEXT:       %y = task.matmul %n, %w : (tensor<1x8xf32>, tensor<2x2x8xbf16>) -> tensor<1x2x2xf32>
// CHECK-NEXT:       %bias = task.load @q_bias[layer, head, 0 : 2, part*2 : 2 to 3] : tensor<2x2xf32>
// CHECK-NEXT:       %b = task.bias_add %y, %bias : (tensor<1x2x2xf32>, tensor<2x2xf32>)
// CHECK-NEXT:       %f = task.load @inv_freq[part*2 : 2 to 3] : tensor<2xf32>
// CHECK-NEXT:       %r = task.rope %b, %f : (tensor<1x2x2xf32>, tensor<2xf32>)
// CHECK-NEXT:       task.store %r, @q[layer, 0 : 1, head, 0 : 2, part*2 : 2 to 3] : tensor<1x2x2xf32>
// CHECK-NEXT:       task.store %r, @k_cache[layer, pos : 1, head, 0 : 2, part*2 : 2 to 3] : tensor<1x2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @attention (layer = 2, head = 2) {
// CHECK-NEXT:       %q = task.load @q[layer, 0 : 1, head : 1, 0 : 2, 0 : 3] : tensor<1x1x2x3xf32>
// CHECK-NEXT:       %k = task.stream @k_cache[layer, 0 : pos, head : 1, 0 : 2, 0 : 3] : tensor<?x1x2x3xbf16>
// CHECK-NEXT:       %o = task.attention %q, %k, %k, %q, %q {scale = 5.000000e-01 : f64} : (tensor<1x1x2x3xf32>, tensor<?x1x2x3xbf16>, tensor<1x1x2x3xf32>)
// CHECK-NEXT:       task.store %o, @o[layer, 0 : 1, head : 1, 0 : 2, 0 : 3] : tensor<1x1x2x3xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @mix (layer = 2) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %m = task.silu_mul %x, %x : tensor<1x8xf32>
// CHECK-NEXT:       %s = task.add %x, %m : tensor<1x8xf32>
// CHECK-NEXT:       task.store %s, @x[layer + 1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @head (tile = 7)  attributes {note = "ragged"} {
// CHECK-NEXT:       %x = task.load @x[2, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @embed[tile*8 : 8 to 50, 0 : 8] : tensor<8x8xbf16>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<8x8xbf16>) -> tensor<1x8xf32>
// CHECK-NEXT:       task.store %y, @logits[0 : 1, tile*8 : 8 to 50] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @argmax () {
// CHECK-NEXT:       %l = task.load @logits[0 : 1, 0 : 50] : tensor<1x50xf32>
// CHECK-NEXT:       %next = task.argmax %l : tensor<1x50xf32> -> tensor<1xi32>
// CHECK-NEXT:       task.store %next, @next[0 : 1] : tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @embedding[]
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         task.call @query[layer]
// CHECK-NEXT:         task.call @attention[layer, 0]
// CHECK-NEXT:         task.call @attention[layer, 1]
// CHECK-NEXT:         task.call @mix[layer]
// CHECK-NEXT:       }
// CHECK-NEXT:       task.call @head[]
// CHECK-NEXT:       task.call @argmax[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// The generic form of each op.
// CHECK-GENERIC: "task.program"() <{sym_name = "tiny", max_seq = 16 : i64, tokens = 1 : i64}> ({
// CHECK-GENERIC: "task.buffer"() <{sym_name = "embed", kind = #amk.buffer_kind<weight>, source = #amk.checkpoint<"model.embed_tokens.weight">, type = tensor<50x8xbf16>}> : () -> ()
// CHECK-GENERIC: "task.family"() <{sym_name = "embedding", domain = #amk.domain<()>}> ({
// CHECK-GENERIC: %token = "task.load"() <{access = #amk.access<@token[0 : 1]>}> : () -> tensor<1xi32>
// CHECK-GENERIC: %x = "task.gather"(%token) <{access = #amk.access<@embed[0 : 50, 0 : 8]>}> : (tensor<1xi32>) -> tensor<1x8xf32>
// CHECK-GENERIC: "task.store"(%x) <{access = #amk.access<@x[0, 0 : 1, 0 : 8]>}> : (tensor<1x8xf32>) -> ()
// CHECK-GENERIC: %n = "task.rms_norm"(%x, %norm) <{eps = 1.000000e-05 : f64}> : (tensor<1x8xf32>, tensor<8xf32>) -> tensor<1x8xf32>
// CHECK-GENERIC: %w = "task.stream"() <{access = #amk.access<@q_proj[layer, head, 0 : 2, part*2 : 2 to 3, 0 : 8]>}> : () -> tensor<2x2x8xbf16>
// CHECK-GENERIC: %y = "task.matmul"(%n, %w) : (tensor<1x8xf32>, tensor<2x2x8xbf16>) -> tensor<1x2x2xf32>
// CHECK-GENERIC: %b = "task.bias_add"(%y, %bias) : (tensor<1x2x2xf32>, tensor<2x2xf32>) -> tensor<1x2x2xf32>
// CHECK-GENERIC: %r = "task.rope"(%b, %f) : (tensor<1x2x2xf32>, tensor<2xf32>) -> tensor<1x2x2xf32>
// CHECK-GENERIC: %o = "task.attention"(%q, %k, %k, %q, %q) <{scale = 5.000000e-01 : f64}> : (tensor<1x1x2x3xf32>, tensor<?x1x2x3xbf16>, tensor<?x1x2x3xbf16>, tensor<1x1x2x3xf32>, tensor<1x1x2x3xf32>) -> tensor<1x1x2x3xf32>
// CHECK-GENERIC: %m = "task.silu_mul"(%x, %x) : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
// CHECK-GENERIC: %s = "task.add"(%x, %m) : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
// CHECK-GENERIC: %next = "task.argmax"(%l) : (tensor<1x50xf32>) -> tensor<1xi32>
// CHECK-GENERIC: "task.order"() ({
// CHECK-GENERIC: "task.call"() <{family = @embedding, indices = #amk.indices<[]>}> : () -> ()
// CHECK-GENERIC: "task.for"() <{index = "layer", start = 0 : i64, stop = 2 : i64}> ({

// -----

// Argmax in two parts that overlap, of two rows.
task.program @parts max_seq 4 tokens 2 {
  task.buffer @x input : tensor<2x10xf32>
  task.buffer @best scratch : tensor<2x2x2xf32>
  task.buffer @next output : tensor<2xi32>
  task.family @search (part = 2) {
    %x = task.load @x[0 : 2, part*4 : 6] : tensor<2x6xf32>
    %b = task.argmax_part %x : tensor<2x6xf32> -> tensor<2x2xf32>
    task.store %b, @best[0 : 2, part, 0 : 2] : tensor<2x2xf32>
  }
  task.family @merge () {
    %b = task.load @best[0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2xf32>
    %i = task.argmax_merge %b {stride = 4 : i64} : tensor<2x2x2xf32> -> tensor<2xi32>
    task.store %i, @next[0 : 2] : tensor<2xi32>
  }
  task.order {
    task.call @search[]
    task.call @merge[]
  }
}

// CHECK:      task.program @parts max_seq 4 tokens 2 {
// CHECK:          task.family @search (part = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 2, part*4 : 6] : tensor<2x6xf32>
// CHECK-NEXT:       %b = task.argmax_part %x : tensor<2x6xf32> -> tensor<2x2xf32>
// CHECK-NEXT:       task.store %b, @best[0 : 2, part, 0 : 2] : tensor<2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @merge () {
// CHECK-NEXT:       %b = task.load @best[0 : 2, 0 : 2, 0 : 2] : tensor<2x2x2xf32>
// CHECK-NEXT:       %i = task.argmax_merge %b {stride = 4 : i64} : tensor<2x2x2xf32> -> tensor<2xi32>
// CHECK-NEXT:       task.store %i, @next[0 : 2] : tensor<2xi32>

// CHECK-GENERIC: %b = "task.argmax_part"(%x) : (tensor<2x6xf32>) -> tensor<2x2xf32>
// CHECK-GENERIC: %i = "task.argmax_merge"(%b) <{stride = 4 : i64}> : (tensor<2x2x2xf32>) -> tensor<2xi32>

// -----

// Attention of two rows in three parts. The rows of earlier steps come from the ring or are loaded.
task.program @attention_parts max_seq 32 tokens 2 {
  task.buffer @q input : tensor<2x4x2x8xf32>
  task.buffer @new input : tensor<2x2x2x8xf32>
  task.buffer @k state : tensor<32x2x2x8xbf16>
  task.buffer @v state : tensor<32x2x2x8xbf16>
  task.buffer @sums scratch : tensor<3x2x4x2x8xf32>
  task.buffer @stats scratch : tensor<3x2x4x2xf32>
  task.buffer @o output : tensor<2x4x2x8xf32>
  task.family @search (part = 3) {
    %q = task.load @q[0 : 2, 0 : 4, 0 : 2, 0 : 8] : tensor<2x4x2x8xf32>
    %k = task.stream @k[0 : pos, 0 : 2, 0 : 2, 0 : 8] : tensor<?x2x2x8xbf16>
    %v = task.load @v[0 : pos, 0 : 2, 0 : 2, 0 : 8] : tensor<?x2x2x8xbf16>
    %new = task.load @new[0 : 2, 0 : 2, 0 : 2, 0 : 8] : tensor<2x2x2x8xf32>
    %sums, %stats = task.attention_part %q, %k, %v, %new, %new {scale = 2.500000e-01 : f64, part = #amk.linear<part>, parts = 3 : i64, block = 4 : i64} : (tensor<2x4x2x8xf32>, tensor<?x2x2x8xbf16>, tensor<2x2x2x8xf32>) -> tensor<2x4x2xf32>
    task.store %sums, @sums[part, 0 : 2, 0 : 4, 0 : 2, 0 : 8] : tensor<2x4x2x8xf32>
    task.store %stats, @stats[part, 0 : 2, 0 : 4, 0 : 2] : tensor<2x4x2xf32>
  }
  task.family @merge (head = 4) {
    %sums = task.load @sums[0 : 3, 0 : 2, head : 1, 0 : 2, 0 : 8] : tensor<3x2x1x2x8xf32>
    %stats = task.load @stats[0 : 3, 0 : 2, head : 1, 0 : 2] : tensor<3x2x1x2xf32>
    %o = task.attention_merge %sums, %stats : (tensor<3x2x1x2x8xf32>, tensor<3x2x1x2xf32>) -> tensor<2x1x2x8xf32>
    task.store %o, @o[0 : 2, head : 1, 0 : 2, 0 : 8] : tensor<2x1x2x8xf32>
  }
  task.order {
    task.call @search[]
    task.call @merge[]
  }
}

// CHECK:      task.program @attention_parts max_seq 32 tokens 2 {
// CHECK:          task.family @search (part = 3) {
// CHECK-NEXT:       %q = task.load @q[0 : 2, 0 : 4, 0 : 2, 0 : 8] : tensor<2x4x2x8xf32>
// CHECK-NEXT:       %k = task.stream @k[0 : pos, 0 : 2, 0 : 2, 0 : 8] : tensor<?x2x2x8xbf16>
// CHECK-NEXT:       %v = task.load @v[0 : pos, 0 : 2, 0 : 2, 0 : 8] : tensor<?x2x2x8xbf16>
// CHECK-NEXT:       %new = task.load @new[0 : 2, 0 : 2, 0 : 2, 0 : 8] : tensor<2x2x2x8xf32>
// CHECK-NEXT:       %sums, %stats = task.attention_part %q, %k, %v, %new, %new {scale = 2.500000e-01 : f64, part = #amk.linear<part>, parts = 3 : i64, block = 4 : i64} : (tensor<2x4x2x8xf32>, tensor<?x2x2x8xbf16>, tensor<2x2x2x8xf32>) -> tensor<2x4x2xf32>
// CHECK-NEXT:       task.store %sums, @sums[part, 0 : 2, 0 : 4, 0 : 2, 0 : 8] : tensor<2x4x2x8xf32>
// CHECK-NEXT:       task.store %stats, @stats[part, 0 : 2, 0 : 4, 0 : 2] : tensor<2x4x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @merge (head = 4) {
// CHECK-NEXT:       %sums = task.load @sums[0 : 3, 0 : 2, head : 1, 0 : 2, 0 : 8] : tensor<3x2x1x2x8xf32>
// CHECK-NEXT:       %stats = task.load @stats[0 : 3, 0 : 2, head : 1, 0 : 2] : tensor<3x2x1x2xf32>
// CHECK-NEXT:       %o = task.attention_merge %sums, %stats : (tensor<3x2x1x2x8xf32>, tensor<3x2x1x2xf32>) -> tensor<2x1x2x8xf32>
// CHECK-NEXT:       task.store %o, @o[0 : 2, head : 1, 0 : 2, 0 : 8] : tensor<2x1x2x8xf32>
// CHECK-NEXT:     }

// CHECK-GENERIC: %sums, %stats = "task.attention_part"(%q, %k, %v, %new, %new) <{scale = 2.500000e-01 : f64, part = #amk.linear<part>, parts = 3 : i64, block = 4 : i64}> : (tensor<2x4x2x8xf32>, tensor<?x2x2x8xbf16>, tensor<?x2x2x8xbf16>, tensor<2x2x2x8xf32>, tensor<2x2x2x8xf32>) -> (tensor<2x4x2x8xf32>, tensor<2x4x2xf32>)
// CHECK-GENERIC: %o = "task.attention_merge"(%sums, %stats) : (tensor<3x2x1x2x8xf32>, tensor<3x2x1x2xf32>) -> tensor<2x1x2x8xf32>

// -----

// Parts of rows, summed.
task.program @sums max_seq 8 tokens 2 {
  task.buffer @p input : tensor<2x3x8xf32>
  task.buffer @y output : tensor<2x8xf32>
  task.family @sum (tile = 2) {
    %p = task.load @p[0 : 2, 0 : 3, tile*4 : 4] : tensor<2x3x4xf32>
    %y = task.sum_parts %p : tensor<2x3x4xf32> -> tensor<2x4xf32>
    task.store %y, @y[0 : 2, tile*4 : 4] : tensor<2x4xf32>
  }
  task.order {
    task.call @sum[]
  }
}

// CHECK-LABEL: task.program @sums
// CHECK: %y = task.sum_parts %p : tensor<2x3x4xf32> -> tensor<2x4xf32>
// CHECK-GENERIC: %y = "task.sum_parts"(%p) : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
