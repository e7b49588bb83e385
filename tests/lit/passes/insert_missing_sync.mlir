// RUN: amk-opt %s --split-input-file -p insert-missing-sync,verify-schedule | filecheck %s

// A safe kernel comes out as it was.
queue.kernel @k target "reference" sms 1 max_seq 4 tokens 1 {
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
    queue.run @get[1]
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.program sms 0 to 1 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @put[0]
// CHECK-NEXT: queue.run @put[1]
// CHECK-NEXT: queue.run @get[0]
// CHECK-NEXT: queue.run @get[1]
// CHECK-NEXT: }

// -----

// One signal after each write serves both readers, and one wait each is enough.
queue.kernel @k target "reference" sms 3 max_seq 4 tokens 1 {
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
    queue.run @get[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @put[1]
  }
  queue.program sms 2 to 3 stream {} body {
    queue.run @get[1]
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @put_done[1]
// CHECK-NEXT: queue.program sms 0 to 1 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @put[0]
// CHECK-NEXT: queue.signal @put_done[0]
// CHECK-NEXT: queue.wait @put_done[0] all
// CHECK-NEXT: queue.run @get[0]
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 1 to 2 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @put[1]
// CHECK-NEXT: queue.signal @put_done[0]
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 2 to 3 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.wait @put_done[0] all
// CHECK-NEXT: queue.run @get[1]
// CHECK-NEXT: }

// -----

// Each @get waits for the @put of the other SM.
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
    queue.run @get[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @put[1]
    queue.run @get[1]
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @put_done[2]
// CHECK-NEXT: queue.program sms 0 to 1 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @put[0]
// CHECK-NEXT: queue.signal @put_done[1]
// CHECK-NEXT: queue.wait @put_done[0] all
// CHECK-NEXT: queue.run @get[0]
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 1 to 2 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @put[1]
// CHECK-NEXT: queue.signal @put_done[0]
// CHECK-NEXT: queue.wait @put_done[1] all
// CHECK-NEXT: queue.run @get[1]
// CHECK-NEXT: }

// -----

// There is a counter that tells of the write: only a wait is added. The wait for one of its two signals stays.
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
    queue.wait @c[0] >= 1
    queue.run @get[0]
    queue.run @get[1]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @put[1]
    queue.signal @c[0]
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @c[1]
// CHECK-NEXT: queue.program sms 0 to 1 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @put[0]
// CHECK-NEXT: queue.signal @c[0]
// CHECK-NEXT: queue.wait @c[0] >= 1
// CHECK-NEXT: queue.wait @c[0] all
// CHECK-NEXT: queue.run @get[0]
// CHECK-NEXT: queue.run @get[1]
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 1 to 2 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @put[1]
// CHECK-NEXT: queue.signal @c[0]
// CHECK-NEXT: }

// -----

// A tagged word orders the two tasks, but only a counter makes the reader see @a.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @word scratch tagged : tensor<2xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @put () {
    %v = task.load @in[0 : 4] : tensor<4xf32>
    task.store %v, @a[0 : 4] : tensor<4xf32>
  }
  task.family @tell () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @word[0 : 2] : tensor<2xf32>
  }
  task.family @hear () {
    %w = task.load @word[0 : 2] : tensor<2xf32>
    %v = task.load @a[0 : 4] : tensor<4xf32>
    task.store %v, @out[0 : 4] : tensor<4xf32>
  }
  queue.program sms 0 to 1 stream {} body {
    queue.run @put[]
    queue.run @tell[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @hear[]
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @put_done[1]
// CHECK-NEXT: queue.program sms 0 to 1 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @put[]
// CHECK-NEXT: queue.signal @put_done[0]
// CHECK-NEXT: queue.run @tell[]
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 1 to 2 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.wait @put_done[0] all
// CHECK-NEXT: queue.run @hear[]
// CHECK-NEXT: }

// -----

// Rows of earlier steps are there, the row of this step has to be seen: the write comes first, whatever SM is first.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<2xf32>
  task.buffer @cache state : tensor<4x2xf32>
  task.buffer @out output : tensor<2xf32>
  task.family @attend () {
    %all = task.load @cache[0 : pos + 1, 0 : 2] : tensor<?x2xf32>
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }
  task.family @append () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @cache[pos, 0 : 2] : tensor<2xf32>
  }
  queue.program sms 0 to 1 stream {} body {
    queue.run @attend[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @append[]
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @append_done[1]
// CHECK-NEXT: queue.program sms 0 to 1 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.wait @append_done[0] all
// CHECK-NEXT: queue.run @attend[]
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 1 to 2 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @append[]
// CHECK-NEXT: queue.signal @append_done[0]
// CHECK-NEXT: }
