// RUN: amk-opt %s --split-input-file -p insert-missing-sync,verify-schedule | filecheck %s

// Tiles of state enter the ring at any time before their task: what replaces a row waits for the tasks that stream it.

// The write is on the first SM, and yet it is the one that has to wait.
queue.kernel @k target "reference" sms 2 max_seq 2 tokens 1 ring #amk.ring<stages = 1, bytes = 512, in_flight = 1> {
  task.buffer @in input : tensor<1x2xf32>
  task.buffer @s state : tensor<1x2xf32>
  task.buffer @out output : tensor<1x2xf32>
  task.family @replace () {
    %v = task.load @in[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @s[0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  task.family @use () {
    %s = task.stream @s[0 : pos, 0 : 2] : tensor<?x2xf32>
    %v = task.load @in[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @out[0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  queue.program sms 0 to 1 stream {} body {
    queue.run @replace[]
  }
  queue.program sms 1 to 2 stream { queue.fetch @use[] } body {
    queue.run @use[]
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @use_done[1]
// CHECK-NEXT: queue.program sms 0 to 1 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.wait @use_done[0] all
// CHECK-NEXT: queue.run @replace[]
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 1 to 2 stream {
// CHECK-NEXT: queue.fetch @use[]
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @use[]
// CHECK-NEXT: queue.signal @use_done[0]
// CHECK-NEXT: }

// -----

// What is loaded needs the write before, what is streamed after it, on each SM for itself.
queue.kernel @k target "reference" sms 3 max_seq 2 tokens 1 ring #amk.ring<stages = 1, bytes = 512, in_flight = 1> {
  task.buffer @in input : tensor<1x2xf32>
  task.buffer @s state : tensor<1x2xf32>
  task.buffer @out output : tensor<1x4xf32>
  task.family @replace () {
    %v = task.load @in[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @s[0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  task.family @use () {
    %s = task.stream @s[0 : pos, 0 : 2] : tensor<?x2xf32>
    %v = task.load @in[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @out[0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  task.family @read () {
    %v = task.load @s[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @out[0 : 1, 2 : 2] : tensor<1x2xf32>
  }
  queue.program sms 0 to 1 stream {} body {
    queue.run @read[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @replace[]
  }
  queue.program sms 2 to 3 stream { queue.fetch @use[] } body {
    queue.run @use[]
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @use_done[1]
// CHECK-NEXT: queue.counter @replace_done[1]
// CHECK-NEXT: queue.program sms 0 to 1 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.wait @replace_done[0] all
// CHECK-NEXT: queue.run @read[]
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 1 to 2 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.wait @use_done[0] all
// CHECK-NEXT: queue.run @replace[]
// CHECK-NEXT: queue.signal @replace_done[0]
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 2 to 3 stream {
// CHECK-NEXT: queue.fetch @use[]
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @use[]
// CHECK-NEXT: queue.signal @use_done[0]
// CHECK-NEXT: }

// -----

// In the compact form, where each layer streams what the layer replaces.
queue.kernel @k target "reference" sms 2 max_seq 2 tokens 1 ring #amk.ring<stages = 1, bytes = 512, in_flight = 1> {
  task.buffer @in input : tensor<1x2xf32>
  task.buffer @s state : tensor<3x1x2xf32>
  task.buffer @out output : tensor<3x2xf32>
  task.family @replace (l = 3) {
    %v = task.load @in[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @s[l, 0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  task.family @use (l = 3) {
    %s = task.stream @s[l, 0 : pos, 0 : 2] : tensor<?x2xf32>
    %v = task.load @in[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @out[l : 1, 0 : 2] : tensor<1x2xf32>
  }
  queue.program sms 0 to 2 stream {
    task.for l = 0 to 3 {
      queue.fetch @use[l] on cyclic 1
    }
  } body {
    task.for l = 0 to 3 {
      queue.phase {
        queue.run @use[l] on cyclic 1
      }
      queue.phase {
        queue.run @replace[l] on cyclic 0
      }
    }
  }
}

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @use_done[3]
// CHECK-NEXT: queue.program sms 0 to 2 stream {
// CHECK-NEXT: task.for l = 0 to 3 {
// CHECK-NEXT: queue.fetch @use[l] on cyclic 1
// CHECK-NEXT: }
// CHECK-NEXT: } body {
// CHECK-NEXT: task.for l = 0 to 3 {
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.run @use[l] on cyclic 1
// CHECK-NEXT: queue.signal @use_done[l]
// CHECK-NEXT: }
// CHECK-NEXT: queue.phase {
// CHECK-NEXT: queue.wait @use_done[l] all
// CHECK-NEXT: queue.run @replace[l] on cyclic 0
// CHECK-NEXT: }
