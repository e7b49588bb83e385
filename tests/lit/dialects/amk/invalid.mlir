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

// -----

// Frequencies are powers of something positive.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64, theta = 0.0>} : () -> ()
// CHECK: rope theta must be finite and positive, found 0.0

// -----

// And finite.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64, theta = 1.0e400>} : () -> ()
// CHECK: rope theta must be finite and positive, found inf

// -----

// Also as an integer that no float holds.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64, theta = 1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000>} : () -> ()
// CHECK: rope theta must be finite and positive, found inf

// -----

// Positions are divided by the factor.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64, theta = 1.0, scaling = "linear", factor = -2.0>} : () -> ()
// CHECK: rope factor must be finite and positive, found -2.0

// -----

// Frequencies between low and high are blended.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64, theta = 1.0, scaling = "llama3", factor = 8.0, low_freq_factor = 4.0, high_freq_factor = 4.0>} : () -> ()
// CHECK: rope low_freq_factor must be less than high_freq_factor, found 4.0 and 4.0

// -----

// Wavelengths are compared with the original maximum over these.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64, theta = 1.0, scaling = "llama3", low_freq_factor = 0.0>} : () -> ()
// CHECK: rope low_freq_factor must be finite and positive, found 0.0

// -----

// A model was made for some positions.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64, theta = 1.0, scaling = "llama3", original_max_position = 0>} : () -> ()
// CHECK: rope original_max_position must lie in [1, 2147483647], found 0

// -----

// Positions are counted.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 64, theta = 1.0, scaling = "llama3", original_max_position = 8.5>} : () -> ()
// CHECK: rope original_max_position must be an integer, found 8.5

// -----

// So are elements of a head.
"test.op"() {rope = #amk.rope_frequencies<head_dim = 1.0e400, theta = 1.0>} : () -> ()
// CHECK: rope head_dim must be an integer, found inf
