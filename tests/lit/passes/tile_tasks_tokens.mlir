// RUN: amk-opt %s --split-input-file -p tile-tasks | filecheck %s

// Two KV heads, each shared by four heads; four tokens: two heads have the eight queries of a task.
task.program @p max_seq 16 tokens 4 {
  task.buffer @q input : tensor<4x8x2x4xf32>
  task.buffer @k state : tensor<16x2x2x4xf32>
  task.buffer @n input : tensor<4x2x2x4xf32>
  task.buffer @o output : tensor<4x8x2x4xf32>
  task.family @attend () {
    %q = task.load @q[0 : 4, 0 : 8, 0 : 2, 0 : 4] : tensor<4x8x2x4xf32>
    %k = task.stream @k[0 : pos, 0 : 2, 0 : 2, 0 : 4] : tensor<?x2x2x4xf32>
    %v = task.stream @k[0 : pos, 0 : 2, 0 : 2, 0 : 4] : tensor<?x2x2x4xf32>
    %n = task.load @n[0 : 4, 0 : 2, 0 : 2, 0 : 4] : tensor<4x2x2x4xf32>
    %o = task.attention %q, %k, %v, %n, %n {scale = 0.5 : f64} : (tensor<4x8x2x4xf32>, tensor<?x2x2x4xf32>, tensor<4x2x2x4xf32>)
    task.store %o, @o[0 : 4, 0 : 8, 0 : 2, 0 : 4] : tensor<4x8x2x4xf32>
  }
  task.order {
    task.call @attend[]
  }
}

// CHECK:      task.family @attend (kv_head = 2, query = 2) {
// CHECK-NEXT:   %q = task.load @q[0 : 4, kv_head*4 + query*2 : 2, 0 : 2, 0 : 4] : tensor<4x2x2x4xf32>
// CHECK-NEXT:   %k = task.stream @k[0 : pos, kv_head : 1, 0 : 2, 0 : 4] : tensor<?x1x2x4xf32>
// CHECK:        task.store %o, @o[0 : 4, kv_head*4 + query*2 : 2, 0 : 2, 0 : 4] : tensor<4x2x2x4xf32>

// -----

// One KV head, six tokens, three heads: six queries a task, of one head, are the most that eight allow.
task.program @p max_seq 16 tokens 6 {
  task.buffer @q input : tensor<6x3x2x4xf32>
  task.buffer @k state : tensor<16x1x2x4xf32>
  task.buffer @n input : tensor<6x1x2x4xf32>
  task.buffer @o output : tensor<6x3x2x4xf32>
  task.family @attend () {
    %q = task.load @q[0 : 6, 0 : 3, 0 : 2, 0 : 4] : tensor<6x3x2x4xf32>
    %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 4] : tensor<?x1x2x4xf32>
    %v = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 4] : tensor<?x1x2x4xf32>
    %n = task.load @n[0 : 6, 0 : 1, 0 : 2, 0 : 4] : tensor<6x1x2x4xf32>
    %o = task.attention %q, %k, %v, %n, %n {scale = 0.5 : f64} : (tensor<6x3x2x4xf32>, tensor<?x1x2x4xf32>, tensor<6x1x2x4xf32>)
    task.store %o, @o[0 : 6, 0 : 3, 0 : 2, 0 : 4] : tensor<6x3x2x4xf32>
  }
  task.order {
    task.call @attend[]
  }
}

// CHECK:      task.family @attend (query = 3) {
// CHECK-NEXT:   %q = task.load @q[0 : 6, query : 1, 0 : 2, 0 : 4] : tensor<6x1x2x4xf32>
// CHECK-NEXT:   %k = task.stream @k[0 : pos, 0 : 1, 0 : 2, 0 : 4] : tensor<?x1x2x4xf32>
