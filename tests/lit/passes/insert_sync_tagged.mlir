// RUN: amk-opt %s --split-input-file --verify-diagnostics -p 'place-tasks{sms=4},insert-sync{handoff=tagged}' | filecheck %s

// All dependences by tags; what nothing reads is not tagged.
// CHECK: task.buffer @a scratch tagged
// CHECK-NEXT: task.buffer @b scratch tagged
// CHECK-NEXT: task.buffer @c scratch :
// CHECK-NOT: queue.counter
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @b scratch : tensor<1x10xf32>
  task.buffer @c scratch : tensor<1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @f () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @g () {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @b[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @h () {
    %a = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    %b = task.load @b[0 : 1, 0 : 10] : tensor<1x10xf32>
    %s = task.add %a, %b : tensor<1x10xf32>
    task.store %s, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.order {
    task.call @f[]
        task.call @g[]
        task.call @h[]
  }
}

// -----

// Caches cannot be tagged.
// CHECK: insert-sync: @kc (state), @vc (state) cannot be handed over by tags: only scratch f32 buffers whose words are written once; use handoff=auto
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @x scratch : tensor<3x1x10xf32>
  task.buffer @kc state : tensor<2x8x10xbf16>
  task.buffer @vc state : tensor<2x8x10xf32>
  task.buffer @a scratch : tensor<2x1x10xf32>
  task.family @first () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @x[0, 0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @append_k (layer = 2) {
    %v = task.load @x[layer, 0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @kc[layer, pos : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @append_v (layer = 2) {
    %v = task.load @x[layer, 0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @vc[layer, pos : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @attend (layer = 2) {
    %v = task.load @vc[layer, 0 : pos + 1, 0 : 10] : tensor<?x10xf32>
    %k = task.load @kc[layer, 0 : pos + 1, 0 : 10] : tensor<?x10xbf16>
    %x = task.load @x[layer, 0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %x, @x[layer + 1, 0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.order {
    task.call @first[]
        task.for layer = 0 to 2 {
          task.call @append_k[layer]
          task.call @append_v[layer]
          task.call @attend[layer]
        }
  }
}
