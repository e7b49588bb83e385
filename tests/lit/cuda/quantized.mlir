// RUN: amk-opt %S/../passes/Inputs/tiny_llama.mlir -p 'graph-to-queue{target=sm_80 sms=4 weights=int8 head="int4:g16:zp:f16"}' -t cuda-source | filecheck %s

// Only kernels with quantised weights include their products.
// CHECK: #include "quantized_matvec.cuh"
// CHECK: u32 multiply_quantized(u32 at, int partial_at, u32 operation) {

// A task's bytes: eight rows of 44 codes, padded to 64, and their eight scales.
// CHECK: const u8* task = p.s_linear_down + static_cast<u64>((l_layer) * 3 + tile) * 544;
// CHECK-NEXT: writer.push_all(task, 544, 512, 1,

// The embedding's elements are read from the packed stream of the head.
// CHECK: load_value(QuantizedRows<Quantized<Int4, 0, F16Scale, 16, ZERO_POINT, 1>, 2, 1, 1, 384, 384, 16, 0, 24>{p.s_linear_logits} +

// Codes of every format are multiplied with the same activations as bf16 weights, once for q, k and v; the first ones are in registers
// before the activations are there.
// CHECK: FirstCodes<Quantized<Int8, 128, F32Scale, 0, NOTHING, 2>, 1, 1, 1, 1> held = {};
// CHECK: at = load_first(held, at,
// CHECK: const Activations x = activations(work);
// CHECK: for (int slot = 0; slot < count_{{[0-9]+}} + count_{{[0-9]+}} + count_{{[0-9]+}}; ++slot)
// CHECK: at = multiply_after(held, at,
// CHECK-NOT: multiply_after
// CHECK: // queue.run @linear_q[layer]
// CHECK-NOT: multiply_after
// CHECK: // queue.run @linear_v[layer]
// CHECK: FirstCodes<Quantized<Int4, 0, F16Scale, 16, ZERO_POINT, 1>, 2, 1, 1, 1> held = {};
// CHECK: const Activations x = activations(work);
// CHECK: at = multiply_after(held, at,
