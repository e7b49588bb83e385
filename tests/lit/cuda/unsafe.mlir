// RUN: amk-opt %s -t cuda-source --verify-diagnostics | filecheck %s
// RUN: not amk-opt %s -t cuda-source -o %t.cu
// RUN: not ls %t.cu

// A schedule that the verifier rejects has no source: here @choose does not wait for what it reads.
// CHECK: schedule @linear is rejected
// CHECK: race
// CHECK-NOT: __global__
queue.kernel @linear target "sm_90a" sms 4 max_seq 16 tokens 1 ring #amk.ring<stages = 4, bytes = 16384, in_flight = 2> {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<40x64xbf16>
  task.buffer @bias weight from #amk.checkpoint<"b"> : tensor<40xf32>
  task.buffer @x input : tensor<1x64xf32>
  task.buffer @y output : tensor<1x40xf32>
  task.buffer @best output : tensor<1xi32>
  task.family @project (tile = 5) {
    %x = task.load @x[0 : 1, 0 : 64] : tensor<1x64xf32>
    %w = task.stream @w[tile*8 : 8, 0 : 64] : tensor<8x64xbf16>
    %y = task.matmul %x, %w : (tensor<1x64xf32>, tensor<8x64xbf16>) -> tensor<1x8xf32>
    %b = task.load @bias[tile*8 : 8] : tensor<8xf32>
    %z = task.bias_add %y, %b : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %z, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.family @choose () {
    %y = task.load @y[0 : 1, 0 : 40] : tensor<1x40xf32>
    %n = task.argmax %y : tensor<1x40xf32> -> tensor<1xi32>
    task.store %n, @best[0 : 1] : tensor<1xi32>
  }
  queue.counter @done[1]
  queue.program sms 0 to 4 stream {
    queue.fetch @project[] on cyclic 1
  } body {
    queue.phase {
      queue.run @project[] on cyclic 1
      queue.signal @done[0]
    }
    queue.phase {
      queue.run @choose[] on cyclic 0
    }
  }
}
