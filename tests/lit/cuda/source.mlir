// RUN: amk-opt %s -t cuda-source | filecheck %s

// A kernel of one matmul: the stream becomes the producer's loop, the phase a guard, the body a fragment-ordered
// matrix-vector product whose epilogue is written out as scalars.

// CHECK:       // @linear for sm_90a: 4 blocks
// CHECK:       #include "ring_bulk.cuh"
// CHECK:       using WeightRing = Ring<4, 16384, 2>;

// Only what the kernel touches is a parameter: the weight is streamed, so it has no buffer of its own.
// CHECK:       struct Parameters {
// CHECK-NEXT:    float* b_bias;  // 40 f32
// CHECK-NEXT:    float* b_x;  // 1x64 f32
// CHECK-NEXT:    float* b_y;  // 1x40 f32
// CHECK-NEXT:    int* b_best;  // 1 i32
// CHECK-NEXT:    const u8* s_project;  // 5 packed tasks

// CHECK:       // queue.fetch @project[] on cyclic 1
// CHECK:       const int begin_0 = (sm + 3) % 4, end_0 = 5;
// CHECK-NEXT:  for (int tile = begin_0; tile < end_0; tile += 4) {
// CHECK-NEXT:    const u8* task = p.s_project + static_cast<u64>(0 + tile) * 1024;
// CHECK-NEXT:    writer.push_all(task, 1024, 1024, 1,
// CHECK:       writer.finish(ring);

// CHECK:       const int begin_1 = (sm + 3) % 4, end_1 = 5;
// CHECK-NEXT:  if (begin_1 < end_1) {
// The first weights come into registers before the activations do.
// CHECK:       FirstStages<1, 2, 2, 1, 1> held = {};
// CHECK-NEXT:  {
// CHECK-NEXT:    at = load_first(held, at,
// CHECK:       x.put(i, load0[u]);
// CHECK:       // queue.run @project[] on cyclic 1
// CHECK:       for (int slot = 0; slot < count_1; ++slot) {
// CHECK-NEXT:    if (!(slot == 0)) {
// CHECK-NEXT:      at = load_first(held, at,
// CHECK:         at = multiply_after(held, at, flip * PARTIAL_FLOATS + slot * 64,
// CHECK:       product<1, 1>(partial + slot * 64, 0, (e));
// CHECK:       store_value(p.b_y + (((f_tile) * 8) + (e)),
// CHECK:       // queue.signal @done[0]
// CHECK-NEXT:  if (threadIdx.x == 0) signal_counter(p.counters + (0) * COUNTER_STRIDE);

// All four SMs own a task, so that all signals of the step are four.
// CHECK:       // queue.wait @done[0] all
// CHECK-NEXT:  if (threadIdx.x == 0) wait_counter(p.counters, 0, epoch * 4u, watch,
// CHECK-NEXT:  consumer_barrier();

queue.kernel @linear target "sm_90a" sms 4 max_seq 16 tokens 1 ring #amk.ring<stages = 4, bytes = 16384, in_flight = 2> {
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<40x64xbf16>
  task.buffer @bias weight from #amk.checkpoint<"b"> : tensor<40xf32>
  task.buffer @x input : tensor<1x64xf32>
  task.buffer @y output : tensor<1x40xf32>
  task.buffer @best output : tensor<1xi32>
  task.family @project (tile = 5) {
    %x = task.load @x[0 : 1, 0 : 64] : tensor<1x64xf32>
    %w = task.stream @w[tile*8 : 8, 0 : 64] : tensor<8x64xbf16>
    %y = task.matmul %x, %w : (tensor<1x64xf32>, tensor<8x64xbf16>) -> tensor<1x8xf32>
    %b = task.load @bias[tile*8 : 8] : tensor<8xf32>
    %z = task.bias_add %y, %b : (tensor<1x8xf32>, tensor<8xf32>)
    task.store %z, @y[0 : 1, tile*8 : 8] : tensor<1x8xf32>
  }
  task.family @choose () {
    %y = task.load @y[0 : 1, 0 : 40] : tensor<1x40xf32>
    %n = task.argmax %y : tensor<1x40xf32> -> tensor<1xi32>
    task.store %n, @best[0 : 1] : tensor<1xi32>
  }
  queue.counter @done[1]
  queue.program sms 0 to 4 stream {
    queue.fetch @project[] on cyclic 1
  } body {
    queue.phase {
      queue.run @project[] on cyclic 1
      queue.signal @done[0]
    }
    queue.phase {
      queue.wait @done[0] all
      queue.run @choose[] on cyclic 0
    }
  }
}
