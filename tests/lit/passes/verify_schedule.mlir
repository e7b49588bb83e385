// RUN: amk-opt %s --split-input-file -p verify-schedule | filecheck %s

// Schedules that are safe. The pass changes nothing.

// Two producers, a consumer on the SM of one of them, in the explicit form.
// CHECK: queue.kernel @k
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @produce (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @consume () {
    %v = task.load @a[0 : 4] : tensor<4xf32>
    task.store %v, @out[0 : 4] : tensor<4xf32>
  }
  queue.counter @done[2]
  queue.program sms 0 to 1 stream {} body {
    queue.run @produce[0]
    queue.signal @done[0]
    queue.wait @done[0] all
    queue.run @consume[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @produce[1]
    queue.signal @done[0]
  }
}

// -----

// The same, compact.
// CHECK: queue.kernel @k
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @produce (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @consume () {
    %v = task.load @a[0 : 4] : tensor<4xf32>
    task.store %v, @out[0 : 4] : tensor<4xf32>
  }
  queue.counter @done[2]
  queue.program sms 0 to 2 stream {} body {
    queue.phase {
      queue.run @produce[] on cyclic 0
      queue.signal @done[0]
    }
    queue.phase {
      queue.wait @done[0] all
      queue.run @consume[] on cyclic 1
    }
  }
}

// -----

// Tagged words need no counter.
// CHECK: queue.kernel @k
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch tagged : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @produce (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @consume () {
    %v = task.load @a[0 : 4] : tensor<4xf32>
    task.store %v, @out[0 : 4] : tensor<4xf32>
  }
  queue.counter @done[2]
  queue.program sms 0 to 1 stream {} body {
    queue.run @produce[0]
    queue.run @consume[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @produce[1]
  }
}

// -----

// One counter rises from phase to phase: the first signal is enough for who waits for one, because the second comes later.
// CHECK: queue.kernel @k
queue.kernel @k target "reference" sms 3 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @produce (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @consume () {
    %v = task.load @a[0 : 4] : tensor<4xf32>
    task.store %v, @out[0 : 4] : tensor<4xf32>
  }
  queue.counter @done[2]
  queue.program sms 0 to 1 stream {} body {
    queue.wait @done[0] >= 2
    queue.run @consume[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @produce[0]
    queue.signal @done[0]
  }
  queue.program sms 2 to 3 stream {} body {
    queue.wait @done[0] >= 1
    queue.run @produce[1]
    queue.signal @done[0]
  }
}

// -----

// Either of two signals will do: SM 0 and SM 1 both hear of @produce[1] before they signal. Clocks cannot tell, the blocked run can.
// CHECK: queue.kernel @k
queue.kernel @k target "reference" sms 3 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @produce (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @second () {
    %v = task.load @a[2 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
    task.store %v, @out[2 : 2] : tensor<2xf32>
  }
  queue.counter @done[2]
  queue.program sms 0 to 1 stream {} body {
    queue.run @produce[0]
    queue.wait @done[0] all
    queue.signal @done[1]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @produce[1]
    queue.signal @done[0]
    queue.signal @done[1]
  }
  queue.program sms 2 to 3 stream {} body {
    queue.wait @done[1] >= 1
    queue.run @second[]
  }
}

// -----

// A KV cache: each step appends the row at pos, and reads all rows up to it.
// CHECK: queue.kernel @k
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<2xf32>
  task.buffer @cache state : tensor<4x2xf32>
  task.buffer @out output : tensor<2xf32>
  task.family @append () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @cache[pos, 0 : 2] : tensor<2xf32>
  }
  task.family @attend () {
    %all = task.load @cache[0 : pos + 1, 0 : 2] : tensor<?x2xf32>
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }
  queue.counter @done[2]
  queue.program sms 0 to 1 stream {} body {
    queue.run @append[]
    queue.signal @done[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.wait @done[0] all
    queue.run @attend[]
  }
}

