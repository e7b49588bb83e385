// RUN: amk-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics --allow-unregistered-dialect | filecheck %s

// An unknown storage.
%0 = "test.op"() : () -> !amk.quantized<"int3", columns = 64>
// CHECK: quantised format 'int3': expected int8, int4 or fp8, then optionally a group

// -----

// fp8 has no zero points.
%0 = "test.op"() : () -> !amk.quantized<"fp8:zp", columns = 64>
// CHECK: fp8 has no zero points

// -----

// Groups are no longer than rows.
%0 = "test.op"() : () -> !amk.quantized<"int4:g128", columns = 64>
// CHECK: groups of 128 values do not fit rows of 64 columns

// -----

// Rows have columns.
%0 = "test.op"() : () -> !amk.quantized<"int8", columns = 0>
// CHECK: rows of quantised weights have 1 to 2147483647 columns, found 0

// -----

// The number of columns is part of the type.
%0 = "test.op"() : () -> !amk.quantized<"int8">
// CHECK: Expected ','
