// Pipelines are what their parts are, one after the other; every part verifies its result.

// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-task{rows=4 sms=5}' > %t.pipeline.mlir
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'canonicalize,convert-graph-to-task,fuse-into-consumer,fuse-into-producer,tile-tasks{rows=4 sms=5}' > %t.parts.mlir
// RUN: diff %t.pipeline.mlir %t.parts.mlir

// RUN: amk-opt %t.parts.mlir -p 'task-to-queue{target=sm_80 sms=5 parts=2 block=8 handoff=counter stages=3 bytes=2048 in-flight=2}' > %t.pipeline.mlir
// RUN: amk-opt %t.parts.mlir -p 'split-argmax{parts=5},split-attention{parts=2 block=8 sms=5},fuse-into-consumer{ops=attention_merge readers=matmul},place-tasks{target=sm_80 sms=5},insert-sync{handoff=counter},plan-stream{stages=3 bytes=2048 in-flight=2}' > %t.queue.mlir
// RUN: diff %t.pipeline.mlir %t.queue.mlir

// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-queue{target=sm_80 sms=5 parts=2 block=8 rows=4 handoff=counter stages=3 bytes=2048 in-flight=2 fuse-attention=never}' > %t.pipeline.mlir
// RUN: diff %t.pipeline.mlir %t.queue.mlir

// On GPUs, attention is fused into the product that follows; divided into parts, only that product is split.
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-queue{sms=5}' > %t.pipeline.mlir
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-queue{sms=5 fuse-attention=always}' | diff %t.pipeline.mlir -
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-task{sms=5 attention-output=fused},task-to-queue{sms=5 bytes=24576}' | diff %t.pipeline.mlir -
// RUN: filecheck %s --check-prefix=FUSED < %t.pipeline.mlir
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-queue{sms=5 parts=2}' > %t.pipeline.mlir
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-task{sms=5 attention-output=split},task-to-queue{sms=5 parts=2 bytes=24576}' | diff %t.pipeline.mlir -
// RUN: filecheck %s --check-prefix=MERGED < %t.pipeline.mlir
// FUSED:      queue.fetch @linear_v[layer]
// FUSED-NEXT: queue.fetch @linear_o[layer]
// The products of each KV head's heads merge their parts themselves.
// MERGED-NOT:  task.buffer @mixed {{scratch}}
// MERGED:      task.family @linear_o (layer = 2, kv_head = 2, tile = 2) {
// MERGED-NEXT:   %sums = task.load @mixed_sums[layer, 0 : 2, 0 : 1, kv_head*2 : 2, 0 : 2, 0 : 4] : tensor<2x1x2x2x4xf32>
// MERGED-NEXT:   %stats = task.load @mixed_stats[layer, 0 : 2, 0 : 1, kv_head*2 : 2, 0 : 2] : tensor<2x1x2x2xf32>
// MERGED-NEXT:   %mixed = task.attention_merge %sums, %stats
// MERGED-NEXT:   %o_proj = task.stream
// MERGED-NEXT:   task.matmul %mixed
// MERGED:      queue.run @attention_mixed_part[layer]
// MERGED-NOT:  queue.run @attention_mixed[layer]

// With quantised weights.
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-queue{sms=5 weights="int4:g8:zp" head=int8}' > %t.pipeline.mlir
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'quantize-weights{format="int4:g8:zp" head=int8},graph-to-queue{sms=5}' > %t.parts.mlir
// RUN: diff %t.pipeline.mlir %t.parts.mlir

// What they make is accepted, in both forms.
// RUN: amk-opt %t.queue.mlir -p verify-schedule,expand-queues,verify-schedule > /dev/null

// On virtual SMs, families have as many tasks as there are SMs.
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-queue{target=reference sms=3}' > %t.pipeline.mlir
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-task{tasks=3},task-to-queue{target=reference sms=3}' > %t.parts.mlir
// RUN: diff %t.pipeline.mlir %t.parts.mlir

// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-queue{sms=4 widest=8 fuse-attention=never}' | filecheck %s

// The whole way: a layer has five phases, and what they hand over is tagged; the stream is in the order of the body.
// CHECK:      queue.counter @logits_done[1]
// CHECK-NEXT: queue.program sms 0 to 4 stream {
// CHECK-NEXT:   task.for layer = 0 to 2 {
// CHECK-NEXT:     queue.fetch @linear_q[layer] on cyclic layer*3 + 1
// CHECK-NEXT:     queue.fetch @linear_k[layer] on cyclic layer*3 + 1
// CHECK-NEXT:     queue.fetch @linear_v[layer] on cyclic layer*3 + 3
// CHECK-NEXT:     queue.fetch @attention_mixed[layer] on cyclic layer*3 + 1
// CHECK-NEXT:     queue.fetch @linear_o[layer] on cyclic layer*3 + 3
// CHECK-NEXT:     queue.fetch @linear_gate_up[layer] on cyclic layer*3 + 2
// CHECK-NEXT:     queue.fetch @linear_down[layer] on cyclic layer*3 + 1
// CHECK-NEXT:   }
// CHECK-NEXT:   queue.fetch @linear_logits[] on cyclic 3
// CHECK-NEXT: } body {
// CHECK-NEXT:   queue.phase {
// CHECK-NEXT:     queue.run @embedding_x[] on cyclic 0
// CHECK-NEXT:   }
// CHECK-NEXT:   task.for layer = 0 to 2 {
// CHECK-NEXT:     queue.phase {
// CHECK-NEXT:       queue.run @linear_q[layer] on cyclic layer*3 + 1
// CHECK-NEXT:       queue.run @linear_k[layer] on cyclic layer*3 + 1
// CHECK-NEXT:       queue.run @linear_v[layer] on cyclic layer*3 + 3
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.phase {
// CHECK-NEXT:       queue.run @attention_mixed[layer] on cyclic layer*3 + 1
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.phase {
// CHECK-NEXT:       queue.run @linear_o[layer] on cyclic layer*3 + 3
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.phase {
// CHECK-NEXT:       queue.run @linear_gate_up[layer] on cyclic layer*3 + 2
// CHECK-NEXT:     }
// CHECK-NEXT:     queue.phase {
// CHECK-NEXT:       queue.run @linear_down[layer] on cyclic layer*3 + 1
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT:   queue.phase {
// CHECK-NEXT:     queue.run @linear_logits[] on cyclic 3
// CHECK-NEXT:     queue.signal @logits_done[0]
// CHECK-NEXT:   }
// CHECK-NEXT:   queue.phase {
// CHECK-NEXT:     queue.wait @logits_done[0] all
// CHECK-NEXT:     queue.run @argmax_next[] on cyclic 2

// A target that does not exist ends the pipeline.
// RUN: amk-opt %S/Inputs/tiny_llama.mlir --verify-diagnostics -p 'graph-to-queue{target=sm_7}' | filecheck %s --check-prefix=TARGET
// TARGET: graph-to-queue: unknown target 'sm_7', expected one of reference, sm_80
