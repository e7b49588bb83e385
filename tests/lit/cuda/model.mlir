// RUN: amk-opt %S/../passes/Inputs/tiny_llama.mlir -p 'graph-to-queue{target=sm_80 sms=4}' -t cuda-source | filecheck %s

// A whole model, from graph to CUDA in one command. sm_80 has no bulk copy engine: its ring is filled by cp.async.
// CHECK: for sm_80: 4 blocks of 288 threads
// CHECK: #include "ring_async.cuh"
// CHECK: u32 attend(u32 at, int pos, int part, u32 operation) {
// CHECK: extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) amk_step(

// The angles of the step's rotations are computed once, before the layers' loop; its attention is written once, whatever the
// number of layers.
// CHECK: for (int l_layer = 0; l_layer < [[LAYERS:\d+]]; ++l_layer) {
// CHECK: put_turns<1, {{\d+}}>(turns_
// CHECK: for (int l_layer = 0; l_layer < [[LAYERS]]; ++l_layer) {
// CHECK: const float2 turn{{\d+}} = turns_
// CHECK: at = load_rows<Attention[[NUMBER:\d+]]>(rows, at, pos, 0, {{\d+}});
// CHECK: at = attend_after<Attention[[NUMBER]]>(rows, at, pos, 0, {{\d+}});
// CHECK: silu(
// CHECK: consumer_best(best, control.best);
