// RUN: amk-opt %s --split-input-file -p 'split-products{values=64 sms=4}' | filecheck %s
// RUN: amk-opt %s --split-input-file -p 'split-products{values=256 sms=4}' | filecheck %s --check-prefix=TWO
// RUN: amk-opt %s --split-input-file -p 'split-products{values=64 sms=3}' | filecheck %s --check-prefix=WHOLE
// RUN: amk-opt %s --split-input-file -p 'split-products{values=512 sms=4}' | filecheck %s --check-prefix=WHOLE
// RUN: amk-opt %s --split-input-file -p 'split-products{values=0 sms=4}' | filecheck %s --check-prefix=WHOLE
// RUN: amk-opt %s --split-input-file -p 'tile-tasks,split-products{values=256 sms=4}' | filecheck %s --check-prefix=TILES

// Four rows of 128 columns: of a task with at most 64 values, as many parts as divide four SMs, of whole blocks of 32 columns.
task.program @layers max_seq 64 tokens 4 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.down"> : tensor<2x12x128xbf16>
  task.buffer @x input : tensor<4x12xf32>
  task.buffer @m scratch : tensor<2x4x128xf32>
  task.buffer @y output : tensor<2x4x12xf32>
  task.buffer @a input : tensor<4x128xf32>
  task.family @fill (layer = 2) {
    %a = task.load @a[0 : 4, 0 : 128] : tensor<4x128xf32>
    task.store %a, @m[layer, 0 : 4, 0 : 128] : tensor<4x128xf32>
  }
  task.family @down (layer = 2) {
    %m = task.load @m[layer, 0 : 4, 0 : 128] : tensor<4x128xf32>
    %w = task.stream @w[layer, 0 : 12, 0 : 128] : tensor<12x128xbf16>
    %d = task.matmul %m, %w : (tensor<4x128xf32>, tensor<12x128xbf16>) -> tensor<4x12xf32>
    %x = task.load @x[0 : 4, 0 : 12] : tensor<4x12xf32>
    %h = task.add %x, %d : tensor<4x12xf32>
    task.store %h, @y[layer, 0 : 4, 0 : 12] : tensor<4x12xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
      task.call @fill[layer]
      task.call @down[layer]
    }
  }
}

// CHECK:      task.buffer @d_parts scratch : tensor<2x4x4x12xf32>
// CHECK:      task.family @down (layer = 2, k_part = 4) {
// CHECK-NEXT:   %m = task.load @m[layer, 0 : 4, k_part*32 : 32] : tensor<4x32xf32>
// CHECK-NEXT:   %w = task.stream @w[layer, 0 : 12, k_part*32 : 32] : tensor<12x32xbf16>
// CHECK-NEXT:   %d = task.matmul %m, %w : (tensor<4x32xf32>, tensor<12x32xbf16>) -> tensor<4x12xf32>
// CHECK-NEXT:   task.store %d, @d_parts[layer, 0 : 4, k_part, 0 : 12] : tensor<4x12xf32>
// CHECK-NEXT: }
// CHECK-NEXT: task.family @down_sum (layer = 2) {
// CHECK-NEXT:   %d_parts = task.load @d_parts[layer, 0 : 4, 0 : 4, 0 : 12] : tensor<4x4x12xf32>
// CHECK-NEXT:   %d = task.sum_parts %d_parts : tensor<4x4x12xf32> -> tensor<4x12xf32>
// CHECK-NEXT:   %x = task.load @x[0 : 4, 0 : 12] : tensor<4x12xf32>
// CHECK-NEXT:   %h = task.add %x, %d : tensor<4x12xf32>
// CHECK-NEXT:   task.store %h, @y[layer, 0 : 4, 0 : 12] : tensor<4x12xf32>
// CHECK-NEXT: }
// CHECK:      task.call @fill[layer]
// CHECK-NEXT: task.call @down[layer]
// CHECK-NEXT: task.call @down_sum[layer]

// The fewest parts that are small enough.
// TWO: task.family @down (layer = 2, k_part = 2) {
// TWO-NEXT: task.load @m[layer, 0 : 4, k_part*64 : 64]

// None if the rows are short enough, or 32 columns divide no part of theirs: three SMs have no 128 / 3.
// WHOLE-NOT: sum_parts

// The part is the innermost index, so that cyclic tasks of an SM have the same one; the sums are added up tile by tile. What
// the last tile has too many is zero.
// TILES:      task.buffer @d_parts scratch : tensor<2x2x4x2x8xf32>
// TILES:      task.family @down (layer = 2, tile = 2, k_part = 2) {
// TILES-NEXT:   %m = task.load @m[layer, 0 : 4, k_part*64 : 64] : tensor<4x64xf32>
// TILES-NEXT:   %w = task.stream @w[layer, tile*8 : 8 to 12, k_part*64 : 64] : tensor<8x64xbf16>
// TILES-NEXT:   %d = task.matmul %m, %w : (tensor<4x64xf32>, tensor<8x64xbf16>) -> tensor<4x8xf32>
// TILES-NEXT:   task.store %d, @d_parts[layer, tile, 0 : 4, k_part, 0 : 8] : tensor<4x8xf32>
// TILES:      task.family @down_sum (layer = 2, tile = 2) {
// TILES-NEXT:   %d_parts = task.load @d_parts[layer, tile, 0 : 4, 0 : 2, 0 : 8] : tensor<4x2x8xf32>
// TILES:        %x = task.load @x[0 : 4, tile*8 : 8 to 12] : tensor<4x8xf32>
// TILES:        task.store %h, @y[layer, 0 : 4, tile*8 : 8 to 12] : tensor<4x8xf32>

// -----

// Not of inputs, which nobody gathers. Where columns have two dimensions, parts are of the first one: whole heads.
task.program @others max_seq 64 tokens 4 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<12x128xbf16>
  task.buffer @v weight from #amk.checkpoint<"v"> : tensor<12x2x64xbf16>
  task.buffer @a input : tensor<4x128xf32>
  task.buffer @b scratch : tensor<4x2x64xf32>
  task.buffer @i input : tensor<4x2x64xf32>
  task.buffer @y output : tensor<4x12xf32>
  task.buffer @z output : tensor<4x12xf32>
  task.family @input () {
    %a = task.load @a[0 : 4, 0 : 128] : tensor<4x128xf32>
    %w = task.stream @w[0 : 12, 0 : 128] : tensor<12x128xbf16>
    %d = task.matmul %a, %w : (tensor<4x128xf32>, tensor<12x128xbf16>) -> tensor<4x12xf32>
    task.store %d, @y[0 : 4, 0 : 12] : tensor<4x12xf32>
  }
  task.family @copy () {
    %i = task.load @i[0 : 4, 0 : 2, 0 : 64] : tensor<4x2x64xf32>
    task.store %i, @b[0 : 4, 0 : 2, 0 : 64] : tensor<4x2x64xf32>
  }
  task.family @heads () {
    %b = task.load @b[0 : 4, 0 : 2, 0 : 64] : tensor<4x2x64xf32>
    %v = task.stream @v[0 : 12, 0 : 2, 0 : 64] : tensor<12x2x64xbf16>
    %d = task.matmul %b, %v : (tensor<4x2x64xf32>, tensor<12x2x64xbf16>) -> tensor<4x12xf32>
    task.store %d, @z[0 : 4, 0 : 12] : tensor<4x12xf32>
  }
  task.order {
    task.call @input[]
    task.call @copy[]
    task.call @heads[]
  }
}

// CHECK-LABEL: task.program @others
// CHECK:       task.family @input () {
// CHECK:       task.family @heads (k_part = 2) {
// CHECK-NEXT:    %b = task.load @b[0 : 4, k_part : 1, 0 : 64] : tensor<4x1x64xf32>
// CHECK-NEXT:    %v = task.stream @v[0 : 12, k_part : 1, 0 : 64] : tensor<12x1x64xbf16>
// CHECK-NEXT:    %d = task.matmul %b, %v : (tensor<4x1x64xf32>, tensor<12x1x64xbf16>) -> tensor<4x12xf32>
// CHECK-NEXT:    task.store %d, @d_parts[0 : 4, k_part, 0 : 12] : tensor<4x12xf32>
// CHECK:       task.family @heads_sum () {
// CHECK:         task.sum_parts %d_parts : tensor<4x2x12xf32> -> tensor<4x12xf32>
// CHECK:       task.call @input[]
// CHECK-NEXT:  task.call @copy[]
// CHECK-NEXT:  task.call @heads[]
// CHECK-NEXT:  task.call @heads_sum[]
