// Eight rows of 8192 activations take 256 KiB, more than an SM has: the ring is planned beside segments of them.

// RUN: amk-opt %s -p 'plan-stream,verify-schedule' | filecheck %s
// CHECK: queue.kernel @k target "sm_90a" sms 2 max_seq 8 tokens 8 ring #amk.ring<stages = 8, bytes = 16384, in_flight = 3>

queue.kernel @k target "sm_90a" sms 2 max_seq 8 tokens 8 {
  task.buffer @x input : tensor<8x8192xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<16x8192xbf16>
  task.buffer @y output : tensor<8x16xf32>
  task.family @linear (tile = 2) {
    %x = task.load @x[0 : 8, 0 : 8192] : tensor<8x8192xf32>
    %w = task.stream @w[tile*8 : 8, 0 : 8192] : tensor<8x8192xbf16>
    %y = task.matmul %x, %w : (tensor<8x8192xf32>, tensor<8x8192xbf16>) -> tensor<8x8xf32>
    task.store %y, @y[0 : 8, tile*8 : 8] : tensor<8x8xf32>
  }
  queue.program sms 0 to 2 stream {
  } body {
    queue.phase {
      queue.run @linear[] on cyclic 0
    }
  }
}
