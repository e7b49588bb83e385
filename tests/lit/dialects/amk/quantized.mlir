// RUN: ROUNDTRIP

// Every form of a quantised element type; what is the default is not printed.
%0 = "test.op"() : () -> !amk.quantized<"int8", columns = 64>
%1 = "test.op"() : () -> !amk.quantized<"int8:g128", columns = 2048>
%2 = "test.op"() : () -> !amk.quantized<"int8:g32:zp:f16", columns = 64>
%3 = "test.op"() : () -> !amk.quantized<"fp8:f32", columns = 64>
%4 = "test.op"() : () -> !amk.quantized<"fp8:b128x128:bf16", columns = 256>
%5 = "test.op"() : () -> !amk.quantized<"int4:g64:zp", columns = 64>
%6 = "test.op"() : () -> !amk.quantized<"int4:g32:min:f16", columns = 40>
%7 = "test.op"() : () -> tensor<8x2x32x!amk.quantized<"int4", columns = 64>>

// CHECK: !amk.quantized<"int8", columns = 64>
// CHECK: !amk.quantized<"int8:g128", columns = 2048>
// CHECK: !amk.quantized<"int8:g32:zp:f16", columns = 64>
// CHECK: !amk.quantized<"fp8", columns = 64>
// CHECK: !amk.quantized<"fp8:b128x128:bf16", columns = 256>
// CHECK: !amk.quantized<"int4:g64:zp", columns = 64>
// CHECK: !amk.quantized<"int4:g32:min:f16", columns = 40>
// CHECK: tensor<8x2x32x!amk.quantized<"int4", columns = 64>>
