// RUN: amk-opt %s -p expand-queues,insert-missing-sync,verify-schedule | filecheck %s

// Tasks of one run that depend on each other: spelled out, each has a place for waits.
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

// CHECK-LABEL: queue.kernel @k
// CHECK: queue.counter @put_done[1]
// CHECK-NEXT: queue.counter @pass_done[3]
// CHECK-NEXT: queue.program sms 0 to 1 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.run @put[]
// CHECK-NEXT: queue.signal @put_done[0]
// CHECK-NEXT: queue.wait @pass_done[0] all
// CHECK-NEXT: queue.run @pass[1]
// CHECK-NEXT: queue.signal @pass_done[1]
// CHECK-NEXT: queue.wait @pass_done[2] all
// CHECK-NEXT: queue.run @get[]
// CHECK-NEXT: }
// CHECK-NEXT: queue.program sms 1 to 2 stream {
// CHECK-NEXT: } body {
// CHECK-NEXT: queue.wait @put_done[0] all
// CHECK-NEXT: queue.run @pass[0]
// CHECK-NEXT: queue.signal @pass_done[0]
// CHECK-NEXT: queue.wait @pass_done[1] all
// CHECK-NEXT: queue.run @pass[2]
// CHECK-NEXT: queue.signal @pass_done[2]
// CHECK-NEXT: }
