// RUN: amk-opt %s --split-input-file --verify-diagnostics -p insert-sync | filecheck %s

// Synchronised already.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @f () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @g () {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  queue.counter @c[1]
  queue.program sms 0 to 3 stream {
  } body {
    queue.phase {
      queue.run @f[] on cyclic 0
    }
    queue.phase {
      queue.run @g[] on cyclic 1
    }
  }
}
// CHECK: insert-sync: kernel @k has counters already

// -----

// More than one program.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @f () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @g () {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  queue.program sms 0 to 3 stream {
  } body {
    queue.phase {
      queue.run @f[] on cyclic 0
    }
    queue.phase {
      queue.run @g[] on cyclic 1
    }
  }
  queue.program sms 3 to 4 stream {
  } body {
  }
}
// CHECK: insert-sync: kernel @k has 2 programs, expected one for all SMs, as place-tasks makes it

// -----

// A run outside of a phase has nowhere to signal.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @f () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @g () {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  queue.program sms 0 to 3 stream {
  } body {
    queue.run @f[] on cyclic 0
    queue.phase {
      queue.run @g[] on cyclic 1
    }
  }
}
// CHECK: insert-sync: expected phases of runs only, as place-tasks makes them, found 'queue.run'

// -----

// Two dependent families in one phase.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @f () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @g () {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  queue.program sms 0 to 3 stream {
  } body {
    queue.phase {
      queue.run @f[] on cyclic 0
      queue.run @g[] on cyclic 1
    }
  }
}
// CHECK: insert-sync: @f and @g share a phase but depend on each other; put them into two phases

// -----

// Scratch that is read before it is written.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @f () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @g () {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  queue.program sms 0 to 3 stream {
  } body {
    queue.phase {
      queue.run @g[] on cyclic 1
    }
    queue.phase {
      queue.run @f[] on cyclic 0
    }
  }
}
// CHECK: insert-sync: @a is read by @g before anything writes what it reads

// -----

// Scratch that nothing writes.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @f () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @g () {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  queue.program sms 0 to 3 stream {
  } body {
    queue.phase {
      queue.run @g[] on cyclic 1
    }
  }
}
// CHECK: insert-sync: @a is read but never written

// -----

// A loop that mirrors a buffer onto itself: what an iteration depends on is at no constant distance.
queue.kernel @k target "sm_90a" sms 4 max_seq 8 tokens 1 {
  task.buffer @x state : tensor<8x10xf32>
  task.family @f (i = 8) {
    %v = task.load @x[i, 0 : 10] : tensor<10xf32>
    task.store %v, @x[-i + 7, 0 : 10] : tensor<10xf32>
  }
  queue.program sms 0 to 4 stream {
  } body {
    task.for i = 0 to 8 {
      queue.phase {
        queue.run @f[i] on cyclic 0
      }
    }
  }
}
// CHECK: insert-sync: the dependence of @f on @f is not between iterations of one loop at a constant distance; give the buffer a leading loop dimension
