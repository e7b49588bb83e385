// RUN: amk-opt %s --verify-diagnostics -p 'fuse-into-consumer{ops=rms_norm,norm}' | filecheck %s --check-prefix=CONSUMER
// RUN: amk-opt %s --verify-diagnostics -p 'fuse-into-producer{ops=softmax}' | filecheck %s --check-prefix=PRODUCER

// Kinds of ops that do not exist.
builtin.module {
}
// CONSUMER: fuse-into-consumer: unknown kind 'norm' in ops, expected some of add, argmax, attention, attention_merge, bias_add, gather, matmul, rms_norm, rope, silu_mul, sum_parts
// PRODUCER: fuse-into-producer: unknown kind 'softmax' in ops, expected some of {{.*}}, silu_mul, store
