// RUN: amk-opt %s --split-input-file --parsing-diagnostics | filecheck %s

// A ring needs all of its parameters.
"test.op"() {ring = #amk.ring<stages = 10>} : () -> ()
// CHECK: a ring has stages, bytes and in_flight, found stages

// -----

// A rope parameter that does not exist.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64, theta = 1.0, alpha = 2.0>} : () -> ()
// CHECK: unknown rope parameter 'alpha'

// -----

// A rope parameter without which the frequencies are not defined.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64>} : () -> ()
// CHECK: rope parameter 'theta' is missing

// -----

// A kind of scaling that is not supported.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64, theta = 1.0, scaling = "yarn">} : () -> ()
// CHECK: unknown rope scaling 'yarn', expected default, linear or llama3

// -----

// Rotation is of pairs.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 7, theta = 1.0>} : () -> ()
// CHECK: rope head_dim must be positive and even, found 7

// -----

// A placement that does not exist.
"test.op"() {placement = #amk.placement<random 0>} : () -> ()
// CHECK: 'cyclic'

// -----

// An index expression needs names or integers.
"test.op"() {linear = #amk.linear<"layer">} : () -> ()
// CHECK: integer in an index expression

// -----

// A buffer kind that does not exist.
"test.op"() {kind = #amk.buffer_kind<constant>} : () -> ()
// CHECK: weight
