// RUN: amk-opt %s --split-input-file --verify-diagnostics | filecheck %s

// A target that does not exist.
queue.kernel @k target "sm_1" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
  }
}
// CHECK: unknown target 'sm_1', expected one of reference, sm_80

// -----

// A grid has blocks.
queue.kernel @k target "sm_90a" sms 0 max_seq 8 tokens 1 {
}
// CHECK: sms must be at least 1, found 0

// -----

// The tokens of a step fit the positions.
queue.kernel @k target "sm_90a" sms 1 max_seq 8 tokens 9 {
}
// CHECK: tokens must lie in [1, max_seq = 8], found 9

// -----

// Nothing else stands in a kernel.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  "test.op"() : () -> ()
  queue.program sms 0 to 4 stream {
  } body {
  }
}
// CHECK: a kernel holds buffers, families, counters and programs, found 'test.op'

// -----

// A program for an SM that is not there.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 5 stream {
  } body {
  }
}
// CHECK: program 0 is for SM 4, the kernel has 4

// -----

// Two programs for one SM.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
  }
  queue.program sms 3 to 4 stream {
  } body {
  }
}
// CHECK: SM 3 has two programs, 0 and 1

// -----

// A program is for some SM.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 2 to 2 stream {
  } body {
  }
}
// CHECK: a program is for SMs [first, last), found [2, 2)

// -----

// A ring cannot have more loads in flight than stages.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 ring #amk.ring<stages = 2, bytes = 512, in_flight = 3> {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
  }
}
// CHECK: a ring has 1 <= in_flight <= stages

// -----

// Stages hold whole fragment blocks.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 ring #amk.ring<stages = 2, bytes = 1000, in_flight = 1> {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
  }
}
// CHECK: ring stages hold a positive multiple of 512 bytes, found 1000

// -----

// An array of no counters.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.counter @c[0]
  queue.program sms 0 to 4 stream {
  } body {
  }
}
// CHECK: counter @c needs at least one element

// -----

// A stream only fetches.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
    queue.run @f[0] on cyclic 0
  } body {
  }
}
// CHECK: a stream holds loops and fetches, found 'queue.run'

// -----

// A body holds events, not calls.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
    task.for i = 0 to 2 {
      task.call @f[i]
    }
  }
}
// CHECK: a body holds loops, phases and events, found 'task.call'

// -----

// A phase holds no loops.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
    queue.phase {
      task.for i = 0 to 2 {
      }
    }
  }
}
// CHECK: a phase holds runs, waits and signals, found 'task.for'

// -----

// A phase without runs belongs to no SM.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.counter @c[2]
  queue.program sms 0 to 4 stream {
  } body {
    queue.phase {
      queue.signal @c[0]
    }
  }
}
// CHECK: a phase without runs never executes

// -----

// A run stands in a program.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.run @f[0] on cyclic 0
  queue.program sms 0 to 4 stream {
  } body {
  }
}
// CHECK: 'queue.run' must be in a queue.program

// -----

// A run names a family.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
    queue.run @x[] on cyclic 0
  }
}
// CHECK: 'queue.run' refers to @x, which is not a family

// -----

// A run stays in the domain.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
    task.for i = 0 to 3 {
      queue.run @f[i] on cyclic 0
    }
  }
}
// CHECK: 'queue.run' binds 'layer' of @f to [0, 2], its extent is 2

// -----

// A placement uses the loops around it.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
    queue.run @f[0] on cyclic i*2
  }
}
// CHECK: placement of 'queue.run' uses index 'i', which no loop defines

// -----

// A run of many tasks needs a placement.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
    queue.run @f[0]
  }
}
// CHECK: 'queue.run' of @f without a placement must bind all 2 indices in a program for one SM

// -----

// A run of one task without a placement is in a program of one SM.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
    queue.run @f[0, 1]
  }
}
// CHECK: 'queue.run' of @f without a placement must bind all 2 indices in a program for one SM

// -----

// A family without constant tiles has nothing to fetch.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
    queue.fetch @f[0] on cyclic 0
  } body {
  }
}
// CHECK: family @f streams nothing to fetch

// -----

// A signal names a counter.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
    queue.signal @x[0]
  }
}
// CHECK: 'queue.signal' refers to @x, which is not a counter

// -----

// A signal stays in the array.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.counter @c[2]
  queue.program sms 0 to 4 stream {
  } body {
    task.for i = 0 to 2 {
      queue.signal @c[i + 1]
    }
  }
}
// CHECK: 'queue.signal' reaches @c[1..2], it has 2 elements

// -----

// A wait uses the loops around it.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.counter @c[2]
  queue.program sms 0 to 4 stream {
  } body {
    queue.wait @c[i] all
  }
}
// CHECK: 'queue.wait' uses index 'i', which no enclosing loop defines

// -----

// A threshold uses the loops around it.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.counter @c[2]
  queue.program sms 0 to 4 stream {
  } body {
    queue.wait @c[0] >= i
  }
}
// CHECK: 'queue.wait' uses index 'i', which no enclosing loop defines

// -----

// A wait for nothing.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x scratch : tensor<2x1x8xf32>
  task.family @f (layer = 2, tile = 2) {
    %w = task.load @w[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %w, @x[layer, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.counter @c[2]
  queue.program sms 0 to 4 stream {
  } body {
    task.for i = 0 to 2 {
      queue.wait @c[0] >= i
    }
  }
}
// CHECK: a wait needs at least one signal, found >= i

// -----

// Loops that stand for more than anyone can prove.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  queue.counter @c[1]
  queue.program sms 0 to 4 stream {
  } body {
    task.for i = 0 to 2000000000 {
      queue.signal @c[0]
    }
  }
}
// CHECK: a kernel has at most 8388608 events, found at least 8000000000 in all loops and SMs

// -----

// Few events in very many turns of a loop.
queue.kernel @k target "sm_90a" sms 1 max_seq 8 tokens 1 {
  queue.counter @c[1]
  queue.program sms 0 to 1 stream {
  } body {
    task.for i = 0 to 300000 {
      queue.signal @c[0]
    }
  }
}
// CHECK: a kernel has at most 262144 ops when it is unrolled, found at least 600000

// -----

// More counters than fit, one by one and together.
queue.kernel @k target "sm_90a" sms 1 max_seq 8 tokens 1 {
  "queue.counter"() <{sym_name = "c", size = 4194305 : i64}> : () -> ()
}
// CHECK: counter @c has at most 4194304 elements, found 4194305

// -----

queue.kernel @k target "sm_90a" sms 1 max_seq 8 tokens 1 {
  queue.counter @c[4194304]
  queue.counter @d[1]
}
// CHECK: a kernel has at most 4194304 counter elements, found 4194305

// -----

// A wait for more signals than there can be.
queue.kernel @k target "sm_90a" sms 1 max_seq 8 tokens 1 {
  queue.counter @c[1]
  queue.program sms 0 to 1 stream {
  } body {
    queue.wait @c[0] >= 8388609
  }
}
// CHECK: a wait is for at most 8388608 signals, found >= 8388609

// -----

// The kernel is looked at before what is in it, which needs its properties.
"queue.kernel"() <{sym_name = "k", target = "sm_90a", sms = 1 : i64, tokens = 1 : i64}> ({
  "queue.counter"() <{sym_name = "c", size = 1 : i64}> : () -> ()
}) : () -> ()
// CHECK: property 'max_seq' expected in operation 'queue.kernel'

// -----

// Ranges of SMs that no machine counts.
"builtin.module"() ({
  "queue.kernel"() <{sym_name = "k", target = "reference", sms = 2 : i64, max_seq = 4 : i64, tokens = 1 : i64}> ({
    "task.buffer"() <{sym_name = "in", kind = #amk.buffer_kind<input>, type = tensor<4xf32>}> : () -> ()
    "task.buffer"() <{sym_name = "out", kind = #amk.buffer_kind<output>, type = tensor<4xf32>}> : () -> ()
    "task.family"() <{sym_name = "f", domain = #amk.domain<(i = 2)>}> ({
      %v = "task.load"() <{access = #amk.access<@in[i*2 : 2]>}> : () -> tensor<2xf32>
      "task.store"(%v) <{access = #amk.access<@out[i*2 : 2]>}> : (tensor<2xf32>) -> ()
    }) : () -> ()
    "queue.program"() <{first = 9223372036854775808 : i64, last = 2 : i64}> ({
    ^bb0:
    }, {
      "queue.run"() <{family = @f, indices = #amk.indices<[1]>}> : () -> ()
    }) : () -> ()
  }) : () -> ()
}) : () -> ()
// CHECK: 'queue.run' of @f without a placement must bind all 1 indices in a program for one SM
