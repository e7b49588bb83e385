// RUN: amk-opt %s --verify-diagnostics -p 'fuse-into-consumer{ops=rms_norm,norm}' | filecheck %s --check-prefix=CONSUMER
// RUN: amk-opt %s --verify-diagnostics -p 'fuse-into-consumer{readers=norm}' | filecheck %s --check-prefix=READERS
// RUN: amk-opt %s --verify-diagnostics -p 'fuse-into-producer{ops=softmax}' | filecheck %s --check-prefix=PRODUCER

// Kinds of ops that do not exist.
builtin.module {
}
// CONSUMER: fuse-into-consumer: unknown kind 'norm' in ops, expected some of add, argmax, attention, attention_merge, bias_add, gather, matmul, rms_norm, rope, silu_mul, sum_parts
// READERS: fuse-into-consumer: unknown kind 'norm' in readers, expected some of add, argmax
// PRODUCER: fuse-into-producer: unknown kind 'softmax' in ops, expected some of {{.*}}, silu_mul, store
