// RUN: amk-opt %s --split-input-file -p 'place-tasks{sms=2},plan-stream{bytes=4096}' | filecheck %s

// A stage has room for the scales of 4 KiB of codes, in multiples of 512 bytes: here eight f32, one a row.
task.program @rows max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x1024x!amk.quantized<"int8", columns = 1024>>
  task.buffer @x input : tensor<1x1024xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.family @f (tile = 2) {
    %x = task.load @x[0 : 1, 0 : 1024] : tensor<1x1024xf32>
    %w = task.stream @w[tile*8 : 8, 0 : 1024] : tensor<8x1024x!amk.quantized<"int8", columns = 1024>>
    %y = task.matmul %x, %w : (tensor<1x1024xf32>, tensor<8x1024x!amk.quantized<"int8", columns = 1024>>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @f[]
  }
}
// CHECK: queue.kernel @rows {{.*}} ring #amk.ring<stages = 12, bytes = 4608, in_flight = 3> {

// -----

// Of 1024 columns of 4-bit codes in groups of 32, eight rows have 256 scales and 256 minimums, all f32: 2 KiB.
task.program @groups max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x1024x!amk.quantized<"int4:g32:min", columns = 1024>>
  task.buffer @x input : tensor<1x1024xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.family @f (tile = 2) {
    %x = task.load @x[0 : 1, 0 : 1024] : tensor<1x1024xf32>
    %w = task.stream @w[tile*8 : 8, 0 : 1024] : tensor<8x1024x!amk.quantized<"int4:g32:min", columns = 1024>>
    %y = task.matmul %x, %w : (tensor<1x1024xf32>, tensor<8x1024x!amk.quantized<"int4:g32:min", columns = 1024>>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @f[]
  }
}
// CHECK: queue.kernel @groups {{.*}} ring #amk.ring<stages = 12, bytes = 6144, in_flight = 3> {

// -----

// Floats need none.
task.program @floats max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x1024xbf16>
  task.buffer @x input : tensor<1x1024xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.family @f (tile = 2) {
    %x = task.load @x[0 : 1, 0 : 1024] : tensor<1x1024xf32>
    %w = task.stream @w[tile*8 : 8, 0 : 1024] : tensor<8x1024xbf16>
    %y = task.matmul %x, %w : (tensor<1x1024xf32>, tensor<8x1024xbf16>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @f[]
  }
}
// CHECK: queue.kernel @floats {{.*}} ring #amk.ring<stages = 12, bytes = 4096, in_flight = 3> {
