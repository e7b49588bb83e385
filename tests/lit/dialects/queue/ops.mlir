// RUN: ROUNDTRIP
// RUN: GENERIC

// Every op of the dialect in the compact form: both placements, all and threshold waits, phases, loops, two programs.
queue.kernel @compact target "sm_90a" sms 4 max_seq 16 tokens 1 ring #amk.ring<stages = 4, bytes = 1024, in_flight = 2> {
  task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xbf16>
  task.buffer @x scratch tagged : tensor<3x1x8xf32>
  task.family @start () {
    %x = task.load @x[1, 0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %x, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @linear (layer = 2, tile = 4) {
    %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[layer, tile*2 : 2, 0 : 8] : tensor<2x8xbf16>
    %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x8xbf16>) -> tensor<1x2xf32>
    task.store %y, @x[layer + 1, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  queue.counter @x_done[3]
  queue.program sms 0 to 3 stream {
    task.for layer = 0 to 2 {
      queue.fetch @linear[layer] on cyclic layer*4 + 1
    }
  } body {
    queue.phase {
      queue.run @start[] on cyclic 0
      queue.signal @x_done[0]
    }
    task.for layer = 0 to 2 {
      queue.phase {
        queue.wait @x_done[layer] all
        queue.run @linear[layer] on blocked layer*4 + 1
        queue.signal @x_done[layer + 1]
      }
    }
  }
  queue.program sms 3 to 4 stream {
  } body {
    queue.wait @x_done[1] >= 2
    task.for layer = 1 to 3 {
      queue.wait @x_done[layer - 1] >= layer
    }
  }
}

// CHECK: builtin.module {
// CHECK-NEXT:   queue.kernel @compact target "sm_90a" sms 4 max_seq 16 tokens 1 ring #amk.ring<stages = 4, bytes = 1024, in_flight = 2> {
// CHECK-NEXT:     task.buffer @w weight from #amk.checkpoint<"l.{layer}.w"> : tensor<2x8x8xbf16>
// CHECK-NEXT:     task.buffer @x scratch tagged : tensor<3x1x8xf32>
// CHECK-NEXT:     task.family @start () {
// CHECK-NEXT:       %x = task.load @x[1, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       task.store %x, @x[0, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @linear (layer = 2, tile = 4) {
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[layer, tile*2 : 2, 0 : 8] : tensor<2x8xbf16>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x8xbf16>) -> tensor<1x2xf32>
// CHECK-NEXT:       task.store %y, @x[layer + 1, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.counter @x_done[3]
// CHECK-NEXT:     queue.program sms 0 to 3 stream {
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         queue.fetch @linear[layer] on cyclic layer*4 + 1
// CHECK-NEXT:       }
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @start[] on cyclic 0
// CHECK-NEXT:         queue.signal @x_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.wait @x_done[layer] all
// CHECK-NEXT:           queue.run @linear[layer] on blocked layer*4 + 1
// CHECK-NEXT:           queue.signal @x_done[layer + 1]
// CHECK-NEXT:         }
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.program sms 3 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.wait @x_done[1] >= 2
// CHECK-NEXT:       task.for layer = 1 to 3 {
// CHECK-NEXT:         queue.wait @x_done[layer - 1] >= layer
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// The generic form of each op.
// CHECK-GENERIC: "queue.kernel"() <{sym_name = "compact", target = "sm_90a", sms = 4 : i64, max_seq = 16 : i64, tokens = 1 : i64, ring = #amk.ring<stages = 4, bytes = 1024, in_flight = 2>}> ({
// CHECK-GENERIC: "queue.counter"() <{sym_name = "x_done", size = 3 : i64}> : () -> ()
// CHECK-GENERIC: "queue.program"() <{first = 0 : i64, last = 3 : i64}> ({
// CHECK-GENERIC: "queue.fetch"() <{family = @linear, indices = #amk.indices<[layer]>, placement = #amk.placement<cyclic layer*4 + 1>}> : () -> ()
// CHECK-GENERIC: "queue.phase"() ({
// CHECK-GENERIC: "queue.run"() <{family = @start, indices = #amk.indices<[]>, placement = #amk.placement<cyclic 0>}> : () -> ()
// CHECK-GENERIC: "queue.signal"() <{counter = @x_done, index = #amk.linear<0>}> : () -> ()
// CHECK-GENERIC: "queue.wait"() <{counter = @x_done, index = #amk.linear<layer>}> : () -> ()

// -----

// The explicit form: one program an SM, all indices bound, no placement; no ring before plan-stream.
queue.kernel @explicit target "reference" sms 2 max_seq 4 tokens 2 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x input : tensor<2x8xf32>
  task.buffer @y output : tensor<2x4xf32>
  task.family @linear (tile = 2) {
    %x = task.load @x[0 : 2, 0 : 8] : tensor<2x8xf32>
    %w = task.stream @w[tile*2 : 2, 0 : 8] : tensor<2x8xf32>
    %y = task.matmul %x, %w : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x2xf32>
    task.store %y, @y[0 : 2, tile*2 : 2] : tensor<2x2xf32>
  }
  queue.program sms 0 to 1 stream {
    queue.fetch @linear[0]
  } body {
    queue.run @linear[0]
  }
  queue.program sms 1 to 2 stream {
    queue.fetch @linear[1]
  } body {
    queue.run @linear[1]
  }
}

// CHECK: builtin.module {
// CHECK-NEXT:   queue.kernel @explicit target "reference" sms 2 max_seq 4 tokens 2 {
// CHECK-NEXT:     task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
// CHECK-NEXT:     task.buffer @x input : tensor<2x8xf32>
// CHECK-NEXT:     task.buffer @y output : tensor<2x4xf32>
// CHECK-NEXT:     task.family @linear (tile = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:       %w = task.stream @w[tile*2 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:       %y = task.matmul %x, %w : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x2xf32>
// CHECK-NEXT:       task.store %y, @y[0 : 2, tile*2 : 2] : tensor<2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.program sms 0 to 1 stream {
// CHECK-NEXT:       queue.fetch @linear[0]
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.run @linear[0]
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.program sms 1 to 2 stream {
// CHECK-NEXT:       queue.fetch @linear[1]
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.run @linear[1]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
