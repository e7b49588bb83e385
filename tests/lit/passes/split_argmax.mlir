// RUN: amk-opt %s --split-input-file -p 'split-argmax{parts=4}' | filecheck %s
// RUN: amk-opt %s --split-input-file -p 'task-to-queue{target=reference sms=4},verify-schedule' | filecheck %s --check-prefix=QUEUE

// Four equal parts, one task each; what they find is in a buffer of its own.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x400xf32>
  task.buffer @next output : tensor<1xi32>
  task.family @choose () {
    %x = task.load @x[0 : 1, 0 : 400] : tensor<1x400xf32>
    %i = task.argmax %x : tensor<1x400xf32> -> tensor<1xi32>
    task.store %i, @next[0 : 1] : tensor<1xi32>
  }
  task.order {
    task.call @choose[]
  }
}

// CHECK:      task.program @p max_seq 8 tokens 1 {
// CHECK-NEXT:     task.buffer @x input : tensor<1x400xf32>
// CHECK-NEXT:     task.buffer @next output : tensor<1xi32>
// CHECK-NEXT:     task.buffer @next_parts scratch : tensor<1x4x2xf32>
// CHECK-NEXT:     task.family @choose_part (part = 4) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, part*100 : 100] : tensor<1x100xf32>
// CHECK-NEXT:       %best = task.argmax_part %x : tensor<1x100xf32> -> tensor<1x2xf32>
// CHECK-NEXT:       task.store %best, @next_parts[0 : 1, part, 0 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @choose () {
// CHECK-NEXT:       %next_parts = task.load @next_parts[0 : 1, 0 : 4, 0 : 2] : tensor<1x4x2xf32>
// CHECK-NEXT:       %i = task.argmax_merge %next_parts {stride = 100 : i64} : tensor<1x4x2xf32> -> tensor<1xi32>
// CHECK-NEXT:       task.store %i, @next[0 : 1] : tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @choose_part[]
// CHECK-NEXT:       task.call @choose[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }

// All SMs search, and one of them merges: what they found is handed over by tags.
// QUEUE:      task.buffer @next_parts scratch tagged : tensor<1x4x2xf32>
// QUEUE:      queue.phase {
// QUEUE-NEXT:   queue.run @choose_part[] on cyclic 0
// QUEUE-NEXT: }
// QUEUE-NEXT: queue.phase {
// QUEUE-NEXT:   queue.run @choose[] on cyclic 0
// QUEUE-NEXT: }

// -----

// Parts begin at multiples of four and cover the row exactly, so they overlap if their number does not divide it. Two rows.
task.program @p max_seq 8 tokens 2 {
  task.buffer @x input : tensor<2x403xf32>
  task.buffer @next output : tensor<2xi32>
  task.family @choose () {
    %x = task.load @x[0 : 2, 0 : 403] : tensor<2x403xf32>
    %i = task.argmax %x : tensor<2x403xf32> -> tensor<2xi32>
    task.store %i, @next[0 : 2] : tensor<2xi32>
  }
  task.order {
    task.call @choose[]
  }
}

// CHECK:      task.program @p max_seq 8 tokens 2 {
// CHECK-NEXT:     task.buffer @x input : tensor<2x403xf32>
// CHECK-NEXT:     task.buffer @next output : tensor<2xi32>
// CHECK-NEXT:     task.buffer @next_parts scratch : tensor<2x4x2xf32>
// CHECK-NEXT:     task.family @choose_part (part = 4) {
// CHECK-NEXT:       %x = task.load @x[0 : 2, part*100 : 103] : tensor<2x103xf32>
// CHECK-NEXT:       %best = task.argmax_part %x : tensor<2x103xf32> -> tensor<2x2xf32>
// CHECK-NEXT:       task.store %best, @next_parts[0 : 2, part, 0 : 2] : tensor<2x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @choose () {
// CHECK-NEXT:       %next_parts = task.load @next_parts[0 : 2, 0 : 4, 0 : 2] : tensor<2x4x2xf32>
// CHECK-NEXT:       %i = task.argmax_merge %next_parts {stride = 100 : i64} : tensor<2x4x2xf32> -> tensor<2xi32>
// CHECK-NEXT:       task.store %i, @next[0 : 2] : tensor<2xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @choose_part[]
// CHECK-NEXT:       task.call @choose[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }

// -----

// At least 64 columns a part: two of them.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x150xf32>
  task.buffer @next output : tensor<1xi32>
  task.family @choose () {
    %x = task.load @x[0 : 1, 0 : 150] : tensor<1x150xf32>
    %i = task.argmax %x : tensor<1x150xf32> -> tensor<1xi32>
    task.store %i, @next[0 : 1] : tensor<1xi32>
  }
  task.order {
    task.call @choose[]
  }
}

// CHECK:      task.program @p max_seq 8 tokens 1 {
// CHECK-NEXT:     task.buffer @x input : tensor<1x150xf32>
// CHECK-NEXT:     task.buffer @next output : tensor<1xi32>
// CHECK-NEXT:     task.buffer @next_parts scratch : tensor<1x2x2xf32>
// CHECK-NEXT:     task.family @choose_part (part = 2) {
// CHECK-NEXT:       %x = task.load @x[0 : 1, part*72 : 78] : tensor<1x78xf32>
// CHECK-NEXT:       %best = task.argmax_part %x : tensor<1x78xf32> -> tensor<1x2xf32>
// CHECK-NEXT:       task.store %best, @next_parts[0 : 1, part, 0 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @choose () {
// CHECK-NEXT:       %next_parts = task.load @next_parts[0 : 1, 0 : 2, 0 : 2] : tensor<1x2x2xf32>
// CHECK-NEXT:       %i = task.argmax_merge %next_parts {stride = 72 : i64} : tensor<1x2x2xf32> -> tensor<1xi32>
// CHECK-NEXT:       task.store %i, @next[0 : 1] : tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @choose_part[]
// CHECK-NEXT:       task.call @choose[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }

// -----

// Too short for two parts.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x127xf32>
  task.buffer @next output : tensor<1xi32>
  task.family @choose () {
    %x = task.load @x[0 : 1, 0 : 127] : tensor<1x127xf32>
    %i = task.argmax %x : tensor<1x127xf32> -> tensor<1xi32>
    task.store %i, @next[0 : 1] : tensor<1xi32>
  }
  task.order {
    task.call @choose[]
  }
}

// CHECK:      task.program @p max_seq 8 tokens 1 {
// CHECK-NEXT:     task.buffer @x input : tensor<1x127xf32>
// CHECK-NEXT:     task.buffer @next output : tensor<1xi32>
// CHECK-NEXT:     task.family @choose () {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 127] : tensor<1x127xf32>
// CHECK-NEXT:       %i = task.argmax %x : tensor<1x127xf32> -> tensor<1xi32>
// CHECK-NEXT:       task.store %i, @next[0 : 1] : tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @choose[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }

// -----

// Only loaded rows are divided.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x400xf32>
  task.buffer @next output : tensor<1xi32>
  task.family @choose () {
    %x = task.load @x[0 : 1, 0 : 400] : tensor<1x400xf32>
    %s = task.add %x, %x : tensor<1x400xf32>
    %i = task.argmax %s : tensor<1x400xf32> -> tensor<1xi32>
    task.store %i, @next[0 : 1] : tensor<1xi32>
  }
  task.order {
    task.call @choose[]
  }
}

// CHECK:      task.program @p max_seq 8 tokens 1 {
// CHECK-NEXT:     task.buffer @x input : tensor<1x400xf32>
// CHECK-NEXT:     task.buffer @next output : tensor<1xi32>
// CHECK-NEXT:     task.family @choose () {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 400] : tensor<1x400xf32>
// CHECK-NEXT:       %s = task.add %x, %x : tensor<1x400xf32>
// CHECK-NEXT:       %i = task.argmax %s : tensor<1x400xf32> -> tensor<1xi32>
// CHECK-NEXT:       task.store %i, @next[0 : 1] : tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @choose[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }

// -----

// A family with a domain: as many parts for each of its indices; names that are taken.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<3x1x400xf32>
  task.buffer @next output : tensor<3x1xi32>
  task.buffer @next_parts scratch : tensor<1xf32>
  task.family @choose (beam = 3) {
    %x = task.load @x[beam, 0 : 1, 0 : 400] : tensor<1x400xf32>
    %i = task.argmax %x : tensor<1x400xf32> -> tensor<1xi32>
    task.store %i, @next[beam, 0 : 1] : tensor<1xi32>
  }
  task.order {
    task.for beam = 0 to 3 {
      task.call @choose[beam]
    }
  }
}

// CHECK:      task.program @p max_seq 8 tokens 1 {
// CHECK-NEXT:     task.buffer @x input : tensor<3x1x400xf32>
// CHECK-NEXT:     task.buffer @next output : tensor<3x1xi32>
// CHECK-NEXT:     task.buffer @next_parts scratch : tensor<1xf32>
// CHECK-NEXT:     task.buffer @next_parts_2 scratch : tensor<3x1x4x2xf32>
// CHECK-NEXT:     task.family @choose_part (beam = 3, part = 4) {
// CHECK-NEXT:       %x = task.load @x[beam, 0 : 1, part*100 : 100] : tensor<1x100xf32>
// CHECK-NEXT:       %best = task.argmax_part %x : tensor<1x100xf32> -> tensor<1x2xf32>
// CHECK-NEXT:       task.store %best, @next_parts_2[beam, 0 : 1, part, 0 : 2] : tensor<1x2xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.family @choose (beam = 3) {
// CHECK-NEXT:       %next_parts = task.load @next_parts_2[beam, 0 : 1, 0 : 4, 0 : 2] : tensor<1x4x2xf32>
// CHECK-NEXT:       %i = task.argmax_merge %next_parts {stride = 100 : i64} : tensor<1x4x2xf32> -> tensor<1xi32>
// CHECK-NEXT:       task.store %i, @next[beam, 0 : 1] : tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.for beam = 0 to 3 {
// CHECK-NEXT:         task.call @choose_part[beam]
// CHECK-NEXT:         task.call @choose[beam]
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:   }

// -----

// Tiles with a limit are left alone: they end in zeros.
task.program @p max_seq 8 tokens 1 {
  task.buffer @x input : tensor<1x400xf32>
  task.buffer @next output : tensor<1xi32>
  task.family @choose () {
    %x = task.load @x[0 : 1, 0 : 402 to 400] : tensor<1x402xf32>
    %i = task.argmax %x : tensor<1x402xf32> -> tensor<1xi32>
    task.store %i, @next[0 : 1] : tensor<1xi32>
  }
  task.order {
    task.call @choose[]
  }
}

// CHECK:      task.program @p max_seq 8 tokens 1 {
// CHECK-NEXT:     task.buffer @x input : tensor<1x400xf32>
// CHECK-NEXT:     task.buffer @next output : tensor<1xi32>
// CHECK-NEXT:     task.family @choose () {
// CHECK-NEXT:       %x = task.load @x[0 : 1, 0 : 402 to 400] : tensor<1x402xf32>
// CHECK-NEXT:       %i = task.argmax %x : tensor<1x402xf32> -> tensor<1xi32>
// CHECK-NEXT:       task.store %i, @next[0 : 1] : tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:     task.order {
// CHECK-NEXT:       task.call @choose[]
// CHECK-NEXT:     }
// CHECK-NEXT:   }
