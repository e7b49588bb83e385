// RUN: amk-opt %s --split-input-file -p cse,dce,canonicalize,cse | filecheck %s

// Events are neither merged nor removed, though they look alike and have no results.
queue.kernel @k target "sm_90a" sms 2 max_seq 4 tokens 1 {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<4x8xf32>
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @y state : tensor<1x2xf32>
  task.buffer @z output : tensor<1x2xf32>
  // Loads that nothing changes between are merged and unused ones removed; streams and stores stay.
  task.family @f (tile = 2) {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %again = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %unused = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.stream @w[tile*2 : 2, 0 : 8] : tensor<2x8xf32>
    %same = task.stream @w[tile*2 : 2, 0 : 8] : tensor<2x8xf32>
    %ignored = task.stream @w[tile*2 : 2, 0 : 8] : tensor<2x8xf32>
    %a = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x8xf32>) -> tensor<1x2xf32>
    %b = task.matmul %again, %same : (tensor<1x8xf32>, tensor<2x8xf32>) -> tensor<1x2xf32>
    %s = task.add %a, %b : tensor<1x2xf32>
    %t = task.add %a, %b : tensor<1x2xf32>
    %dead = task.silu_mul %s, %t : tensor<1x2xf32>
    %p = task.load @y[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %s, @y[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %s, @y[0 : 1, 0 : 2] : tensor<1x2xf32>
    %q = task.load @y[0 : 1, 0 : 2] : tensor<1x2xf32>
    %u = task.add %p, %q : tensor<1x2xf32>
    task.store %u, @z[0 : 1, 0 : 2] : tensor<1x2xf32>
    task.store %t, @z[0 : 1, 0 : 2] : tensor<1x2xf32>
  }
  queue.counter @c[1]
  queue.program sms 0 to 1 stream {
    queue.fetch @f[0]
    queue.fetch @f[0]
  } body {
    queue.run @f[0]
    queue.run @f[0]
    queue.signal @c[0]
    queue.signal @c[0]
  }
  queue.program sms 1 to 2 stream {
    task.for i = 0 to 1 {
      queue.fetch @f[1]
    }
  } body {
    queue.wait @c[0] all
    queue.wait @c[0] all
    queue.wait @c[0] >= 1
    task.for i = 0 to 1 {
      queue.phase {
        queue.run @f[1]
        queue.signal @c[0]
        queue.signal @c[0]
      }
    }
  }
}

// CHECK: task.family @f (tile = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
// CHECK-NEXT:       %w = task.stream @w[tile*2 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:       %same = task.stream @w[tile*2 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:       %ignored = task.stream @w[tile*2 : 2, 0 : 8] : tensor<2x8xf32>
// CHECK-NEXT:       %a = task.matmul %x, %w : (tensor<1x8xf32>, tensor<2x8xf32>) -> tensor<1x2xf32>
// CHECK-NEXT:       %b = task.matmul %x, %same : (tensor<1x8xf32>, tensor<2x8xf32>) -> tensor<1x2xf32>
// CHECK-NEXT:       %s = task.add %a, %b : tensor<1x2xf32>
// CHECK-NEXT:       %p = task.load @y[0 : 1, 0 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %s, @y[0 : 1, 0 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %s, @y[0 : 1, 0 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       %q = task.load @y[0 : 1, 0 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       %u = task.add %p, %q : tensor<1x2xf32>
// CHECK-NEXT:       task.store %u, @z[0 : 1, 0 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %s, @z[0 : 1, 0 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.counter @c[1]
// CHECK-NEXT:     queue.program sms 0 to 1 stream {
// CHECK-NEXT:       queue.fetch @f[0]
// CHECK-NEXT:       queue.fetch @f[0]
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.run @f[0]
// CHECK-NEXT:       queue.run @f[0]
// CHECK-NEXT:       queue.signal @c[0]
// CHECK-NEXT:       queue.signal @c[0]
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.program sms 1 to 2 stream {
// CHECK-NEXT:       task.for i = 0 to 1 {
// CHECK-NEXT:         queue.fetch @f[1]
// CHECK-NEXT:       }
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.wait @c[0] all
// CHECK-NEXT:       queue.wait @c[0] all
// CHECK-NEXT:       queue.wait @c[0] >= 1
// CHECK-NEXT:       task.for i = 0 to 1 {
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @f[1]
// CHECK-NEXT:           queue.signal @c[0]
// CHECK-NEXT:           queue.signal @c[0]
// CHECK-NEXT:         }
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Calls are events too.
task.program @p max_seq 4 tokens 1 {
  task.buffer @x state : tensor<4xf32>
  task.family @f () {
    %x = task.load @x[0 : 4] : tensor<4xf32>
    task.store %x, @x[0 : 4] : tensor<4xf32>
  }
  task.order {
    task.call @f[]
    task.call @f[]
    task.for i = 0 to 2 {
      task.call @f[]
    }
  }
}

// CHECK: task.family @f () {
// CHECK-NEXT:       %x = task.load @x[0 : 4] : tensor<4xf32>
// CHECK-NEXT:       task.store %x, @x[0 : 4] : tensor<4xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @f[]
// CHECK-NEXT:       task.call @f[]
// CHECK-NEXT:       task.for i = 0 to 2 {
// CHECK-NEXT:         task.call @f[]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Appends outlive the step: they stay, even when nothing reads them. What else is unused goes.
graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @w from #amk.checkpoint<"w"> : tensor<2x4x4xf32>
  graph.weight @l layers 2 from #amk.checkpoint<"l.{layer}"> : tensor<2x4x4xf32>
  graph.cache @c : tensor<8x2x4xf32>
  graph.cache @d layers 2 : tensor<8x2x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %again = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %unused = graph.add %x, %again : tensor<1x4xf32>
    %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
    %a = graph.cache_append %q, @c at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
    %b = graph.cache_append %q, @c at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
    %y = graph.layers 2 (%h = %again) : tensor<1x4xf32> {
      %k = graph.linear %h, @l : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
      %e = graph.cache_append %k, @d at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
      graph.yield %h : tensor<1x4xf32>
    }
    %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}

// CHECK: graph.step (%token: tensor<1xi32>, %pos: index) {
// CHECK-NEXT:       %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
// CHECK-NEXT:       %q = graph.linear %x, @w : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
// CHECK-NEXT:       %a = graph.cache_append %q, @c at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
// CHECK-NEXT:       %b = graph.cache_append %q, @c at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
// CHECK-NEXT:       %y = graph.layers 2 (%h = %x) : tensor<1x4xf32> {
// CHECK-NEXT:         %k = graph.linear %x, @l : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
// CHECK-NEXT:         %e = graph.cache_append %k, @d at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
// CHECK-NEXT:         graph.yield %h : tensor<1x4xf32>
// CHECK-NEXT:       }
// CHECK-NEXT:       %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
// CHECK-NEXT:       %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
// CHECK-NEXT:       graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
