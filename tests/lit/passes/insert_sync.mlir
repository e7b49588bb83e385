// RUN: amk-opt %s --split-input-file -p 'place-tasks{sms=4},insert-sync' | filecheck %s

// A residual stream through layers: all scratch float32, so that no counter is needed.
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @x scratch : tensor<3x1x10xf32>
  task.buffer @a scratch : tensor<2x1x10xf32>
  task.buffer @b scratch : tensor<2x1x10xf32>
  task.buffer @c scratch : tensor<2x1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @first (tile = 5) {
    %v = task.load @in[0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @x[0, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.family @f (layer = 2, tile = 5) {
    %v = task.load @x[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @a[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.family @h (layer = 2, tile = 5) {
    %v = task.load @a[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @c[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.family @k (layer = 2, tile = 5) {
    %v = task.load @c[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @x[layer + 1, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.family @last (tile = 5) {
    %v = task.load @x[2, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
    task.store %v, @y[0 : 1, tile*2 : 2] : tensor<1x2xf32>
  }
  task.order {
    task.call @first[]
        task.for layer = 0 to 2 {
          task.call @f[layer]
          task.call @h[layer]
          task.call @k[layer]
        }
        task.call @last[]
  }
}

// CHECK: task.buffer @x scratch tagged : tensor<3x1x10xf32>
// CHECK-NEXT:     task.buffer @a scratch tagged : tensor<2x1x10xf32>
// CHECK-NEXT:     task.buffer @b scratch : tensor<2x1x10xf32>
// CHECK-NEXT:     task.buffer @c scratch tagged : tensor<2x1x10xf32>
// CHECK-NEXT:     task.buffer @y output : tensor<1x10xf32>
// CHECK-NEXT:     task.family @first (tile = 5) {
// CHECK-NEXT:       %v = task.load @in[0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @x[0, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @f (layer = 2, tile = 5) {
// CHECK-NEXT:       %v = task.load @x[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @a[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @h (layer = 2, tile = 5) {
// CHECK-NEXT:       %v = task.load @a[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @c[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @k (layer = 2, tile = 5) {
// CHECK-NEXT:       %v = task.load @c[layer, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @x[layer + 1, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @last (tile = 5) {
// CHECK-NEXT:       %v = task.load @x[2, 0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:       task.store %v, @y[0 : 1, tile*2 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @first[] on cyclic 0
// CHECK-NEXT:       }
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @f[layer] on cyclic layer*3 + 1
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @h[layer] on cyclic layer*3 + 2
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @k[layer] on cyclic layer*3 + 3
// CHECK-NEXT:         }
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @last[] on cyclic 3
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Caches are handed over by a counter for each layer, one for both because the same phases write them; the residual by tags.
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

// CHECK: task.buffer @x scratch tagged : tensor<3x1x10xf32>
// CHECK-NEXT:     task.buffer @kc state : tensor<2x8x10xbf16>
// CHECK-NEXT:     task.buffer @vc state : tensor<2x8x10xf32>
// CHECK-NEXT:     task.buffer @a scratch : tensor<2x1x10xf32>
// CHECK-NEXT:     task.family @first () {
// CHECK-NEXT:       %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @x[0, 0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @append_k (layer = 2) {
// CHECK-NEXT:       %v = task.load @x[layer, 0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @kc[layer, pos : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @append_v (layer = 2) {
// CHECK-NEXT:       %v = task.load @x[layer, 0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @vc[layer, pos : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @attend (layer = 2) {
// CHECK-NEXT:       %v = task.load @vc[layer, 0 : pos + 1, 0 : 10] : tensor<?x10xf32>
// CHECK-NEXT:       %k = task.load @kc[layer, 0 : pos + 1, 0 : 10] : tensor<?x10xbf16>
// CHECK-NEXT:       %x = task.load @x[layer, 0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %x, @x[layer + 1, 0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.counter @kc_vc_done[2]
// CHECK-NEXT:     queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @first[] on cyclic 0
// CHECK-NEXT:       }
// CHECK-NEXT:       task.for layer = 0 to 2 {
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.run @append_k[layer] on cyclic layer*3 + 1
// CHECK-NEXT:           queue.run @append_v[layer] on cyclic layer*3 + 2
// CHECK-NEXT:           queue.signal @kc_vc_done[layer]
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.wait @kc_vc_done[layer] all
// CHECK-NEXT:           queue.run @attend[layer] on cyclic layer*3 + 3
// CHECK-NEXT:         }
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// What cannot be tagged, ids and bf16, shares a counter: the same phase writes both.
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xi32>
  task.buffer @ids scratch : tensor<1x10xi32>
  task.buffer @out output : tensor<1x10xi32>
  task.buffer @half scratch : tensor<1x10xbf16>
  task.buffer @z weight from #amk.checkpoint<"z"> : tensor<1x10xf32>
  task.family @copy () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xi32>
    task.store %v, @ids[0 : 1, 0 : 10] : tensor<1x10xi32>
    %z = task.load @z[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %z, @half[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @use () {
    %v = task.load @ids[0 : 1, 0 : 10] : tensor<1x10xi32>
    %h = task.load @half[0 : 1, 0 : 10] : tensor<1x10xbf16>
    task.store %v, @out[0 : 1, 0 : 10] : tensor<1x10xi32>
  }
  task.order {
    task.call @copy[]
        task.call @use[]
  }
}

// CHECK: task.buffer @ids scratch : tensor<1x10xi32>
// CHECK-NEXT:     task.buffer @out output : tensor<1x10xi32>
// CHECK-NEXT:     task.buffer @half scratch : tensor<1x10xbf16>
// CHECK-NEXT:     task.buffer @z weight from #amk.checkpoint<"z"> : tensor<1x10xf32>
// CHECK-NEXT:     task.family @copy () {
// CHECK-NEXT:       %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xi32>
// CHECK-NEXT:       task.store %v, @ids[0 : 1, 0 : 10] : tensor<1x10xi32>
// CHECK-NEXT:       %z = task.load @z[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %z, @half[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @use () {
// CHECK-NEXT:       %v = task.load @ids[0 : 1, 0 : 10] : tensor<1x10xi32>
// CHECK-NEXT:       %h = task.load @half[0 : 1, 0 : 10] : tensor<1x10xbf16>
// CHECK-NEXT:       task.store %v, @out[0 : 1, 0 : 10] : tensor<1x10xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.counter @ids_half_done[1]
// CHECK-NEXT:     queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @copy[] on cyclic 0
// CHECK-NEXT:         queue.signal @ids_half_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @ids_half_done[0] all
// CHECK-NEXT:         queue.run @use[] on cyclic 1
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// A buffer that is written again after it was read is not tagged: a counter for each pair of phases, without those that follow from others.
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @b scratch : tensor<1x10xf32>
  task.buffer @c scratch : tensor<1x10xf32>
  task.family @f () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @g () {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @b[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @again () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @h () {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @c[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.order {
    task.call @f[]
        task.call @g[]
        task.call @again[]
        task.call @h[]
  }
}

// CHECK: task.buffer @a scratch : tensor<1x10xf32>
// CHECK-NEXT:     task.buffer @b scratch : tensor<1x10xf32>
// CHECK-NEXT:     task.buffer @c scratch : tensor<1x10xf32>
// CHECK-NEXT:     task.family @f () {
// CHECK-NEXT:       %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @g () {
// CHECK-NEXT:       %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @b[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @again () {
// CHECK-NEXT:       %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @h () {
// CHECK-NEXT:       %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @c[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.counter @f_done[1]
// CHECK-NEXT:     queue.counter @g_done[1]
// CHECK-NEXT:     queue.counter @again_done[1]
// CHECK-NEXT:     queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @f[] on cyclic 0
// CHECK-NEXT:         queue.signal @f_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @f_done[0] all
// CHECK-NEXT:         queue.run @g[] on cyclic 1
// CHECK-NEXT:         queue.signal @g_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @g_done[0] all
// CHECK-NEXT:         queue.run @again[] on cyclic 2
// CHECK-NEXT:         queue.signal @again_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @again_done[0] all
// CHECK-NEXT:         queue.run @h[] on cyclic 3
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Buffers without a dimension for the layer, rewritten in each: every iteration waits for the one before.
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @a scratch : tensor<1x10xf32>
  task.buffer @b scratch : tensor<1x10xf32>
  task.buffer @y output : tensor<1x10xf32>
  task.family @first () {
    %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @b[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @f (layer = 3) {
    %v = task.load @b[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @g (layer = 3) {
    %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @b[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.family @last () {
    %v = task.load @b[0 : 1, 0 : 10] : tensor<1x10xf32>
    task.store %v, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
  }
  task.order {
    task.call @first[]
        task.for layer = 0 to 3 {
          task.call @f[layer]
          task.call @g[layer]
        }
        task.call @last[]
  }
}

// CHECK: task.buffer @a scratch : tensor<1x10xf32>
// CHECK-NEXT:     task.buffer @b scratch : tensor<1x10xf32>
// CHECK-NEXT:     task.buffer @y output : tensor<1x10xf32>
// CHECK-NEXT:     task.family @first () {
// CHECK-NEXT:       %v = task.load @in[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @b[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @f (layer = 3) {
// CHECK-NEXT:       %v = task.load @b[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @a[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @g (layer = 3) {
// CHECK-NEXT:       %v = task.load @a[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @b[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @last () {
// CHECK-NEXT:       %v = task.load @b[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:       task.store %v, @y[0 : 1, 0 : 10] : tensor<1x10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.counter @first_done[1]
// CHECK-NEXT:     queue.counter @f_done[3]
// CHECK-NEXT:     queue.counter @g_done[4]
// CHECK-NEXT:     queue.counter @g_done_2[1]
// CHECK-NEXT:     queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @first[] on cyclic 0
// CHECK-NEXT:         queue.signal @first_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       task.for layer = 0 to 3 {
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.wait @first_done[0] all
// CHECK-NEXT:           queue.wait @g_done[layer] all
// CHECK-NEXT:           queue.run @f[layer] on cyclic layer*2 + 1
// CHECK-NEXT:           queue.signal @f_done[layer]
// CHECK-NEXT:         }
// CHECK-NEXT:         queue.phase {
// CHECK-NEXT:           queue.wait @f_done[layer] all
// CHECK-NEXT:           queue.run @g[layer] on cyclic layer*2 + 2
// CHECK-NEXT:           queue.signal @g_done[layer + 1]
// CHECK-NEXT:           queue.signal @g_done_2[0]
// CHECK-NEXT:         }
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @g_done_2[0] all
// CHECK-NEXT:         queue.run @last[] on cyclic 3
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// State that is overwritten after it was read. A read of older state alone needs no wait.
task.program @p max_seq 8 tokens 1 {
  task.buffer @in input : tensor<1x10xf32>
  task.buffer @s state : tensor<10xf32>
  task.buffer @y output : tensor<10xf32>
  task.family @old () {
    %v = task.load @s[0 : 10] : tensor<10xf32>
    task.store %v, @y[0 : 10] : tensor<10xf32>
  }
  task.family @new () {
    %v = task.load @in[0, 0 : 10] : tensor<10xf32>
    task.store %v, @s[0 : 10] : tensor<10xf32>
  }
  task.order {
    task.call @old[]
        task.call @new[]
  }
}

// CHECK: task.buffer @s state : tensor<10xf32>
// CHECK-NEXT:     task.buffer @y output : tensor<10xf32>
// CHECK-NEXT:     task.family @old () {
// CHECK-NEXT:       %v = task.load @s[0 : 10] : tensor<10xf32>
// CHECK-NEXT:       task.store %v, @y[0 : 10] : tensor<10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @new () {
// CHECK-NEXT:       %v = task.load @in[0, 0 : 10] : tensor<10xf32>
// CHECK-NEXT:       task.store %v, @s[0 : 10] : tensor<10xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.counter @old_done[1]
// CHECK-NEXT:     queue.program sms 0 to 4 stream {
// CHECK-NEXT:     } body {
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.run @old[] on cyclic 0
// CHECK-NEXT:         queue.signal @old_done[0]
// CHECK-NEXT:       }
// CHECK-NEXT:       queue.phase {
// CHECK-NEXT:         queue.wait @old_done[0] all
// CHECK-NEXT:         queue.run @new[] on cyclic 1
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
