// RUN: amk-opt %s --split-input-file --verify-diagnostics -p insert-missing-sync | filecheck %s

// A wait for more signals than there are.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @put (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @get (i = 2) {
    %v = task.load @a[0 : 4] : tensor<4xf32>
    %o = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %o, @out[i*2 : 2] : tensor<2xf32>
  }
  queue.counter @c[1]
  queue.program sms 0 to 1 stream {} body {
    queue.run @put[0]
    queue.signal @c[0]
    queue.run @put[1]
    queue.run @get[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.wait @c[0] >= 2
    queue.run @get[1]
  }
}

// CHECK: insert-missing-sync: kernel @k: waits mend races, not deadlock
// CHECK-NEXT: schedule @k is rejected
// CHECK-NEXT: deadlock: SM 1 waits for ever: a step has only 1 signal of @c[0]; 1 of 2 SMs never finish

// -----

// A task that runs twice.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @put (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @get (i = 2) {
    %v = task.load @a[0 : 4] : tensor<4xf32>
    %o = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %o, @out[i*2 : 2] : tensor<2xf32>
  }
  queue.program sms 0 to 1 stream {} body {
    queue.run @put[0]
    queue.run @put[1]
    queue.run @get[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @put[1]
    queue.run @get[1]
  }
}

// CHECK: insert-missing-sync: kernel @k: waits mend races, not tasks
// CHECK-NEXT: schedule @k is rejected
// CHECK-NEXT: tasks: task @put[1] runs more than once in a step: SM 0, event 1 and SM 1, event 0

// -----

// Half of @a is never written; the race for the other half does not hide it.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @put () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @a[0 : 2] : tensor<2xf32>
  }
  task.family @get (i = 2) {
    %v = task.load @a[0 : 4] : tensor<4xf32>
    %o = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %o, @out[i*2 : 2] : tensor<2xf32>
  }
  queue.program sms 0 to 1 stream {} body {
    queue.run @put[]
    queue.run @get[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @get[1]
  }
}

// CHECK: insert-missing-sync: kernel @k: with all missing waits added it still has coverage
// CHECK-NEXT: schedule @k is rejected
// CHECK-NEXT: coverage: task @get[0] (SM 0, event 1) reads @a[0 : 4], but @a[2 : 2] is not written before in this step

// -----

// The read stands before the write on the same SM.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @put (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @get (i = 2) {
    %v = task.load @a[0 : 4] : tensor<4xf32>
    %o = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %o, @out[i*2 : 2] : tensor<2xf32>
  }
  queue.program sms 0 to 1 stream {} body {
    queue.run @get[0]
    queue.run @put[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @put[1]
    queue.run @get[1]
  }
}

// CHECK: insert-missing-sync: kernel @k: in every order of execution some task reads before the write, or streams after it: move tasks
// CHECK-NEXT: schedule @k is rejected
// CHECK-NEXT: race: task @put[0] (SM 0, event 1) writes @a[0 : 2], task @get[0] (SM 0, event 0) reads @a[0 : 4], and the read comes first

// -----

// Two SMs would have to wait for each other: SM 0 reads before it writes what SM 1 reads before it writes.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @put (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @get (i = 2) {
    %v = task.load @a[i*-2 + 2 : 2] : tensor<2xf32>
    task.store %v, @out[i*2 : 2] : tensor<2xf32>
  }
  queue.program sms 0 to 1 stream {} body {
    queue.run @get[0]
    queue.run @put[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @get[1]
    queue.run @put[1]
  }
}

// CHECK: insert-missing-sync: kernel @k: in every order of execution some task reads before the write, or streams after it: move tasks
// CHECK-NEXT: schedule @k is rejected
// CHECK-NEXT: race: task @put[0] (SM 0, event 1) writes @a[0 : 2], task @get[1] (SM 1, event 0) reads @a[0 : 2], and nothing makes the reader see the write

// -----

// A task that overwrites what it writes.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<2xf32>
  task.buffer @s state : tensor<4xf32>
  task.buffer @out output : tensor<2xf32>
  task.family @f () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @s[0 : 2] : tensor<2xf32>
    task.store %v, @s[1 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }
  queue.program sms 0 to 1 stream {} body {
    queue.run @f[]
  }
  queue.program sms 1 to 2 stream {} body {
  }
}

// CHECK: insert-missing-sync: kernel @k: with all missing waits added it still has race
// CHECK-NEXT: schedule @k is rejected
// CHECK-NEXT: race: task @f[] (SM 0, event 0) writes @s[0 : 2] and itself writes @s[1 : 2]

// -----

// Tasks of one run: no place in the compact form is between them.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<1xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<1xf32>
  task.family @put () {
    %v = task.load @in[0 : 1] : tensor<1xf32>
    task.store %v, @a[0 : 1] : tensor<1xf32>
  }
  task.family @pass (i = 3) {
    %v = task.load @a[i : 1] : tensor<1xf32>
    task.store %v, @a[i + 1 : 1] : tensor<1xf32>
  }
  task.family @get () {
    %v = task.load @a[3 : 1] : tensor<1xf32>
    task.store %v, @out[0 : 1] : tensor<1xf32>
  }
  queue.program sms 0 to 2 stream {} body {
    queue.phase {
      queue.run @put[] on cyclic 0
    }
    queue.phase {
      queue.run @pass[] on cyclic 1
    }
    queue.phase {
      queue.run @get[] on cyclic 0
    }
  }
}

// CHECK: insert-missing-sync: kernel @k: its races are not between whole phases at a constant distance of iterations, so no wait in its loops and phases mends them; run expand-queues first
// CHECK-NEXT: schedule @k is rejected
// CHECK-NEXT: race: task @put[] (SM 0, event 0) writes @a[0 : 1], task @pass[0] (SM 1, event 0) reads @a[0 : 1], and nothing makes the reader see the write
