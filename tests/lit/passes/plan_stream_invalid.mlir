// RUN: amk-opt %s --verify-diagnostics -p 'place-tasks,plan-stream{bytes=100}' | filecheck %s --check-prefix=BYTES
// RUN: amk-opt %s --verify-diagnostics -p 'place-tasks,plan-stream{stages=-1}' | filecheck %s --check-prefix=STAGES
// RUN: amk-opt %s --verify-diagnostics -p 'place-tasks,plan-stream{in-flight=-1}' | filecheck %s --check-prefix=FLIGHT
// RUN: amk-opt %s --verify-diagnostics -p 'place-tasks,plan-stream' | filecheck %s --check-prefix=ROOM
// RUN: amk-opt %s --verify-diagnostics -p 'place-tasks{target=reference},plan-stream{stages=3}' | filecheck %s --check-prefix=ANY

// Activations of 256 KiB leave no room on any GPU.
task.program @p max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x16x65536xf32>
  task.buffer @u weight from #amk.checkpoint<"l.{layer}.u"> : tensor<2x16x65536xf32>
  task.buffer @h weight from #amk.checkpoint<"h"> : tensor<16x65536xf32>
  task.buffer @x input : tensor<2x1x65536xf32>
  task.buffer @a scratch : tensor<2x1x16xf32>
  task.buffer @b scratch : tensor<2x1x16xf32>
  task.buffer @c scratch : tensor<2x1x16xf32>
  task.buffer @y output : tensor<1x16xf32>
  task.family @f (layer = 2, tile = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 65536] : tensor<1x65536xf32>
    %w = task.stream @w[layer, tile*8 : 8, 0 : 65536] : tensor<8x65536xf32>
    %y = task.matmul %x, %w : (tensor<1x65536xf32>, tensor<8x65536xf32>) -> tensor<1x8xf32>
    task.store %y, @a[layer, 0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.family @g (layer = 2, tile = 2) {
    %x = task.load @x[layer, 0 : 1, 0 : 65536] : tensor<1x65536xf32>
    %w = task.stream @u[layer, tile*8 : 8, 0 : 65536] : tensor<8x65536xf32>
    %y = task.matmul %x, %w : (tensor<1x65536xf32>, tensor<8x65536xf32>) -> tensor<1x8xf32>
    task.store %y, @b[layer, 0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.family @add (layer = 2) {
    %a = task.load @a[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
    %b = task.load @b[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
    %s = task.add %a, %b : tensor<1x16xf32>
    task.store %s, @c[layer, 0 : 1, 0 : 16] : tensor<1x16xf32>
  }
  task.family @head (tile = 2) {
    %x = task.load @x[1, 0 : 1, 0 : 65536] : tensor<1x65536xf32>
    %w = task.stream @h[tile*8 : 8, 0 : 65536] : tensor<8x65536xf32>
    %y = task.matmul %x, %w : (tensor<1x65536xf32>, tensor<8x65536xf32>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.for layer = 0 to 2 {
          task.call @f[layer]
          task.call @g[layer]
          task.call @add[layer]
        }
        task.for layer = 0 to 2 {
          task.call @add[layer]
        }
        task.call @head[]
  }
}
// BYTES: plan-stream: bytes must be a positive multiple of 512, found 100
// STAGES: plan-stream: expected stages >= 0 and in-flight >= 0, found -1 and 0
// FLIGHT: plan-stream: expected stages >= 0 and in-flight >= 0, found 0 and -1
// ROOM: plan-stream: 1 stages of 16384 bytes do not fit on sm_90a, 0 of 232448 bytes are left beside what one task holds; use smaller stages
// ANY: ring #amk.ring<stages = 3, bytes = 16384, in_flight = 3>
