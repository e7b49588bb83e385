// From a model to CUDA source by amk-opt alone, one pass at a time, each reading what the one before printed; and the
// pipelines do the same.
// RUN: amk-opt %s -p convert-graph-to-task -o %t.1.mlir
// RUN: amk-opt %t.1.mlir -p fuse-into-consumer -o %t.2.mlir
// RUN: amk-opt %t.2.mlir -p fuse-into-producer -o %t.3.mlir
// RUN: amk-opt %t.3.mlir -p tile-tasks -o %t.4.mlir
// RUN: amk-opt %t.4.mlir -p 'place-tasks{target=sm_90a sms=8}' -o %t.5.mlir
// RUN: amk-opt %t.5.mlir -p insert-sync -o %t.6.mlir
// RUN: amk-opt %t.6.mlir -p 'plan-stream{bytes=24576}' -o %t.7.mlir
// RUN: amk-opt %t.7.mlir -p verify-schedule -o %t.8.mlir
// RUN: filecheck %s --check-prefix=TASK < %t.4.mlir
// RUN: filecheck %s --check-prefix=QUEUE < %t.8.mlir
// RUN: amk-opt %t.8.mlir -t cuda-source | filecheck %s --check-prefix=CUDA

// The pipeline passes give the same kernel, and its explicit form verifies too.
// RUN: amk-opt %s -p 'graph-to-queue{target=sm_90a sms=8 fuse-attention=never}' | diff %t.8.mlir -
// RUN: amk-opt %s -p 'graph-to-task,task-to-queue{target=sm_90a sms=8 bytes=24576}' | diff %t.8.mlir -
// RUN: amk-opt %t.8.mlir -p expand-queues,verify-schedule | filecheck %s --check-prefix=EXPLICIT

// TASK:     task.program @tiny max_seq 16
// TASK:       task.family
// TASK:       task.order
// QUEUE:    queue.kernel @tiny target "sm_90a" sms 8
// QUEUE:      queue.program sms 0 to 8 stream
// QUEUE-NOT:  queue.program
// CUDA:     // @tiny for sm_90a: 8 blocks
// CUDA:     __global__
// EXPLICIT: queue.program sms 0 to 1
// EXPLICIT: queue.program sms 7 to 8

graph.model @tiny max_seq 16 {
  graph.weight @embed from #amk.checkpoint<"model.embed_tokens.weight"> : tensor<40x32xbf16>
  graph.weight @attn_norm layers 2 from #amk.checkpoint<"model.layers.{layer}.input_layernorm.weight"> : tensor<32xf32>
  graph.weight @q_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.weight"> : tensor<2x16x32xbf16>
  graph.weight @k_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.k_proj.weight"> : tensor<1x16x32xbf16>
  graph.weight @v_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.v_proj.weight"> : tensor<1x16x32xbf16>
  graph.weight @o_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.o_proj.weight"> : tensor<32x2x16xbf16>
  graph.weight @norm from #amk.checkpoint<"model.norm.weight"> : tensor<32xf32>
  graph.weight @inv_freq from #amk.rope_frequencies<head_dim = 16, theta = 10000.0> : tensor<8xf32>
  graph.cache @k_cache layers 2 : tensor<16x1x16xbf16>
  graph.cache @v_cache layers 2 : tensor<16x1x16xbf16>
  graph.step (%token: tensor<1xi32>, %pos: index) {
    %x0 = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x32xf32>
    %x = graph.layers 2 (%h = %x0) : tensor<1x32xf32> {
      %n = graph.rms_norm %h, @attn_norm {eps = 1.000000e-05 : f64} : tensor<1x32xf32>
      %q = graph.linear %n, @q_proj : (tensor<1x32xf32>) -> tensor<1x2x16xf32>
      %k = graph.linear %n, @k_proj : (tensor<1x32xf32>) -> tensor<1x1x16xf32>
      %v = graph.linear %n, @v_proj : (tensor<1x32xf32>) -> tensor<1x1x16xf32>
      %qr = graph.rope %q, @inv_freq at %pos : tensor<1x2x16xf32>
      %kr = graph.rope %k, @inv_freq at %pos : tensor<1x1x16xf32>
      %ka = graph.cache_append %kr, @k_cache at %pos : (tensor<1x1x16xf32>) -> tensor<16x1x16xbf16>
      %va = graph.cache_append %v, @v_cache at %pos : (tensor<1x1x16xf32>) -> tensor<16x1x16xbf16>
      %a = graph.attention %qr, %ka, %va at %pos {scale = 2.500000e-01 : f64} : (tensor<1x2x16xf32>, tensor<16x1x16xbf16>, tensor<16x1x16xbf16>) -> tensor<1x2x16xf32>
      %o = graph.linear %a, @o_proj : (tensor<1x2x16xf32>) -> tensor<1x32xf32>
      %y = graph.add %h, %o : tensor<1x32xf32>
      graph.yield %y : tensor<1x32xf32>
    }
    %f = graph.rms_norm %x, @norm {eps = 1.000000e-05 : f64} : tensor<1x32xf32>
    %logits = graph.linear %f, @embed : (tensor<1x32xf32>) -> tensor<1x40xf32>
    %next = graph.argmax %logits : tensor<1x40xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x40xf32>, tensor<1xi32>
  }
}
