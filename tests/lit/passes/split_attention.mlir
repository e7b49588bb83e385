// RUN: amk-opt %s --split-input-file -p 'split-attention{parts=3 block=16}' | filecheck %s
// RUN: amk-opt %s --split-input-file -p 'split-attention{sms=16}' | filecheck %s --check-prefix=SMS
// RUN: amk-opt %s --split-input-file -p 'split-attention{sms=132}' | filecheck %s --check-prefix=MANY
// RUN: amk-opt %s --split-input-file -p 'split-attention{parts=1 sms=16}' | filecheck %s --check-prefix=ONE

// Two KV heads with two heads each. The parts do what the family did and store another result; the family merges a head
// a task. A cache of 64 positions is worth two parts, whatever the SMs.
task.program @layers max_seq 64 tokens 1 {
  task.buffer @x input : tensor<1x4x2x16xf32>
  task.buffer @kr input : tensor<1x2x2x16xf32>
  task.buffer @k state : tensor<2x64x2x2x16xbf16>
  task.buffer @v state : tensor<2x64x2x2x16xbf16>
  task.buffer @o scratch : tensor<2x1x4x2x16xf32>
  task.buffer @y output : tensor<2x1x4x2x16xf32>
  task.family @attention_o (layer = 2, kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 16] : tensor<1x2x2x16xf32>
    %k = task.stream @k[layer, 0 : pos, kv_head : 1, 0 : 2, 0 : 16] : tensor<?x1x2x16xbf16>
    %v = task.stream @v[layer, 0 : pos, kv_head : 1, 0 : 2, 0 : 16] : tensor<?x1x2x16xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 16] : tensor<1x1x2x16xf32>
    %o = task.attention %q, %k, %v, %n, %n {scale = 0.25 : f64} : (tensor<1x2x2x16xf32>, tensor<?x1x2x16xbf16>, tensor<1x1x2x16xf32>)
    task.store %o, @o[layer, 0 : 1, kv_head*2 : 2, 0 : 2, 0 : 16] : tensor<1x2x2x16xf32>
  }
  task.family @copy (layer = 2) {
    %o = task.load @o[layer, 0 : 1, 0 : 4, 0 : 2, 0 : 16] : tensor<1x4x2x16xf32>
    task.store %o, @y[layer, 0 : 1, 0 : 4, 0 : 2, 0 : 16] : tensor<1x4x2x16xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
      task.call @attention_o[layer]
      task.call @copy[layer]
    }
  }
}

// CHECK:      task.buffer @y output : tensor<2x1x4x2x16xf32>
// CHECK-NEXT: task.buffer @o_sums scratch : tensor<2x3x1x4x2x16xf32>
// CHECK-NEXT: task.buffer @o_stats scratch : tensor<2x3x1x4x2xf32>
// CHECK-NEXT: task.family @attention_o_part (layer = 2, kv_head = 2, part = 3) {
// CHECK-NEXT:   %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 16] : tensor<1x2x2x16xf32>
// CHECK-NEXT:   %k = task.stream @k[layer, 0 : pos, kv_head : 1, 0 : 2, 0 : 16] : tensor<?x1x2x16xbf16>
// CHECK-NEXT:   %v = task.stream @v[layer, 0 : pos, kv_head : 1, 0 : 2, 0 : 16] : tensor<?x1x2x16xbf16>
// CHECK-NEXT:   %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 16] : tensor<1x1x2x16xf32>
// CHECK-NEXT:   %sums, %stats = task.attention_part %q, %k, %v, %n, %n {scale = 2.500000e-01 : f64, part = #amk.linear<part>, parts = 3 : i64, block = 16 : i64} : (tensor<1x2x2x16xf32>, tensor<?x1x2x16xbf16>, tensor<1x1x2x16xf32>) -> tensor<1x2x2xf32>
// CHECK-NEXT:   task.store %sums, @o_sums[layer, part, 0 : 1, kv_head*2 : 2, 0 : 2, 0 : 16] : tensor<1x2x2x16xf32>
// CHECK-NEXT:   task.store %stats, @o_stats[layer, part, 0 : 1, kv_head*2 : 2, 0 : 2] : tensor<1x2x2xf32>
// CHECK-NEXT: }
// CHECK-NEXT: task.family @attention_o (layer = 2, head = 4) {
// CHECK-NEXT:   %sums = task.load @o_sums[layer, 0 : 3, 0 : 1, head : 1, 0 : 2, 0 : 16] : tensor<3x1x1x2x16xf32>
// CHECK-NEXT:   %stats = task.load @o_stats[layer, 0 : 3, 0 : 1, head : 1, 0 : 2] : tensor<3x1x1x2xf32>
// CHECK-NEXT:   %o = task.attention_merge %sums, %stats : (tensor<3x1x1x2x16xf32>, tensor<3x1x1x2xf32>) -> tensor<1x1x2x16xf32>
// CHECK-NEXT:   task.store %o, @o[layer, 0 : 1, head : 1, 0 : 2, 0 : 16] : tensor<1x1x2x16xf32>
// CHECK-NEXT: }
// CHECK-NEXT: task.family @copy (layer = 2) {
// CHECK:      task.order {
// CHECK-NEXT:   task.for layer = 0 to 2 {
// CHECK-NEXT:     task.call @attention_o_part[layer]
// CHECK-NEXT:     task.call @attention_o[layer]
// CHECK-NEXT:     task.call @copy[layer]

// SMS:      task.buffer @o_sums scratch : tensor<2x2x1x4x2x16xf32>
// SMS-NEXT: task.buffer @o_stats scratch : tensor<2x2x1x4x2xf32>
// SMS-NEXT: task.family @attention_o_part (layer = 2, kv_head = 2, part = 2) {
// SMS-NEXT:   %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 16] : tensor<1x2x2x16xf32>
// SMS-NEXT:   %k = task.stream @k[layer, 0 : pos, kv_head : 1, 0 : 2, 0 : 16] : tensor<?x1x2x16xbf16>
// SMS-NEXT:   %v = task.stream @v[layer, 0 : pos, kv_head : 1, 0 : 2, 0 : 16] : tensor<?x1x2x16xbf16>
// SMS-NEXT:   %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 16] : tensor<1x1x2x16xf32>
// SMS-NEXT:   %sums, %stats = task.attention_part %q, %k, %v, %n, %n {scale = 2.500000e-01 : f64, part = #amk.linear<part>, parts = 2 : i64, block = 128 : i64} : (tensor<1x2x2x16xf32>, tensor<?x1x2x16xbf16>, tensor<1x1x2x16xf32>) -> tensor<1x2x2xf32>
// SMS-NEXT:   task.store %sums, @o_sums[layer, part, 0 : 1, kv_head*2 : 2, 0 : 2, 0 : 16] : tensor<1x2x2x16xf32>
// SMS-NEXT:   task.store %stats, @o_stats[layer, part, 0 : 1, kv_head*2 : 2, 0 : 2] : tensor<1x2x2xf32>
// SMS-NEXT: }
// SMS-NEXT: task.family @attention_o (layer = 2, head = 4) {
// SMS-NEXT:   %sums = task.load @o_sums[layer, 0 : 2, 0 : 1, head : 1, 0 : 2, 0 : 16] : tensor<2x1x1x2x16xf32>
// SMS-NEXT:   %stats = task.load @o_stats[layer, 0 : 2, 0 : 1, head : 1, 0 : 2] : tensor<2x1x1x2xf32>
// SMS-NEXT:   %o = task.attention_merge %sums, %stats : (tensor<2x1x1x2x16xf32>, tensor<2x1x1x2xf32>) -> tensor<1x1x2x16xf32>
// SMS-NEXT:   task.store %o, @o[layer, 0 : 1, head : 1, 0 : 2, 0 : 16] : tensor<1x1x2x16xf32>
// SMS-NEXT: }
// SMS-NEXT: task.family @copy (layer = 2) {

// One part is what there was.
// ONE:      task.family @attention_o (layer = 2, kv_head = 2) {
// ONE-NOT:  attention_part

// -----

// An output is stored as it is.
task.program @output max_seq 64 tokens 1 {
  task.buffer @x input : tensor<1x4x2x8xf32>
  task.buffer @kr input : tensor<1x2x2x8xf32>
  task.buffer @k state : tensor<64x2x2x8xbf16>
  task.buffer @o output : tensor<1x4x2x8xf32>
  task.family @attention (kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 8] : tensor<?x1x2x8xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 8] : tensor<1x1x2x8xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x8xf32>, tensor<?x1x2x8xbf16>, tensor<1x1x2x8xf32>)
    task.store %o, @o[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
  }
  task.order {
    task.call @attention[]
  }
}

// CHECK:      task.program @output
// CHECK-NOT:  attention_part
// CHECK:      task.call @attention[

// -----

// The attention of some of the heads, of which a task for each head of the buffer would be too many.
task.program @some max_seq 64 tokens 1 {
  task.buffer @x input : tensor<1x4x2x8xf32>
  task.buffer @kr input : tensor<1x2x2x8xf32>
  task.buffer @k state : tensor<64x2x2x8xbf16>
  task.buffer @o scratch : tensor<1x4x2x8xf32>
  task.family @attention (i = 1) {
    %q = task.load @x[0 : 1, 0 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 8] : tensor<?x1x2x8xbf16>
    %n = task.load @kr[0 : 1, 0 : 1, 0 : 2, 0 : 8] : tensor<1x1x2x8xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x8xf32>, tensor<?x1x2x8xbf16>, tensor<1x1x2x8xf32>)
    task.store %o, @o[0 : 1, 0 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
  }
  task.order {
    task.call @attention[]
  }
}

// CHECK:      task.program @some
// CHECK-NOT:  attention_part
// CHECK:      task.call @attention[

// -----

// An index that is called as those of the parts.
task.program @named max_seq 64 tokens 1 {
  task.buffer @x input : tensor<1x4x2x8xf32>
  task.buffer @kr input : tensor<1x2x2x8xf32>
  task.buffer @k state : tensor<64x2x2x8xbf16>
  task.buffer @o scratch : tensor<1x4x2x8xf32>
  task.family @attention (part = 2) {
    %q = task.load @x[0 : 1, part*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %k = task.stream @k[0 : pos, part : 1, 0 : 2, 0 : 8] : tensor<?x1x2x8xbf16>
    %n = task.load @kr[0 : 1, part : 1, 0 : 2, 0 : 8] : tensor<1x1x2x8xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x8xf32>, tensor<?x1x2x8xbf16>, tensor<1x1x2x8xf32>)
    task.store %o, @o[0 : 1, part*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
  }
  task.order {
    task.call @attention[]
  }
}

// CHECK:      task.program @named
// CHECK-NOT:  attention_part
// CHECK:      task.call @attention[

// -----

// What is stored is the sum of the attention and something else.
task.program @sum max_seq 64 tokens 1 {
  task.buffer @x input : tensor<1x4x2x8xf32>
  task.buffer @kr input : tensor<1x2x2x8xf32>
  task.buffer @k state : tensor<64x2x2x8xbf16>
  task.buffer @o scratch : tensor<1x4x2x8xf32>
  task.family @attention (kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 8] : tensor<?x1x2x8xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 8] : tensor<1x1x2x8xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x8xf32>, tensor<?x1x2x8xbf16>, tensor<1x1x2x8xf32>)
    %y = task.add %o, %q : tensor<1x2x2x8xf32>
    task.store %y, @o[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
  }
  task.order {
    task.call @attention[]
  }
}

// CHECK:      task.program @sum
// CHECK-NOT:  attention_part
// CHECK:      task.call @attention[

// -----

// The family is called for one KV head at a time.
task.program @twice max_seq 64 tokens 1 {
  task.buffer @x input : tensor<1x4x2x8xf32>
  task.buffer @kr input : tensor<1x2x2x8xf32>
  task.buffer @k state : tensor<64x2x2x8xbf16>
  task.buffer @o scratch : tensor<1x4x2x8xf32>
  task.family @attention (kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 8] : tensor<?x1x2x8xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 8] : tensor<1x1x2x8xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x8xf32>, tensor<?x1x2x8xbf16>, tensor<1x1x2x8xf32>)
    task.store %o, @o[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
  }
  task.order {
    task.call @attention[0]
    task.call @attention[1]
  }
}

// CHECK:      task.program @twice
// CHECK-NOT:  attention_part
// CHECK:      task.call @attention[

// -----

// It is stored twice.
task.program @copies max_seq 64 tokens 1 {
  task.buffer @x input : tensor<1x4x2x8xf32>
  task.buffer @kr input : tensor<1x2x2x8xf32>
  task.buffer @k state : tensor<64x2x2x8xbf16>
  task.buffer @o scratch : tensor<2x1x4x2x8xf32>
  task.family @attention (kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 8] : tensor<?x1x2x8xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 8] : tensor<1x1x2x8xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x8xf32>, tensor<?x1x2x8xbf16>, tensor<1x1x2x8xf32>)
    task.store %o, @o[0, 0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    task.store %o, @o[1, 0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
  }
  task.order {
    task.call @attention[]
  }
}

// CHECK:      task.program @copies
// CHECK-NOT:  attention_part
// CHECK:      task.call @attention[

// -----

// Each KV head has a buffer element of its own.
task.program @own max_seq 64 tokens 1 {
  task.buffer @x input : tensor<1x4x2x8xf32>
  task.buffer @kr input : tensor<1x2x2x8xf32>
  task.buffer @k state : tensor<64x2x2x8xbf16>
  task.buffer @o scratch : tensor<2x1x4x2x8xf32>
  task.family @attention (kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 8] : tensor<?x1x2x8xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 8] : tensor<1x1x2x8xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x8xf32>, tensor<?x1x2x8xbf16>, tensor<1x1x2x8xf32>)
    task.store %o, @o[kv_head, 0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
  }
  task.order {
    task.call @attention[]
  }
}

// CHECK:      task.program @own
// CHECK-NOT:  attention_part
// CHECK:      task.call @attention[

// -----

// A cache that is long enough: with 16 SMs, 16 / 2 = 8 parts; with 132, one for 128 positions, 64, and a head is merged in two
// slices of 8 of its 16 pairs, so that a task waits for 64 * 16 words of sums.
task.program @long max_seq 8192 tokens 1 {
  task.buffer @x input : tensor<1x4x2x16xf32>
  task.buffer @kr input : tensor<1x2x2x16xf32>
  task.buffer @k state : tensor<8192x2x2x16xbf16>
  task.buffer @o scratch : tensor<1x4x2x16xf32>
  task.buffer @y output : tensor<1x4x2x16xf32>
  task.family @attend (kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 16] : tensor<1x2x2x16xf32>
    %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 16] : tensor<?x1x2x16xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 16] : tensor<1x1x2x16xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.25 : f64} : (tensor<1x2x2x16xf32>, tensor<?x1x2x16xbf16>, tensor<1x1x2x16xf32>)
    task.store %o, @o[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 16] : tensor<1x2x2x16xf32>
  }
  task.family @copy () {
    %o = task.load @o[0 : 1, 0 : 4, 0 : 2, 0 : 16] : tensor<1x4x2x16xf32>
    task.store %o, @y[0 : 1, 0 : 4, 0 : 2, 0 : 16] : tensor<1x4x2x16xf32>
  }
  task.order {
    task.call @attend[]
    task.call @copy[]
  }
}

// SMS:      task.family @attend_part (kv_head = 2, part = 8) {
// SMS:        parts = 8 : i64, block = 128 : i64
// SMS:      task.family @attend (head = 4) {
// MANY:     task.family @attend_part (kv_head = 2, part = 64) {
// MANY:       parts = 64 : i64, block = 128 : i64
// MANY:     task.family @attend (head = 4, slice = 2) {
// MANY-NEXT:  %sums = task.load @o_sums[0 : 64, 0 : 1, head : 1, 0 : 2, slice*8 : 8] : tensor<64x1x1x2x8xf32>
// MANY-NEXT:  %stats = task.load @o_stats[0 : 64, 0 : 1, head : 1, 0 : 2] : tensor<64x1x1x2xf32>
// MANY-NEXT:  %o = task.attention_merge %sums, %stats : (tensor<64x1x1x2x8xf32>, tensor<64x1x1x2xf32>) -> tensor<1x1x2x8xf32>
// MANY-NEXT:  task.store %o, @o[0 : 1, head : 1, 0 : 2, slice*8 : 8] : tensor<1x1x2x8xf32>

// -----

// Products that read two heads at a time, those of a KV head, get them from one task: fuse-into-consumer can put it there.
task.program @groups max_seq 64 tokens 1 {
  task.buffer @x input : tensor<1x4x2x8xf32>
  task.buffer @kr input : tensor<1x2x2x8xf32>
  task.buffer @k state : tensor<64x2x2x8xbf16>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<8x4x2x8xbf16>
  task.buffer @o scratch : tensor<1x4x2x8xf32>
  task.buffer @y output : tensor<1x2x8xf32>
  task.family @attention (kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 8] : tensor<?x1x2x8xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 8] : tensor<1x1x2x8xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x8xf32>, tensor<?x1x2x8xbf16>, tensor<1x1x2x8xf32>)
    task.store %o, @o[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
  }
  task.family @product (i = 2) {
    %o = task.load @o[0 : 1, i*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %w = task.stream @w[0 : 8, i*2 : 2, 0 : 2, 0 : 8] : tensor<8x2x2x8xbf16>
    %y = task.matmul %o, %w : (tensor<1x2x2x8xf32>, tensor<8x2x2x8xbf16>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, i, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @attention[]
    task.call @product[]
  }
}

// CHECK:      task.program @groups
// CHECK:      task.family @attention (head = 2) {
// CHECK-NEXT:   %sums = task.load @o_sums[0 : 3, 0 : 1, head*2 : 2, 0 : 2, 0 : 8] : tensor<3x1x2x2x8xf32>
// CHECK-NEXT:   %stats = task.load @o_stats[0 : 3, 0 : 1, head*2 : 2, 0 : 2] : tensor<3x1x2x2xf32>
// CHECK-NEXT:   %o = task.attention_merge %sums, %stats : (tensor<3x1x2x2x8xf32>, tensor<3x1x2x2xf32>) -> tensor<1x2x2x8xf32>
// CHECK-NEXT:   task.store %o, @o[0 : 1, head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>

// -----

// Others do not, and merge nothing themselves.
task.program @others max_seq 64 tokens 1 {
  task.buffer @x input : tensor<1x4x2x8xf32>
  task.buffer @kr input : tensor<1x2x2x8xf32>
  task.buffer @k state : tensor<64x2x2x8xbf16>
  task.buffer @o scratch : tensor<1x4x2x8xf32>
  task.buffer @y output : tensor<1x4x2x8xf32>
  task.family @attention (kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 8] : tensor<?x1x2x8xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 8] : tensor<1x1x2x8xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x8xf32>, tensor<?x1x2x8xbf16>, tensor<1x1x2x8xf32>)
    task.store %o, @o[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
  }
  task.family @copy (i = 2) {
    %o = task.load @o[0 : 1, i*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
    task.store %o, @y[0 : 1, i*2 : 2, 0 : 2, 0 : 8] : tensor<1x2x2x8xf32>
  }
  task.order {
    task.call @attention[]
    task.call @copy[]
  }
}

// CHECK:      task.program @others
// CHECK:      task.family @attention (head = 4) {
// CHECK:      task.family @copy (i = 2) {
// CHECK-NEXT:   task.load @o[

// -----

// A part for each block of 64 positions: 4,352 words are more than a product merges.
task.program @words max_seq 1088 tokens 1 {
  task.buffer @x input : tensor<1x4x2x64xf32>
  task.buffer @kr input : tensor<1x2x2x64xf32>
  task.buffer @k state : tensor<1088x2x2x64xbf16>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<8x4x2x64xbf16>
  task.buffer @o scratch : tensor<1x4x2x64xf32>
  task.buffer @y output : tensor<1x2x8xf32>
  task.family @attention (kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 64] : tensor<1x2x2x64xf32>
    %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 64] : tensor<?x1x2x64xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 64] : tensor<1x1x2x64xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x64xf32>, tensor<?x1x2x64xbf16>, tensor<1x1x2x64xf32>)
    task.store %o, @o[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 64] : tensor<1x2x2x64xf32>
  }
  task.family @product (i = 2) {
    %o = task.load @o[0 : 1, i*2 : 2, 0 : 2, 0 : 64] : tensor<1x2x2x64xf32>
    %w = task.stream @w[0 : 8, i*2 : 2, 0 : 2, 0 : 64] : tensor<8x2x2x64xbf16>
    %y = task.matmul %o, %w : (tensor<1x2x2x64xf32>, tensor<8x2x2x64xbf16>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, i, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @attention[]
    task.call @product[]
  }
}

// MANY:      task.program @words
// MANY:      task.family @attention_part (kv_head = 2, part = 17) {
// MANY:      block = 64
// MANY:      task.family @attention (head = 4, slice = 4) {
// CHECK:     task.program @words
// CHECK:     task.family @attention_part (kv_head = 2, part = 3) {
// CHECK:     task.family @attention (head = 2) {

// -----

// Sixteen have 4,096 words, which it merges: a task has all heads that it reads.
task.program @merged max_seq 1024 tokens 1 {
  task.buffer @x input : tensor<1x4x2x64xf32>
  task.buffer @kr input : tensor<1x2x2x64xf32>
  task.buffer @k state : tensor<1024x2x2x64xbf16>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<8x4x2x64xbf16>
  task.buffer @o scratch : tensor<1x4x2x64xf32>
  task.buffer @y output : tensor<1x2x8xf32>
  task.family @attention (kv_head = 2) {
    %q = task.load @x[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 64] : tensor<1x2x2x64xf32>
    %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 64] : tensor<?x1x2x64xbf16>
    %n = task.load @kr[0 : 1, kv_head : 1, 0 : 2, 0 : 64] : tensor<1x1x2x64xf32>
    %o = task.attention %q, %k, %k, %n, %n {scale = 0.5 : f64} : (tensor<1x2x2x64xf32>, tensor<?x1x2x64xbf16>, tensor<1x1x2x64xf32>)
    task.store %o, @o[0 : 1, kv_head*2 : 2, 0 : 2, 0 : 64] : tensor<1x2x2x64xf32>
  }
  task.family @product (i = 2) {
    %o = task.load @o[0 : 1, i*2 : 2, 0 : 2, 0 : 64] : tensor<1x2x2x64xf32>
    %w = task.stream @w[0 : 8, i*2 : 2, 0 : 2, 0 : 64] : tensor<8x2x2x64xbf16>
    %y = task.matmul %o, %w : (tensor<1x2x2x64xf32>, tensor<8x2x2x64xbf16>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, i, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @attention[]
    task.call @product[]
  }
}

// MANY:      task.program @merged
// MANY:      task.family @attention_part (kv_head = 2, part = 16) {
// MANY:      task.family @attention (head = 2) {
// CHECK:     task.program @merged
