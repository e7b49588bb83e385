// RUN: amk-opt %s -p 'place-tasks{sms=2 target=sm_90a},plan-stream{stages=8 bytes=512}' | filecheck %s

// Four loads in flight where an SM streams three rings of weights or more between two hand-offs, on average; else three.

// 1,024 rows of 64 bytes on two SMs are 32 KiB in one phase, of a ring of 4 KiB.
// CHECK: queue.kernel @long
// CHECK-SAME: #amk.ring<stages = 8, bytes = 512, in_flight = 4>
task.program @long max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<1024x32xbf16>
  task.buffer @x input : tensor<1x32xf32>
  task.buffer @y output : tensor<1x1024xf32>
  task.family @f (tile = 128) {
    %x = task.load @x[0 : 1, 0 : 32] : tensor<1x32xf32>
    %w = task.stream @w[tile*8 : 8, 0 : 32] : tensor<8x32xbf16>
    %y = task.matmul %x, %w : (tensor<1x32xf32>, tensor<8x32xbf16>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @f[]
  }
}

// Eight phases, one after the other, of 10 KiB an SM in each: more than two rings, but less than three.
// CHECK: queue.kernel @short
// CHECK-SAME: #amk.ring<stages = 8, bytes = 512, in_flight = 3>
task.program @short max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<8x128x128xbf16>
  task.buffer @x input : tensor<1x128xf32>
  task.buffer @a scratch : tensor<9x1x128xf32>
  task.family @begin () {
    %x = task.load @x[0 : 1, 0 : 128] : tensor<1x128xf32>
    task.store %x, @a[0, 0 : 1, 0 : 128] : tensor<1x128xf32>
  }
  task.family @f (layer = 8, tile = 10) {
    %x = task.load @a[layer, 0 : 1, 0 : 128] : tensor<1x128xf32>
    %w = task.stream @w[layer, tile*8 : 8, 0 : 128] : tensor<8x128xbf16>
    %y = task.matmul %x, %w : (tensor<1x128xf32>, tensor<8x128xbf16>) -> tensor<1x8xf32>
    task.store %y, @a[layer + 1, 0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @begin[]
    task.for layer = 0 to 8 {
      task.call @f[layer]
    }
  }
}
