// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p quantize-weights | filecheck %s
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'quantize-weights{format="int4:g8:zp:f16" head="fp8" keep="*_proj","down"}' --verify-diagnostics | filecheck %s --check-prefix=NAMES
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'quantize-weights{format="int4:g8:zp:f16" head="fp8" keep="?_proj"}' | filecheck %s --check-prefix=KEEP
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'quantize-weights{format="none" head="int8:g8"}' | filecheck %s --check-prefix=HEAD
// RUN: amk-opt %S/Inputs/tiny_llama.mlir -p 'graph-to-queue{sms=4 weights=int8},verify-schedule' | filecheck %s --check-prefix=QUEUE

// The matrices of layers, rows along what is summed over, also where that is heads; neither vectors, nor the head.
// CHECK:      graph.weight @embed from {{.*}} : tensor<50x24xbf16>
// CHECK-NEXT: graph.weight @attn_norm layers 2 from {{.*}} : tensor<24xf32>
// CHECK-NEXT: graph.weight @q_proj layers 2 from {{.*}} : tensor<4x8x24x!amk.quantized<"int8", columns = 24>>
// CHECK-NEXT: graph.weight @k_proj layers 2 from {{.*}} : tensor<2x8x24x!amk.quantized<"int8", columns = 24>>
// CHECK-NEXT: graph.weight @v_proj layers 2 from {{.*}} : tensor<2x8x24x!amk.quantized<"int8", columns = 24>>
// CHECK-NEXT: graph.weight @o_proj layers 2 from {{.*}} : tensor<24x4x8x!amk.quantized<"int8", columns = 32>>
// CHECK-NEXT: graph.weight @mlp_norm layers 2 from {{.*}} : tensor<24xf32>
// CHECK-NEXT: graph.weight @gate_proj layers 2 from {{.*}} : tensor<44x24x!amk.quantized<"int8", columns = 24>>
// CHECK-NEXT: graph.weight @up_proj layers 2 from {{.*}} : tensor<44x24x!amk.quantized<"int8", columns = 24>>
// CHECK-NEXT: graph.weight @down_proj layers 2 from {{.*}} : tensor<24x44x!amk.quantized<"int8", columns = 44>>
// CHECK-NEXT: graph.weight @norm from {{.*}} : tensor<24xf32>

// A name to keep that no weight has is a mistake.
// NAMES: quantize-weights: keep: no weight is called 'down'; there are attn_norm, down_proj, embed, gate_proj,

// Some are left alone; the table that is also the head is quantised as the head.
// KEEP: graph.weight @embed from {{.*}} : tensor<50x24x!amk.quantized<"fp8", columns = 24>>
// KEEP: graph.weight @o_proj layers 2 from {{.*}} : tensor<24x4x8xbf16>
// KEEP: graph.weight @gate_proj layers 2 from {{.*}} : tensor<44x24x!amk.quantized<"int4:g8:zp:f16", columns = 24>>

// HEAD: graph.weight @embed from {{.*}} : tensor<50x24x!amk.quantized<"int8:g8", columns = 24>>
// HEAD: graph.weight @down_proj layers 2 from {{.*}} : tensor<24x44xbf16>

// Down to the queue: tiles of whole rows are streamed, and the ring has room for scales beside 24 KiB of codes.
// QUEUE: ring #amk.ring<stages = 8, bytes = 25088, in_flight = 3>
// QUEUE: task.buffer @down_proj weight from {{.*}} : tensor<2x24x44x!amk.quantized<"int8", columns = 44>>
// QUEUE: task.family @linear_down (layer = 2, tile = 3) {
// QUEUE: task.stream @down_proj[layer, tile*8 : 8, 0 : 44] : tensor<8x44x!amk.quantized<"int8", columns = 44>>
