// RUN: amk-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// A step handles at least one token, and no more than there are positions.
task.program @p max_seq 8 tokens 9 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.order {
  }
}
// CHECK: tokens must lie in [1, max_seq = 8], found 9

// -----

// A program has one order.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
}
// CHECK: a program has exactly one task.order, found 0

// -----

// Nothing else stands in a program.
task.program @p max_seq 8 tokens 1 {
  "test.op"() : () -> ()
  task.order {
  }
}
// CHECK: a program holds buffers, families and one order, found 'test.op'

// -----

// A weight comes from somewhere.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight : tensor<4xf32>
  task.order {
  }
}
// CHECK: exactly the weights have a source, found a weight buffer

// -----

// Scratch comes from nowhere.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @s scratch from #amk.checkpoint<"s"> : tensor<4xf32>
  task.order {
  }
}
// CHECK: exactly the weights have a source, found a scratch buffer

// -----

// Buffers are static.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @s scratch : tensor<?xf32>
  task.order {
  }
}
// CHECK: buffer shape must be static and positive, found tensor<?xf32>

// -----

// State cannot be tagged: it outlives the epoch.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @s state tagged : tensor<4xf32>
  task.order {
  }
}
// CHECK: only scratch float32 buffers can be tagged, found state tensor<4xf32>

// -----

// Tagged words are float32.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @s scratch tagged : tensor<4xbf16>
  task.order {
  }
}
// CHECK: only scratch float32 buffers can be tagged, found scratch tensor<4xbf16>

// -----

// Two symbols of one name.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @x scratch : tensor<4xf32>
  task.order {
  }
}
// CHECK: Redefinition of symbol "x"

// -----

// Indices of a domain differ.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1, layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: indices of a domain must differ, found (layer, layer)

// -----

// The position is not an index.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1, pos = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: 'pos' is reserved for the position and cannot name a domain index

// -----

// Extents are positive.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1, tile = 0) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: extent of domain index 'tile' must be at least 1, found 0

// -----

// A task without a result.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: family @f stores nothing

// -----

// An access names a buffer.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @missing[layer] : tensor<f32>
  }
  task.order {
  }
}
// CHECK: 'task.load' accesses @missing, which is not a buffer

// -----

// An access has the rank of its buffer.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1] : tensor<1xf32>
  }
  task.order {
  }
}
// CHECK: 'task.load' in @f: @x[layer, 0 : 1] has 2 dimensions, buffer @x has 3

// -----

// An access uses the indices of its family.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[tile, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: @x[tile, 0 : 1, 0 : 4] uses index 'tile', which is not in the domain (layer)

// -----

// An access lies in the buffer for every task.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: dimension 0 of @x[layer + 1, 0 : 1, 0 : 4] covers [1, 3), buffer @x has [0, 2)

// -----

// An access lies in the buffer for every position.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %k = task.load @c[0 : pos + 2, 0 : 2, 0 : 2, 0 : 2] : tensor<?x2x2x2xf32>
  }
  task.order {
  }
}
// CHECK: covers [0, 9), buffer @c has [0, 8)

// -----

// A size depends on the position only.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[0 : layer + 1, 0 : 1, 0 : 4] : tensor<?x1x4xf32>
  }
  task.order {
  }
}
// CHECK: size layer + 1 of dimension 0 of @x[0 : layer + 1, 0 : 1, 0 : 4] may depend on 'pos' only

// -----

// A tile has elements.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 0] : tensor<1x0xf32>
  }
  task.order {
  }
}
// CHECK: size 0 of dimension 2 of @x[layer, 0 : 1, 0 : 0] can be less than 1

// -----

// A limit lies in the buffer.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 8 to 5] : tensor<1x8xf32>
  }
  task.order {
  }
}
// CHECK: limit 5 of dimension 2 of @x[layer, 0 : 1, 0 : 8 to 5] must lie in [1, 4]

// -----

// Every tile has an element before the limit.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1, tile = 2) {
    %x = task.load @x[layer, 0 : 1, tile*4 : 4 to 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: starts at 4, at or beyond its limit 4

// -----

// Only weights and state are streamed.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.stream @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: only weights and state are streamed, @x is scratch

// -----

// What is streamed of a weight is the same in every step.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<8x4xf32>
  task.family @f (layer = 1) {
    %w = task.stream @w[pos : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: a streamed tile of a weight is constant, @w[pos : 1, 0 : 4] depends on 'pos'

// -----

// Rows are gathered from all of the first dimension.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %i = task.load @ids[0 : 1] : tensor<1xi32>
    %x = task.gather %i, @w[1 : 2, 0 : 4] : (tensor<1xi32>) -> tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: the first dimension of a gather is a constant range '0 : rows', found 1 : 2

// -----

// Weights are not written.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @w[0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: a task cannot write @w, a weight buffer

// -----

// Inputs are not written.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @in[0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: a task cannot write @in, a input buffer

// -----

// A store has the shape of its region.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 3] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: 'task.store' accesses a tile of type tensor<1x3xf32>, found tensor<1x4xf32>

// -----

// A matmul contracts the k dimensions of its operands.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    %w = task.stream @w[0 : 6, 0 : 3] : tensor<6x3xf32>
    %y = "task.matmul"(%x, %w) : (tensor<1x4xf32>, tensor<6x3xf32>) -> tensor<1x6xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: weight tile 6x3 does not take 1x4 to 1x6

// -----

// A norm is over the last dimension.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    %g = task.load @w[0, 0 : 3] : tensor<3xf32>
    %y = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x4xf32>, tensor<3xf32>)
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: norm takes x [T, width] and weight [width], found 1x4 and 3

// -----

// Rope rotates pairs.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    %g = task.load @w[0, 0 : 4] : tensor<4xf32>
    %y = task.rope %x, %g : (tensor<1x4xf32>, tensor<4xf32>)
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: rope takes x [T, ..., 2, n] and frequencies [n], found 1x4 and 4

// -----

// Attention reads as many rows as the position says.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %k = task.load @c[0 : 8, 0 : 2, 0 : 2, 0 : 2] : tensor<8x2x2x2xf32>
    %y = task.attention %q, %k, %k, %q, %q {scale = 1.0 : f64} : (tensor<1x2x2x2xf32>, tensor<8x2x2x2xf32>, tensor<1x2x2x2xf32>)
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: attention takes q [T, heads, 2, half] and k, v [?, kv_heads, 2, half], found 1x2x2x2 and 8x2x2x2

// -----

// KV heads divide the heads.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    %q = task.load @q[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @c[0 : pos, 0 : 2, 0 : 2, 0 : 2] : tensor<?x2x2x2xf32>
    %n = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %y = task.attention %q, %k, %k, %n, %n {scale = 1.0 : f64} : (tensor<1x1x2x2xf32>, tensor<?x2x2x2xf32>, tensor<1x2x2x2xf32>)
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: 1 heads are not divisible by 2 KV heads

// -----

// A bias has the shape of a row.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    %g = task.load @w[0, 0 : 3] : tensor<3xf32>
    %y = task.bias_add %x, %g : (tensor<1x4xf32>, tensor<3xf32>)
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: bias is 3, expected 4

// -----

// Argmax is over a matrix.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<6x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @ids input : tensor<1xi32>
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @c state : tensor<8x2x2x2xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %y = task.argmax %q : tensor<1x2x2x2xf32> -> tensor<1xi32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: argmax takes [T, n] to [T], found 1x2x2x2

// -----

// What a part finds are two words a row.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @y scratch : tensor<1x3xf32>
  task.family @f () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %y = task.argmax_part %x : tensor<1x8xf32> -> tensor<1x3xf32>
    task.store %y, @y[0 : 1, 0 : 3] : tensor<1x3xf32>
  }
  task.order {
  }
}
// CHECK: argmax_part takes [T, n] to [T, 2], found 1x8 to 1x3

// -----

// Twice an index of a part needs no more bits than a float32 has.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x4194305xf32>
  task.buffer @y scratch : tensor<1x2xf32>
  task.family @f () {
    %x = task.load @x[0 : 1, 0 : 4194305] : tensor<1x4194305xf32>
    %y = task.argmax_part %x : tensor<1x4194305xf32> -> tensor<1x2xf32>
    task.store %y, @y[0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  task.order {
  }
}
// CHECK: argmax_part numbers at most 4194304 elements, found 4194305

// -----

// Parts are merged from two words each.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x4x3xf32>
  task.buffer @y scratch : tensor<1xi32>
  task.family @f () {
    %x = task.load @x[0 : 1, 0 : 4, 0 : 3] : tensor<1x4x3xf32>
    %y = task.argmax_merge %x {stride = 4 : i64} : tensor<1x4x3xf32> -> tensor<1xi32>
    task.store %y, @y[0 : 1] : tensor<1xi32>
  }
  task.order {
  }
}
// CHECK: argmax_merge takes [T, parts, 2] to [T], found 1x4x3 to 1

// -----

// Parts begin one after the other.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x4x2xf32>
  task.buffer @y scratch : tensor<1xi32>
  task.family @f () {
    %x = task.load @x[0 : 1, 0 : 4, 0 : 2] : tensor<1x4x2xf32>
    %y = task.argmax_merge %x {stride = 0 : i64} : tensor<1x4x2xf32> -> tensor<1xi32>
    task.store %y, @y[0 : 1] : tensor<1xi32>
  }
  task.order {
  }
}
// CHECK: stride must be at least 1 and keep indices of 4 parts in i32, found 0

// -----

// Indices of the last part are int32 too.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x3x2xf32>
  task.buffer @y scratch : tensor<1xi32>
  task.family @f () {
    %x = task.load @x[0 : 1, 0 : 3, 0 : 2] : tensor<1x3x2xf32>
    %y = task.argmax_merge %x {stride = 1073741824 : i64} : tensor<1x3x2xf32> -> tensor<1xi32>
    task.store %y, @y[0 : 1] : tensor<1xi32>
  }
  task.order {
  }
}
// CHECK: stride must be at least 1 and keep indices of 3 parts in i32, found 1073741824

// -----

// An order holds loops and calls.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
    "test.op"() : () -> ()
  }
}
// CHECK: an order holds loops and calls, found 'test.op'

// -----

// A loop has iterations.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
    task.for layer = 1 to 1 {
      task.call @f[0]
    }
  }
}
// CHECK: loop over 'layer' from 1 to 1 is empty

// -----

// Loop indices differ.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
    task.for i = 0 to 1 {
      task.for i = 0 to 1 {
        task.call @f[i]
      }
    }
  }
}
// CHECK: loop index 'i' is already in use

// -----

// A call names a family.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
    task.call @x[]
  }
}
// CHECK: 'task.call' refers to @x, which is not a family

// -----

// A call binds indices that there are.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
    task.call @f[0, 0]
  }
}
// CHECK: 'task.call' binds 2 indices, @f has 1

// -----

// A call stays in the domain.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
    task.for i = 0 to 3 {
      task.call @f[i]
    }
  }
}
// CHECK: 'task.call' binds 'layer' of @f to [0, 2], its extent is 1

// -----

// A call uses the loops around it.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2x1x4xf32>
  task.family @f (layer = 1) {
    %x = task.load @x[layer, 0 : 1, 0 : 4] : tensor<1x4xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
    task.call @f[i]
  }
}
// CHECK: 'task.call' uses index 'i', which no enclosing loop defines

// -----

// A tile is a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
  task.family @f (i = 1) {
    %t = task.load @x[0 : 1] : i32
  }
  task.order {
  }
}
// CHECK: a tile is a tensor, found i32

// -----

// A tile is a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
  task.family @f (i = 1) {
    %t = task.load @x[0 : 1] : f32
  }
  task.order {
  }
}
// CHECK: a tile is a tensor, found f32

// -----

// A tile is a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
  task.family @f (i = 1) {
    %t = task.load @x[0 : 1] : index
  }
  task.order {
  }
}
// CHECK: a tile is a tensor, found index

// -----

// A tile is a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
  task.family @f (i = 1) {
    %t = task.load @x[0 : 1] : none
  }
  task.order {
  }
}
// CHECK: a tile is a tensor, found none

// -----

// A tile is a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
  task.family @f (i = 1) {
    %t = task.load @x[0 : 1] : () -> ()
  }
  task.order {
  }
}
// CHECK: a tile is a tensor, found () -> ()

// -----

// A tile is a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
  task.family @f (i = 1) {
    %t = task.load @x[0 : 1] : tensor<*xf32>
  }
  task.order {
  }
}
// CHECK: a tile is a tensor, found tensor<*xf32>

// -----

// A streamed tile is a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
  task.family @f (i = 1) {
    %t = task.stream @x[0 : 1] : i32
  }
  task.order {
  }
}
// CHECK: a tile is a tensor, found i32

// -----

// Ids are a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
  task.family @f (i = 1) {
    %i = task.load @x[0 : 1] : tensor<1xf32>
    %t = task.gather %i, @x[0 : 4] : (i32) -> tensor<1xf32>
  }
  task.order {
  }
}
// CHECK: a tile is a tensor, found i32

// -----

// Gathered rows are a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
  task.buffer @i input : tensor<1xi32>
  task.family @f (i = 1) {
    %i = task.load @i[0 : 1] : tensor<1xi32>
    %t = task.gather %i, @x[0 : 4] : (tensor<1xi32>) -> f32
  }
  task.order {
  }
}
// CHECK: a tile is a tensor, found f32

// -----

// A stored tile is a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<4xf32>
  task.family @f (i = 1) {
    %t = task.load @x[0 : 1] : tensor<1xf32>
    task.store %t, @x[0 : 1] : f32
  }
  task.order {
  }
}
// CHECK: a tile is a tensor, found f32

// -----

// A buffer is a tensor.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : i32
  task.order {
  }
}
// CHECK: a buffer is a tensor, found i32

// -----

// A buffer stands in a program.
task.buffer @x scratch : tensor<4xf32>
// CHECK: 'task.buffer' expects parent op 'task.program' or 'queue.kernel', found 'builtin.module'

// -----

// So does a family.
task.family @f (i = 1) {
}
// CHECK: 'task.family' expects parent op 'task.program' or 'queue.kernel', found 'builtin.module'

// -----

// A norm that divides by the root of something positive.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4xf32>
  task.family @f (i = 1) {
    %x = task.load @x[0 : 1, 0 : 4] : tensor<1x4xf32>
    %w = task.load @w[0 : 4] : tensor<4xf32>
    %n = task.rms_norm %x, %w {eps = 0.0 : f64} : (tensor<1x4xf32>, tensor<4xf32>)
    task.store %n, @x[0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: eps must be finite and positive, found 0.0

// -----

// A norm that divides by the root of something positive.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<1x4xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4xf32>
  task.family @f (i = 1) {
    %x = task.load @x[0 : 1, 0 : 4] : tensor<1x4xf32>
    %w = task.load @w[0 : 4] : tensor<4xf32>
    %n = task.rms_norm %x, %w {eps = 0x7ff0000000000000 : f64} : (tensor<1x4xf32>, tensor<4xf32>)
    task.store %n, @x[0 : 1, 0 : 4] : tensor<1x4xf32>
  }
  task.order {
  }
}
// CHECK: eps must be finite and positive, found inf

// -----

// Scores that depend on queries and keys.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x1x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xf32>
  task.family @f (i = 1) {
    %q = task.load @q[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xf32>
    %o = task.attention %q, %k, %k, %q, %q {scale = 0.0 : f64} : (tensor<1x1x2x2xf32>, tensor<?x1x2x2xf32>, tensor<1x1x2x2xf32>)
    task.store %o, @q[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
  }
  task.order {
  }
}
// CHECK: scale must be finite and not zero, found 0.0

// -----

// Scores that depend on queries and keys.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x1x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xf32>
  task.family @f (i = 1) {
    %q = task.load @q[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xf32>
    %o = task.attention %q, %k, %k, %q, %q {scale = 0x7ff8000000000000 : f64} : (tensor<1x1x2x2xf32>, tensor<?x1x2x2xf32>, tensor<1x1x2x2xf32>)
    task.store %o, @q[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
  }
  task.order {
  }
}
// CHECK: scale must be finite and not zero, found nan

// -----

// Positions are counted in 32 bits.
task.program @p max_seq 9223372036854775808 tokens 1 {
  task.order {
  }
}
// CHECK: max_seq must be at most 2147483647, found 9223372036854775808

// -----

// Also in generic syntax.
"task.program"() <{sym_name = "p", max_seq = 2147483648 : i64, tokens = 1 : i64}> ({
  task.order {
  }
}) : () -> ()
// CHECK: max_seq must be at most 2147483647, found 2147483648

// -----

// A dimension is counted in 32 bits.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<2147483648xf32>
  task.order {
  }
}
// CHECK: a dimension is at most 2147483647, found 2147483648

// -----

// A buffer that no machine has.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<16777216x16777216xf32>
  task.order {
  }
}
// CHECK: at most 281474976710655 elements in all layers together, found 281474976710656

// -----

// A buffer of more dimensions than arrays have.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1xf32>
  task.order {
  }
}
// CHECK: a tensor has at most 32 dimensions, found 33

// -----

// More tasks than can be numbered.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x scratch : tensor<1xf32>
  task.family @f (i = 65536, j = 65536) {
    %x = task.load @x[0 : 1] : tensor<1xf32>
    task.store %x, @x[0 : 1] : tensor<1xf32>
  }
  task.order {
  }
}
// CHECK: a family has at most 2147483647 tasks, @f has 4294967296 or more

// -----

// A loop from and to what 32 bits hold.
task.program @p max_seq 8 tokens 1 {
  task.order {
    task.for i = 0 to 2147483648 {
    }
  }
}
// CHECK: a loop's bound must be at most 2147483647, found 2147483648

// -----

// Rows of a buffer that has none.
task.program @p max_seq 8 tokens 1 {
  task.buffer @t input : tensor<1xi32>
  task.buffer @w scratch : tensor<f32>
  task.buffer @o output : tensor<1xf32>
  task.family @f () {
    %i = task.load @t[0 : 1] : tensor<1xi32>
    %v = task.gather %i, @w[] : (tensor<1xi32>) -> tensor<1xf32>
    task.store %v, @o[0 : 1] : tensor<1xf32>
  }
  task.order {
  }
}
// CHECK: a gather takes rows of a buffer of rank 1 or more, @w is a scalar

// -----

// The rows of this step have the KV heads of the cache.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %o = task.attention %q, %k, %k, %q, %q {scale = 1.0 : f64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x2x2x2xf32>)
  }
  task.order {
  }
}
// CHECK: k_new and v_new are the rows of this step, 1x1x2x2, found 1x2x2x2

// -----

// The cache holds the rows of earlier steps: not yet that of this one.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos + 1, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %o = task.attention %q, %k, %k, %n, %n {scale = 1.0 : f64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>)
  }
  task.order {
  }
}
// CHECK: k and v are the rows of positions 0 : pos, found @k[0 : pos + 1, 0 : 1, 0 : 2, 0 : 2]

// -----

// All rows of earlier steps, from the first.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[1 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %o = task.attention %q, %k, %k, %n, %n {scale = 1.0 : f64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>)
  }
  task.order {
  }
}
// CHECK: k and v are the rows of positions 0 : pos, found @k[1 : pos, 0 : 1, 0 : 2, 0 : 2]

// -----

// A part sees the rows of earlier steps as the whole does.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos + 1, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %s, %t = task.attention_part %q, %k, %k, %n, %n {scale = 1.0 : f64, part = #amk.linear<part>, parts = 3 : i64, block = 4 : i64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>) -> tensor<1x2x2xf32>
  }
  task.order {
  }
}
// CHECK: k and v are the rows of positions 0 : pos, found @k[0 : pos + 1, 0 : 1, 0 : 2, 0 : 2]

// -----

// A part is one of the parts.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %s, %t = task.attention_part %q, %k, %k, %n, %n {scale = 1.0 : f64, part = #amk.linear<part>, parts = 2 : i64, block = 4 : i64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>) -> tensor<1x2x2xf32>
  }
  task.order {
  }
}
// CHECK: part must lie in [0, 2), found [0, 2]

// -----

// A part is one of the parts, from 0 on.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %s, %t = task.attention_part %q, %k, %k, %n, %n {scale = 1.0 : f64, part = #amk.linear<part - 1>, parts = 3 : i64, block = 4 : i64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>) -> tensor<1x2x2xf32>
  }
  task.order {
  }
}
// CHECK: part must lie in [0, 3), found [-1, 1]

// -----

// The index of a part is one of the domain.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %s, %t = task.attention_part %q, %k, %k, %n, %n {scale = 1.0 : f64, part = #amk.linear<tile>, parts = 3 : i64, block = 4 : i64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>) -> tensor<1x2x2xf32>
  }
  task.order {
  }
}
// CHECK: part uses index 'tile', which is not in the domain

// -----

// A part does not depend on the position.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %s, %t = task.attention_part %q, %k, %k, %n, %n {scale = 1.0 : f64, part = #amk.linear<pos>, parts = 3 : i64, block = 4 : i64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>) -> tensor<1x2x2xf32>
  }
  task.order {
  }
}
// CHECK: part uses index 'pos', which is not in the domain

// -----

// There is a part.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %s, %t = task.attention_part %q, %k, %k, %n, %n {scale = 1.0 : f64, part = #amk.linear<part>, parts = 0 : i64, block = 4 : i64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>) -> tensor<1x2x2xf32>
  }
  task.order {
  }
}
// CHECK: parts and block must be at least 1, found 0 and 4

// -----

// A block has a position.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %s, %t = task.attention_part %q, %k, %k, %n, %n {scale = 1.0 : f64, part = #amk.linear<part>, parts = 3 : i64, block = -2 : i64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>) -> tensor<1x2x2xf32>
  }
  task.order {
  }
}
// CHECK: parts and block must be at least 1, found 3 and -2

// -----

// Two numbers of each head of a row.
task.program @p max_seq 8 tokens 1 {
  task.buffer @q scratch : tensor<1x2x2x2xf32>
  task.buffer @k state : tensor<8x1x2x2xbf16>
  task.buffer @new scratch : tensor<1x1x2x2xf32>
  task.family @f (part = 3) {
    %q = task.load @q[0 : 1, 0 : 2, 0 : 2, 0 : 2] : tensor<1x2x2x2xf32>
    %n = task.load @new[0 : 1, 0 : 1, 0 : 2, 0 : 2] : tensor<1x1x2x2xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 2] : tensor<?x1x2x2xbf16>
    %s, %t = task.attention_part %q, %k, %k, %n, %n {scale = 1.0 : f64, part = #amk.linear<part>, parts = 3 : i64, block = 4 : i64} : (tensor<1x2x2x2xf32>, tensor<?x1x2x2xbf16>, tensor<1x1x2x2xf32>) -> tensor<1x2x3xf32>
  }
  task.order {
  }
}
// CHECK: the second result of attention_part is 1x2x2, found 1x2x3

// -----

// As many statistics as sums.
task.program @p max_seq 8 tokens 1 {
  task.buffer @sums scratch : tensor<3x1x2x2x4xf32>
  task.buffer @stats scratch : tensor<2x1x2x2xf32>
  task.family @f () {
    %sums = task.load @sums[0 : 3, 0 : 1, 0 : 2, 0 : 2, 0 : 4] : tensor<3x1x2x2x4xf32>
    %stats = task.load @stats[0 : 2, 0 : 1, 0 : 2, 0 : 2] : tensor<2x1x2x2xf32>
    %o = task.attention_merge %sums, %stats : (tensor<3x1x2x2x4xf32>, tensor<2x1x2x2xf32>) -> tensor<1x2x2x4xf32>
  }
  task.order {
  }
}
// CHECK: attention_merge takes [parts, T, heads, 2, half] and [parts, T, heads, 2] to [T, heads, 2, half], found 3x1x2x2x4 and 2x1x2x2 to 1x2x2x4

// -----

// The heads of all parts are the heads of the result.
task.program @p max_seq 8 tokens 1 {
  task.buffer @sums scratch : tensor<3x1x2x2x4xf32>
  task.buffer @stats scratch : tensor<3x1x2x2xf32>
  task.family @f () {
    %sums = task.load @sums[0 : 3, 0 : 1, 0 : 2, 0 : 2, 0 : 4] : tensor<3x1x2x2x4xf32>
    %stats = task.load @stats[0 : 3, 0 : 1, 0 : 2, 0 : 2] : tensor<3x1x2x2xf32>
    %o = task.attention_merge %sums, %stats : (tensor<3x1x2x2x4xf32>, tensor<3x1x2x2xf32>) -> tensor<1x1x2x4xf32>
  }
  task.order {
  }
}
// CHECK: attention_merge takes [parts, T, heads, 2, half] and [parts, T, heads, 2] to [T, heads, 2, half], found 3x1x2x2x4 and 3x1x2x2 to 1x1x2x4

// -----

// Parts of rows, not of one row.
task.program @p max_seq 8 tokens 1 {
  task.buffer @sums scratch : tensor<3x2x2x4xf32>
  task.buffer @stats scratch : tensor<3x2x2x2xf32>
  task.family @f () {
    %sums = task.load @sums[0 : 3, 0 : 2, 0 : 2, 0 : 4] : tensor<3x2x2x4xf32>
    %stats = task.load @stats[0 : 3, 0 : 2, 0 : 2, 0 : 2] : tensor<3x2x2x2xf32>
    %o = task.attention_merge %sums, %stats : (tensor<3x2x2x4xf32>, tensor<3x2x2x2xf32>) -> tensor<2x2x4xf32>
  }
  task.order {
  }
}
// CHECK: attention_merge takes [parts, T, heads, 2, half] and [parts, T, heads, 2] to [T, heads, 2, half], found 3x2x2x4 and 3x2x2x2 to 2x2x4

// -----

// The parts are the second dimension.
task.program @p max_seq 8 tokens 1 {
  task.buffer @p scratch : tensor<1x3x8xf32>
  task.family @f () {
    %p = task.load @p[0 : 1, 0 : 3, 0 : 8] : tensor<1x3x8xf32>
    %y = task.sum_parts %p : tensor<1x3x8xf32> -> tensor<1x3xf32>
  }
  task.order {
  }
}
// CHECK: sum_parts takes [T, parts, *n] to [T, *n], found 1x3x8 to 1x3

// -----

// Rope frequencies are half a head.
task.program @p max_seq 8 tokens 1 {
  task.buffer @f weight from #amk.rope_frequencies<head_dim = 8, theta = 1.0> : tensor<8xf32>
  task.order {
  }
}
// CHECK: rope frequencies of head_dim 8 are 4 elements, found tensor<8xf32>

// -----

// Calls are ordered, and are no part of a task.
task.program @p max_seq 8 tokens 1 {
  task.family @f () {
    task.call @f[]
  }
  task.order {
    task.call @f[]
  }
}
// CHECK: expects parent op 'task.order' or 'task.for', found 'task.family'
