// RUN: ROUNDTRIP

// Every attribute of the dialect, in its canonical form.
"test.op"() {access = #amk.access<@x[layer, 0 : 1, tile*64 : 64 to 100, 0 : pos + 1]>} : () -> ()
"test.op"() {kinds = [#amk.buffer_kind<weight>, #amk.buffer_kind<input>, #amk.buffer_kind<output>, #amk.buffer_kind<state>, #amk.buffer_kind<scratch>]} : () -> ()
"test.op"() {source = #amk.checkpoint<"model.layers.{layer}.mlp.up_proj.weight">} : () -> ()
"test.op"() {domain = #amk.domain<(layer = 30, tile = 72)>} : () -> ()
"test.op"() {domain = #amk.domain<()>} : () -> ()
"test.op"() {indices = #amk.indices<[layer, 3, layer*2 - 1]>} : () -> ()
"test.op"() {linear = #amk.linear<layer*2 + 1>} : () -> ()
"test.op"() {placements = [#amk.placement<cyclic layer*72>, #amk.placement<blocked 0>]} : () -> ()
"test.op"() {ring = #amk.ring<stages = 10, bytes = 16384, in_flight = 3>} : () -> ()
"test.op"() {source = #amk.rope_frequencies<head_dim = 64, theta = 10000.0>} : () -> ()
"test.op"() {source = #amk.rope_frequencies<head_dim = 64, theta = 1.0e+20, scaling = "linear", factor = 2.5>} : () -> ()
"test.op"() {source = #amk.rope_frequencies<head_dim = 128, theta = 500000.0, scaling = "llama3", factor = 8.0, low_freq_factor = 1.0, high_freq_factor = 4.0, original_max_position = 8192>} : () -> ()

// Index expressions are normalised: sorted by name, summed up, without zero terms.
"test.op"() {linear = #amk.linear<tile*8 + 1 + layer - 3 + tile>} : () -> ()
"test.op"() {linear = #amk.linear<layer - layer>} : () -> ()
"test.op"() {linear = #amk.linear<-layer - 4>} : () -> ()

// CHECK: builtin.module {
// CHECK-NEXT:   "test.op"() {access = #amk.access<@x[layer, 0 : 1, tile*64 : 64 to 100, 0 : pos + 1]>} : () -> ()
// CHECK-NEXT:   "test.op"() {kinds = [#amk.buffer_kind<weight>, #amk.buffer_kind<input>, #amk.buffer_kind<output>, #amk.buffer_kind<state>, #amk.buffer_kind<scratch>]} : () -> ()
// CHECK-NEXT:   "test.op"() {source = #amk.checkpoint<"model.layers.{layer}.mlp.up_proj.weight">} : () -> ()
// CHECK-NEXT:   "test.op"() {domain = #amk.domain<(layer = 30, tile = 72)>} : () -> ()
// CHECK-NEXT:   "test.op"() {domain = #amk.domain<()>} : () -> ()
// CHECK-NEXT:   "test.op"() {indices = #amk.indices<[layer, 3, layer*2 - 1]>} : () -> ()
// CHECK-NEXT:   "test.op"() {linear = #amk.linear<layer*2 + 1>} : () -> ()
// CHECK-NEXT:   "test.op"() {placements = [#amk.placement<cyclic layer*72>, #amk.placement<blocked 0>]} : () -> ()
// CHECK-NEXT:   "test.op"() {ring = #amk.ring<stages = 10, bytes = 16384, in_flight = 3>} : () -> ()
// CHECK-NEXT:   "test.op"() {source = #amk.rope_frequencies<head_dim = 64, theta = 10000.0>} : () -> ()
// CHECK-NEXT:   "test.op"() {source = #amk.rope_frequencies<head_dim = 64, theta = 1.0e+20, scaling = "linear", factor = 2.5>} : () -> ()
// CHECK-NEXT:   "test.op"() {source = #amk.rope_frequencies<head_dim = 128, theta = 500000.0, scaling = "llama3", factor = 8.0, low_freq_factor = 1.0, high_freq_factor = 4.0, original_max_position = 8192>} : () -> ()
// CHECK-NEXT:   "test.op"() {linear = #amk.linear<layer + tile*9 - 2>} : () -> ()
// CHECK-NEXT:   "test.op"() {linear = #amk.linear<0>} : () -> ()
// CHECK-NEXT:   "test.op"() {linear = #amk.linear<-layer - 4>} : () -> ()
// CHECK-NEXT: }
