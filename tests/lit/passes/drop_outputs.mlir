// RUN: amk-opt %s --split-input-file -p drop-outputs | filecheck %s
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-queue{sms=3 outputs=false},verify-schedule' | filecheck %s --check-prefix=MODEL
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-queue{sms=3 outputs=false}' > %t.pipeline.mlir
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-task{sms=3 attention-output=fused},drop-outputs,task-to-queue{sms=3 bytes=24576}' > %t.parts.mlir
// RUN: diff %t.pipeline.mlir %t.parts.mlir

// Of a model, the head, its norm and the argmax go; the layers, which fill the caches, stay.
// MODEL-NOT: output
// MODEL:     task.buffer @k_cache state
// MODEL-NOT: linear_logits
// MODEL-NOT: argmax
// MODEL:     task.family @linear_down
// MODEL-NOT: linear_logits
// MODEL:     queue.run @linear_down
// MODEL-NOT: argmax

// The output goes with the family that makes it, the scratch between, and a loop of which nothing is left. What the
// state needs stays, also where both read it, and so does the input.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @mask input : tensor<1x8xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<8xf32>
  task.buffer @used scratch : tensor<1x8xf32>
  task.buffer @unused scratch : tensor<2x1x8xf32>
  task.buffer @cache state : tensor<8x8xf32>
  task.buffer @out output : tensor<2x1x8xf32>
  task.family @both () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %x, @used[0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @more (l = 2) {
    %x = task.load @used[0 : 1, 0 : 8] : tensor<1x8xf32>
    %w = task.load @w[0 : 8] : tensor<8xf32>
    %y = task.bias_add %x, %w : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %y, @unused[l, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @last (l = 2) {
    %x = task.load @unused[l, 0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %x, @out[l, 0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.family @append () {
    %x = task.load @used[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %x, @cache[pos : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @both[]
    task.for l = 0 to 2 {
      task.call @more[l]
      task.call @last[l]
    }
    task.call @append[]
  }
}

// CHECK:      task.program @p max_seq 8 tokens 1 {
// CHECK-NEXT:   task.buffer @x input : tensor<1x8xf32>
// CHECK-NEXT:   task.buffer @mask input : tensor<1x8xf32>
// CHECK-NEXT:   task.buffer @used scratch : tensor<1x8xf32>
// CHECK-NEXT:   task.buffer @cache state : tensor<8x8xf32>
// CHECK-NEXT:   task.family @both () {
// CHECK:        task.family @append () {
// CHECK:        task.order {
// CHECK-NEXT:     task.call @both[]
// CHECK-NEXT:     task.call @append[]
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// A family that stores an output beside what is needed stays, and so does that output.
task.program @q max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x8xf32>
  task.buffer @cache state : tensor<8x8xf32>
  task.buffer @out output : tensor<1x8xf32>
  task.family @both () {
    %x = task.load @x[0 : 1, 0 : 8] : tensor<1x8xf32>
    task.store %x, @cache[pos : 1, 0 : 8] : tensor<1x8xf32>
    task.store %x, @out[0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  task.order {
    task.call @both[]
  }
}

// CHECK:      task.program @q
// CHECK:        task.buffer @out output : tensor<1x8xf32>
// CHECK:        task.call @both[]
