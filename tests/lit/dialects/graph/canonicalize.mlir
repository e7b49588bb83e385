// RUN: amk-opt %s --split-input-file -p canonicalize | filecheck %s

// A carried value that no layer changes is its initial value; layers that do nothing else are gone.
graph.model @invariant max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.layers 2 (%h = %x) : tensor<1x4xf32> {
      %s = graph.add %h, %h : tensor<1x4xf32>
      graph.yield %h : tensor<1x4xf32>
    }
    %logits = graph.linear %y, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}

// CHECK: graph.step (%token: tensor<1xi32>, %pos: index) {
// CHECK-NEXT:       %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
// CHECK-NEXT:       %logits = graph.linear %x, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
// CHECK-NEXT:       %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
// CHECK-NEXT:       graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Of three carried values, one is invariant (b), one unused but for itself (c): only what changes is carried.
graph.model @unused max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %u, %v, %w = graph.layers 2 (%a = %x, %b = %x, %c = %x) : tensor<1x4xf32>, tensor<1x4xf32>, tensor<1x4xf32> {
      %s = graph.add %a, %b : tensor<1x4xf32>
      graph.yield %s, %b, %c : tensor<1x4xf32>, tensor<1x4xf32>, tensor<1x4xf32>
    }
    %y = graph.add %u, %v : tensor<1x4xf32>
    %logits = graph.linear %y, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}

// CHECK: graph.step (%token: tensor<1xi32>, %pos: index) {
// CHECK-NEXT:       %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
// CHECK-NEXT:       %u = graph.layers 2 (%a = %x) : tensor<1x4xf32> {
// CHECK-NEXT:         %s = graph.add %a, %x : tensor<1x4xf32>
// CHECK-NEXT:         graph.yield %s : tensor<1x4xf32>
// CHECK-NEXT:       }
// CHECK-NEXT:       %y = graph.add %u, %x : tensor<1x4xf32>
// CHECK-NEXT:       %logits = graph.linear %y, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
// CHECK-NEXT:       %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
// CHECK-NEXT:       graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }

// -----

// Layers that append to a cache stay, though nothing uses what they carry. Values that change places are carried.
graph.model @needed max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.weight @l layers 2 from #amk.checkpoint<"l.{layer}"> : tensor<2x4x4xf32>
  graph.cache @d layers 2 : tensor<8x2x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y = graph.layers 2 (%h = %x) : tensor<1x4xf32> {
      %k = graph.linear %h, @l : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
      %e = graph.cache_append %k, @d at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
      graph.yield %h : tensor<1x4xf32>
    }
    %u, %v = graph.layers 3 (%a = %x, %b = %y) : tensor<1x4xf32>, tensor<1x4xf32> {
      %s = graph.add %a, %b : tensor<1x4xf32>
      graph.yield %b, %s : tensor<1x4xf32>, tensor<1x4xf32>
    }
    %logits = graph.linear %u, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}

// CHECK: graph.step (%token: tensor<1xi32>, %pos: index) {
// CHECK-NEXT:       %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
// CHECK-NEXT:       %y = graph.layers 2 (%h = %x) : tensor<1x4xf32> {
// CHECK-NEXT:         %k = graph.linear %x, @l : (tensor<1x4xf32>) -> tensor<1x2x4xf32>
// CHECK-NEXT:         %e = graph.cache_append %k, @d at %pos : (tensor<1x2x4xf32>) -> tensor<8x2x4xf32>
// CHECK-NEXT:         graph.yield %h : tensor<1x4xf32>
// CHECK-NEXT:       }
// CHECK-NEXT:       %u, %v = graph.layers 3 (%a = %x, %b = %x) : tensor<1x4xf32>, tensor<1x4xf32> {
// CHECK-NEXT:         %s = graph.add %a, %b : tensor<1x4xf32>
// CHECK-NEXT:         graph.yield %b, %s : tensor<1x4xf32>, tensor<1x4xf32>
// CHECK-NEXT:       }
// CHECK-NEXT:       %logits = graph.linear %u, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
// CHECK-NEXT:       %next = graph.argmax %logits : tensor<1x5xf32> -> tensor<1xi32>
// CHECK-NEXT:       graph.return %logits, %next : tensor<1x5xf32>, tensor<1xi32>
// CHECK-NEXT:     }
// CHECK-NEXT:   }
// CHECK-NEXT: }
