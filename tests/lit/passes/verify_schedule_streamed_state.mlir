// RUN: amk-opt %s --split-input-file --verify-diagnostics -p verify-schedule | filecheck %s

// Tiles of state enter the ring whatever their SM waits for: in one step, what is streamed is written after the task.

// State that is streamed, and replaced by a later task of the SM.
// CHECK: queue.kernel @k
queue.kernel @k target "reference" sms 1 max_seq 2 tokens 1 ring #amk.ring<stages = 1, bytes = 512, in_flight = 1> {
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
  queue.counter @done[1]
  queue.program sms 0 to 1 stream { queue.fetch @use[] } body {
    queue.run @use[]
    queue.run @replace[]
  }
}

// -----

// A counter makes the write come after the task that streams.
// CHECK: queue.kernel @k
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
  queue.counter @done[1]
  queue.program sms 0 to 1 stream { queue.fetch @use[] } body {
    queue.run @use[]
    queue.signal @done[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.wait @done[0] all
    queue.run @replace[]
  }
}

// -----

// A task takes its tiles before it writes.
// CHECK: queue.kernel @k
queue.kernel @k target "reference" sms 1 max_seq 2 tokens 1 ring #amk.ring<stages = 1, bytes = 512, in_flight = 1> {
  task.buffer @in input : tensor<1x2xf32>
  task.buffer @s state : tensor<1x2xf32>
  task.buffer @out output : tensor<1x2xf32>
  task.family @use () {
    %s = task.stream @s[0 : pos, 0 : 2] : tensor<?x2xf32>
    %v = task.load @in[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @out[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @s[0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  queue.counter @done[1]
  queue.program sms 0 to 1 stream { queue.fetch @use[] } body {
    queue.run @use[]
  }
}

// -----

// race: a tile of state enters the ring before the task that is first on the SM has written it, or after.
queue.kernel @k target "reference" sms 1 max_seq 2 tokens 1 ring #amk.ring<stages = 1, bytes = 512, in_flight = 1> {
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
  queue.counter @done[1]
  queue.program sms 0 to 1 stream { queue.fetch @use[] } body {
    queue.run @replace[]
    queue.run @use[]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: race: task @replace[] (SM 0, event 0) writes @s[0 : 1, 0 : 2], task @use[] (SM 0, event 1) streams @s[0 : pos, 0 : 2] at pos = 1, and nothing makes the write come after that task
// CHECK-NEXT:   in: `queue.run @replace[]`, `queue.run @use[]`
// CHECK-NEXT:   execution: the ring may load the tile at the beginning of the step, or not until SM 0 comes to task @use[]: before the write or after it, whatever is waited for
// CHECK-NEXT:   to fix: load the region instead of streaming it, or order the write after the task that streams

// -----

// race: a counter makes the task wait for the write, but not its tile.
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
  queue.counter @done[1]
  queue.program sms 0 to 1 stream {} body {
    queue.run @replace[]
    queue.signal @done[0]
  }
  queue.program sms 1 to 2 stream { queue.fetch @use[] } body {
    queue.wait @done[0] all
    queue.run @use[]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: race: task @replace[] (SM 0, event 0) writes @s[0 : 1, 0 : 2], task @use[] (SM 1, event 1) streams @s[0 : pos, 0 : 2] at pos = 1, and nothing makes the write come after that task
// CHECK-NEXT:   in: `queue.run @replace[]`, `queue.run @use[]`
// CHECK-NEXT:   execution: the ring may load the tile at the beginning of the step, or not until SM 1 comes to task @use[]: before the write or after it, whatever is waited for
// CHECK-NEXT:   to fix: load the region instead of streaming it, or order the write after the task that streams

// -----

// race: nothing orders the write and the task that streams.
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
  queue.counter @done[1]
  queue.program sms 0 to 1 stream {} body {
    queue.run @replace[]
  }
  queue.program sms 1 to 2 stream { queue.fetch @use[] } body {
    queue.run @use[]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: race: task @replace[] (SM 0, event 0) writes @s[0 : 1, 0 : 2], task @use[] (SM 1, event 0) streams @s[0 : pos, 0 : 2] at pos = 1, and nothing makes the write come after that task
// CHECK-NEXT:   in: `queue.run @replace[]`, `queue.run @use[]`
// CHECK-NEXT:   execution: the ring may load the tile at the beginning of the step, or not until SM 1 comes to task @use[]: before the write or after it, whatever is waited for
// CHECK-NEXT:   to fix: load the region instead of streaming it, or order the write after the task that streams

// -----

// coverage: of what is streamed, all was written by earlier steps. At position 0 there are none.
queue.kernel @k target "reference" sms 1 max_seq 2 tokens 1 ring #amk.ring<stages = 1, bytes = 512, in_flight = 1> {
  task.buffer @in input : tensor<1x2xf32>
  task.buffer @s state : tensor<1x2xf32>
  task.buffer @out output : tensor<1x2xf32>
  task.family @replace () {
    %v = task.load @in[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @s[0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  task.family @use () {
    %s = task.stream @s[0 : 1, 0 : 2] : tensor<1x2xf32>
    %v = task.load @in[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %v, @out[0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  queue.counter @done[1]
  queue.program sms 0 to 1 stream { queue.fetch @use[] } body {
    queue.run @use[]
    queue.run @replace[]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: coverage: task @use[] (SM 0, event 0) streams @s[0 : 1, 0 : 2], but @s[0, 0 : 2] is not certainly written by earlier steps
// CHECK-NEXT:   in: `%s = task.stream @s[0 : 1, 0 : 2] : tensor<1x2xf32>`
// CHECK-NEXT:   execution: the task reads what nobody has written
// CHECK-NEXT:   to fix: let earlier steps write @s[0, 0 : 2], or shrink the tile; load what this step writes, do not stream it
