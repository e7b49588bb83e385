// RUN: amk-opt %s --split-input-file --verify-diagnostics -p verify-schedule | filecheck %s

// One way of being unsafe a chunk, and the whole diagnostic.

// race: the consumer does not wait.
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
    queue.run @consume[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @produce[1]
    queue.signal @done[0]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: race: task @produce[1] (SM 1, event 0) writes @a[2 : 2], task @consume[] (SM 0, event 2) reads @a[0 : 4], and nothing makes the reader see the write
// CHECK-NEXT:   in: `queue.run @produce[1]`, `queue.run @consume[]`
// CHECK-NEXT:   execution: SM 0 comes to task @consume[] while SM 1 is still before task @produce[1]: nothing that SM 0 waits for until then needs it
// CHECK-NEXT:   to fix: put `queue.wait @done[0] all` on SM 0 before task @consume[]: SM 1 signals @done[0] after the write

// -----

// race: it waits for one of two signals, which may be its own.
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
    queue.wait @done[0] >= 1
    queue.run @consume[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @produce[1]
    queue.signal @done[0]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: race: task @produce[1] (SM 1, event 0) writes @a[2 : 2], task @consume[] (SM 0, event 3) reads @a[0 : 4], and nothing makes the reader see the write
// CHECK-NEXT:   in: `queue.run @produce[1]`, `queue.run @consume[]`
// CHECK-NEXT:   execution: SM 0 comes to task @consume[] while SM 1 is still before task @produce[1]: nothing that SM 0 waits for until then needs it
// CHECK-NEXT:   to fix: raise the threshold of `queue.wait @done[0] >= 1 (of 2)` on SM 0 to 2: SM 1 signals @done[0] after the write

// -----

// race: the signal comes before the write.
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
    queue.signal @done[0]
    queue.run @produce[1]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: race: task @produce[1] (SM 1, event 1) writes @a[2 : 2], task @consume[] (SM 0, event 3) reads @a[0 : 4], and nothing makes the reader see the write
// CHECK-NEXT:   in: `queue.run @produce[1]`, `queue.run @consume[]`
// CHECK-NEXT:   execution: SM 0 comes to task @consume[] while SM 1 is still before task @produce[1]: nothing that SM 0 waits for until then needs it
// CHECK-NEXT:   to fix: signal a counter of its own on SM 1 after task @produce[1], and wait for it on SM 0 before task @consume[]

// -----

// race: the consumer comes first on its own SM.
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
    queue.run @consume[]
    queue.run @produce[0]
    queue.signal @done[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @produce[1]
    queue.signal @done[0]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: race: task @produce[0] (SM 0, event 1) writes @a[0 : 2], task @consume[] (SM 0, event 0) reads @a[0 : 4], and the read comes first
// CHECK-NEXT:   in: `queue.run @produce[0]`, `queue.run @consume[]`
// CHECK-NEXT:   execution: SM 0 executes its queue in order, task @consume[] before task @produce[0]
// CHECK-NEXT:   to fix: move task @produce[0] before task @consume[] in the queue of SM 0
// CHECK-NEXT: race: task @produce[1] (SM 1, event 0) writes @a[2 : 2], task @consume[] (SM 0, event 0) reads @a[0 : 4], and nothing makes the reader see the write
// CHECK-NEXT:   in: `queue.run @produce[1]`, `queue.run @consume[]`
// CHECK-NEXT:   execution: SM 0 comes to task @consume[] while SM 1 is still before task @produce[1]: nothing that SM 0 waits for until then needs it
// CHECK-NEXT:   to fix: signal a counter of its own on SM 1 after task @produce[1], and wait for it on SM 0 before task @consume[]

// -----

// race: tagged words of @a order @consume after @side, but do not show it what @side wrote to @b.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch tagged : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.buffer @b scratch : tensor<2xf32>
  task.family @produce (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @side () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @b[0 : 2] : tensor<2xf32>
  }
  task.family @consume () {
    %b = task.load @b[0 : 2] : tensor<2xf32>
    %v = task.load @a[0 : 4] : tensor<4xf32>
    task.store %v, @out[0 : 4] : tensor<4xf32>
  }
  queue.counter @done[2]
  queue.program sms 0 to 1 stream {} body {
    queue.run @produce[0]
    queue.run @consume[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @side[]
    queue.run @produce[1]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: race: task @side[] (SM 1, event 0) writes @b[0 : 2], task @consume[] (SM 0, event 1) reads @b[0 : 2], and nothing makes the reader see the write
// CHECK-NEXT:   in: `queue.run @side[]`, `queue.run @consume[]`
// CHECK-NEXT:   execution: SM 0 runs task @consume[] after task @side[], but only tagged words see to that: they make themselves visible, not what the same SM wrote to other buffers
// CHECK-NEXT:   to fix: signal a counter of its own on SM 1 after task @side[], and wait for it on SM 0 before task @consume[]

// -----

// race: the cache is read while its row is appended.
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
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @attend[]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: race: task @append[] (SM 0, event 0) writes @cache[pos, 0 : 2] at pos = 0, task @attend[] (SM 1, event 0) reads @cache[0 : pos + 1, 0 : 2] at pos = 0, and nothing makes the reader see the write
// CHECK-NEXT:   in: `queue.run @append[]`, `queue.run @attend[]`
// CHECK-NEXT:   execution: SM 1 comes to task @attend[] while SM 0 is still before task @append[]: nothing that SM 1 waits for until then needs it
// CHECK-NEXT:   to fix: signal a counter of its own on SM 0 after task @append[], and wait for it on SM 1 before task @attend[]

// -----

// coverage: the cache is read before its row is appended: an order, but the wrong one.
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
    queue.run @attend[]
    queue.run @append[]
  }
  queue.program sms 1 to 2 stream {} body {

  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: coverage: task @attend[] (SM 0, event 0) reads @cache[0 : pos + 1, 0 : 2] at pos = 0, but @cache[0, 0 : 2] is not written before in this step, nor certainly by earlier steps at pos = 0
// CHECK-NEXT:   in: `%all = task.load @cache[0 : pos + 1, 0 : 2] : tensor<?x2xf32>`
// CHECK-NEXT:   execution: the task reads what nobody has written
// CHECK-NEXT:   to fix: let a task write @cache[0, 0 : 2] before, or shrink the load

// -----

// coverage: a step appends half of its row, so no row is ever whole.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<2xf32>
  task.buffer @cache state : tensor<4x2xf32>
  task.buffer @out output : tensor<2xf32>
  task.family @append () {
    %v = task.load @in[0 : 1] : tensor<1xf32>
    task.store %v, @cache[pos, 0 : 1] : tensor<1xf32>
  }
  task.family @attend () {
    %all = task.load @cache[0 : pos + 1, 0 : 2] : tensor<?x2xf32>
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }
  queue.counter @done[2]
  queue.program sms 0 to 1 stream {} body {
    queue.run @append[]
    queue.run @attend[]
  }
  queue.program sms 1 to 2 stream {} body {

  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: coverage: task @attend[] (SM 0, event 1) reads @cache[0 : pos + 1, 0 : 2] at pos = 0, but @cache[0, 1] is not written before in this step, nor certainly by earlier steps at pos = 0
// CHECK-NEXT:   in: `%all = task.load @cache[0 : pos + 1, 0 : 2] : tensor<?x2xf32>`
// CHECK-NEXT:   execution: the task reads what nobody has written
// CHECK-NEXT:   to fix: let a task write @cache[0, 1] before, or shrink the load

// -----

// coverage: a hole between two tiles.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @produce (i = 2) {
    %v = task.load @in[i*2 : 1] : tensor<1xf32>
    task.store %v, @a[i*3 : 1] : tensor<1xf32>
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

// CHECK: schedule @k is rejected
// CHECK-NEXT: coverage: task @consume[] (SM 0, event 3) reads @a[0 : 4], but @a[1 : 2] is not written before in this step
// CHECK-NEXT:   in: `%v = task.load @a[0 : 4] : tensor<4xf32>`
// CHECK-NEXT:   execution: the task reads what nobody has written
// CHECK-NEXT:   to fix: let a task write @a[1 : 2] before, or shrink the load

// -----

// coverage: an output that is not complete.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<4xf32>
  task.family @produce (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @consume () {
    %v = task.load @a[0 : 2] : tensor<2xf32>
    task.store %v, @out[1 : 2] : tensor<2xf32>
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

// CHECK: schedule @k is rejected
// CHECK-NEXT: coverage: no task writes @out[0] of the output @out (2 such places were found, this is the first)
// CHECK-NEXT:   in: `task.buffer @out output : tensor<4xf32>`
// CHECK-NEXT:   execution: the host reads what an earlier step left there
// CHECK-NEXT:   to fix: let the stores to @out cover all of it

// -----

// written-once: overlapping tiles.
queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<3xf32>
  task.family @produce (i = 2) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i : 2] : tensor<2xf32>
  }
  task.family @consume () {
    %v = task.load @a[0 : 3] : tensor<3xf32>
    task.store %v, @out[0 : 3] : tensor<3xf32>
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

// CHECK: schedule @k is rejected
// CHECK-NEXT: written-once: tasks @produce[0] (SM 0, event 0) and @produce[1] (SM 1, event 0) both write @a[1]
// CHECK-NEXT:   in: `task.store %v, @a[i : 2] : tensor<2xf32>`
// CHECK-NEXT:   execution: what a reader sees depends on which of the two came last
// CHECK-NEXT:   to fix: shrink one of the two regions, or let one of the tasks write to a buffer of its own

// -----

// deadlock: two SMs wait for each other.
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
    queue.wait @done[1] all
    queue.run @produce[0]
    queue.signal @done[0]
    queue.run @consume[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.wait @done[0] all
    queue.run @produce[1]
    queue.signal @done[1]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: deadlock: SMs 0, 1 wait for each other in a cycle; 2 of 2 SMs never finish
// CHECK-NEXT:   in: `queue.wait @done[1] all`, `queue.wait @done[0] all`
// CHECK-NEXT:   execution: SM 0 stands at `queue.wait @done[1] >= 1 (of 1)` (event 0) with 0 signals, and misses queue.signal @done[1] (SM 1, event 2); SM 1 stands at `queue.wait @done[0] >= 1 (of 1)` (event 0) with 0 signals, and misses queue.signal @done[0] (SM 0, event 2)
// CHECK-NEXT:   to fix: move one of the missing events before the wait that holds it up, or remove that wait

// -----

// deadlock: more signals are awaited than there are.
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
    queue.wait @done[0] >= 3
    queue.run @consume[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @produce[1]
    queue.signal @done[0]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: deadlock: SM 0 waits for ever: a step has only 2 signals of @done[0]; 1 of 2 SMs never finish
// CHECK-NEXT:   in: `queue.wait @done[0] >= 3`
// CHECK-NEXT:   execution: SM 0 stands at `queue.wait @done[0] >= 3 (of 2)` (event 2) with 2 signals, but a step has only 2 signals of @done[0]
// CHECK-NEXT:   to fix: add 1 signal of @done[0], or lower the threshold to 2

// -----

// deadlock: an SM waits for what comes later in its own queue.
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
    queue.wait @done[0] all
    queue.run @produce[0]
    queue.signal @done[0]
    queue.run @consume[]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @produce[1]
    queue.signal @done[0]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: deadlock: SM 0 waits for an event that comes later in its own queue; 1 of 2 SMs never finish
// CHECK-NEXT:   in: `queue.wait @done[0] all`
// CHECK-NEXT:   execution: SM 0 stands at `queue.wait @done[0] >= 2 (of 2)` (event 0) with 1 signal, and misses queue.signal @done[0] (SM 0, event 2)
// CHECK-NEXT:   to fix: in the queue of SM 0, move queue.signal @done[0] before queue.wait @done[0] >= 2 (of 2)

// -----

// deadlock through tagged words: the consumer stands before one of its producers.
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
    queue.run @consume[]
    queue.run @produce[0]
    queue.signal @done[0]
  }
  queue.program sms 1 to 2 stream {} body {
    queue.run @produce[1]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: deadlock: SM 0 waits for an event that comes later in its own queue; 1 of 2 SMs never finish
// CHECK-NEXT:   in: `queue.run @consume[]`
// CHECK-NEXT:   execution: SM 0 stands at task @consume[] (event 0), polling the tagged words @a[0 : 4], and misses task @produce[0] (SM 0, event 1)
// CHECK-NEXT:   to fix: in the queue of SM 0, move task @produce[0] before task @consume[]

// -----

// tasks: one is in no queue, another in two.
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
    queue.run @produce[0]
    queue.signal @done[0]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: tasks: task @produce[1] never runs: no queue holds 1 of the 2 tasks of @produce
// CHECK-NEXT:   to fix: add a queue.run of @produce[1] to the body of one SM, or shrink the domain of @produce
// CHECK-NEXT: tasks: task @produce[0] runs more than once in a step: SM 0, event 0 and SM 1, event 0
// CHECK-NEXT:   in: `queue.run @produce[0]`, `queue.run @produce[0]`
// CHECK-NEXT:   to fix: delete all but one of its queue.run operations

// -----

// stream: fetched in another order than consumed.
queue.kernel @k target "reference" sms 1 max_seq 4 tokens 1 ring #amk.ring<stages = 2, bytes = 512, in_flight = 1> {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<2x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @out output : tensor<1x2xf32>
  task.family @row (i = 2) {
    %x = task.load @in[0 : 1, 0 : 4] : tensor<1x4xf32>
    %w = task.stream @w[i : 1, 0 : 4] : tensor<1x4xf32>
    %y = task.matmul %x, %w : (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<1x1xf32>
    task.store %y, @out[0 : 1, i : 1] : tensor<1x1xf32>
  }
  queue.program sms 0 to 1 stream {
    queue.fetch @row[1]
    queue.fetch @row[0]
  } body {
    queue.run @row[0]
    queue.run @row[1]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: stream: fetch 0 of SM 0 is @row[1], but its body consumes @row[0] there: tiles leave the ring in the order in which they entered it
// CHECK-NEXT:   execution: SM 0 computes with the weights of another task, or waits for a tile that never comes
// CHECK-NEXT:   to fix: make the stream of SM 0 fetch the tasks of its body that stream, in the order in which they run

// -----

// stream: a tile that is never fetched.
queue.kernel @k target "reference" sms 1 max_seq 4 tokens 1 ring #amk.ring<stages = 2, bytes = 512, in_flight = 1> {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<2x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @out output : tensor<1x2xf32>
  task.family @row (i = 2) {
    %x = task.load @in[0 : 1, 0 : 4] : tensor<1x4xf32>
    %w = task.stream @w[i : 1, 0 : 4] : tensor<1x4xf32>
    %y = task.matmul %x, %w : (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<1x1xf32>
    task.store %y, @out[0 : 1, i : 1] : tensor<1x1xf32>
  }
  queue.program sms 0 to 1 stream {
    queue.fetch @row[0]
  } body {
    queue.run @row[0]
    queue.run @row[1]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: stream: SM 0 has no fetch 1, but its body consumes @row[1] there: tiles leave the ring in the order in which they entered it
// CHECK-NEXT:   execution: SM 0 computes with the weights of another task, or waits for a tile that never comes
// CHECK-NEXT:   to fix: make the stream of SM 0 fetch the tasks of its body that stream, in the order in which they run

// -----

// stream: no ring.
queue.kernel @k target "reference" sms 1 max_seq 4 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<2x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @out output : tensor<1x2xf32>
  task.family @row (i = 2) {
    %x = task.load @in[0 : 1, 0 : 4] : tensor<1x4xf32>
    %w = task.stream @w[i : 1, 0 : 4] : tensor<1x4xf32>
    %y = task.matmul %x, %w : (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<1x1xf32>
    task.store %y, @out[0 : 1, i : 1] : tensor<1x1xf32>
  }
  queue.program sms 0 to 1 stream {
    queue.fetch @row[0]
    queue.fetch @row[1]
  } body {
    queue.run @row[0]
    queue.run @row[1]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: stream: the kernel has no weight ring, but task @row[0] takes tiles from one
// CHECK-NEXT:   to fix: run plan-stream, or give the kernel one, such as ring #amk.ring<stages = 4, bytes = 16384, in_flight = 2>

// -----

// resources: a grid that cannot be resident, and a ring that does not fit.
queue.kernel @k target "sm_90a" sms 200 max_seq 4 tokens 1 ring #amk.ring<stages = 64, bytes = 16384, in_flight = 1> {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<2x4xf32>
  task.buffer @in input : tensor<1x4xf32>
  task.buffer @out output : tensor<1x2xf32>
  task.family @row (i = 2) {
    %x = task.load @in[0 : 1, 0 : 4] : tensor<1x4xf32>
    %w = task.stream @w[i : 1, 0 : 4] : tensor<1x4xf32>
    %y = task.matmul %x, %w : (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<1x1xf32>
    task.store %y, @out[0 : 1, i : 1] : tensor<1x1xf32>
  }
  queue.program sms 0 to 1 stream {
    queue.fetch @row[0]
    queue.fetch @row[1]
  } body {
    queue.run @row[0]
    queue.run @row[1]
  }
}

// CHECK: schedule @k is rejected
// CHECK-NEXT: resources: the kernel has a block for each of 200 SMs, target sm_90a has at most 132: blocks that are not resident never signal
// CHECK-NEXT:   to fix: place the tasks on 132 SMs or fewer (place-tasks sms)
// CHECK-NEXT: resources: the ring takes 1048576 bytes and the activations of @row 16, a block of target sm_90a has 232448
// CHECK-NEXT:   to fix: use at most 14 ring stages of 16384 bytes (plan-stream)

