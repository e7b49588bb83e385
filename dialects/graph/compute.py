"""The ops of the `graph` dialect that compute."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import ClassVar

from xdsl.dialects.builtin import (
    AnyFloat,
    Float64Type,
    FloatAttr,
    IndexType,
    SymbolRefAttr,
    TensorType,
    f64,
    i32,
)
from xdsl.ir import Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    VarConstraint,
    base,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import (
    MemoryWriteEffect,
    Pure,
    SymbolTable,
)
from xdsl.utils.exceptions import VerifyException

from ...amk_ir.quantized_type import QuantizedType
from .layers import resolve
from .structure import CacheOp, WeightOp
from .values import F32, IDS, SYMBOL, CacheTensor, F32Tensor, shape_of, shape_text, symbol_ref


def _verify_rows(weight: WeightOp, row: Sequence[int]) -> None:
    """Checks that the rows of a quantised weight are what its user takes for rows, dimensions `row`."""
    element = weight.type.get_element_type()
    if isinstance(element, QuantizedType) and element.columns != prod(row):
        raise VerifyException(
            f"weight @{weight.sym_name.data} is quantised in rows of {element.columns} columns, it is used in rows of "
            f"{shape_text(row)}"
        )


def _vector_shape(op: Operation, name: SymbolRefAttr) -> tuple[int, ...]:
    """The shape of a weight that is added or multiplied element by element, which must not be quantised."""
    weight = resolve(op, name, WeightOp)
    if isinstance(weight.type.get_element_type(), QuantizedType):
        raise VerifyException(f"'{op.name}' takes a weight of floats, @{name.string_value()} is {weight.type}")
    return weight.type.get_shape()


@irdl_op_definition
class EmbeddingOp(IRDLOperation):
    """Rows of an embedding table: [T] ids, table [vocab, width] -> [T, width].

    ```mlir
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x576xf32>
    ```
    """

    name = "graph.embedding"

    ids = operand_def(IDS)
    table = prop_def(SYMBOL)
    result = result_def(F32)

    traits = traits_def(Pure())

    assembly_format = "$ids `,` $table `:` `(` type($ids) `)` `->` type($result) attr-dict"

    def __init__(self, ids: SSAValue, table: str | SymbolRefAttr, result_type: F32Tensor):
        super().__init__(operands=[ids], properties={"table": symbol_ref(table)}, result_types=[result_type])

    def verify_(self) -> None:
        weight = resolve(self, self.table, WeightOp)
        table = weight.type.get_shape()
        if len(table) != 2 or shape_of(self.result) != (*shape_of(self.ids), table[1]):
            raise VerifyException(
                f"table {shape_text(table)} and ids {shape_text(shape_of(self.ids))} do not give {shape_text(shape_of(self.result))}"
            )
        _verify_rows(weight, table[1:])


@irdl_op_definition
class LinearOp(IRDLOperation):
    """`y = x w^T (+ bias)`: x [T, *k], w [*n, *k], bias [*n] -> [T, *n].

    ```mlir
    %q = graph.linear %n, @q_proj bias @q_bias : (tensor<1x576xf32>) -> tensor<1x9x64xf32>
    ```
    """

    name = "graph.linear"

    x = operand_def(F32)
    weight = prop_def(SYMBOL)
    bias = opt_prop_def(SYMBOL)
    result = result_def(F32)

    traits = traits_def(Pure())

    assembly_format = "$x `,` $weight (`bias` $bias^)? `:` `(` type($x) `)` `->` type($result) attr-dict"

    def __init__(
        self,
        x: SSAValue,
        weight: str | SymbolRefAttr,
        result_type: F32Tensor,
        bias: str | SymbolRefAttr | None = None,
    ):
        super().__init__(
            operands=[x],
            properties={"weight": symbol_ref(weight), "bias": None if bias is None else symbol_ref(bias)},
            result_types=[result_type],
        )

    def verify_(self) -> None:
        op = resolve(self, self.weight, WeightOp)
        weight = op.type.get_shape()
        x, result = shape_of(self.x), shape_of(self.result)
        if weight != (*result[1:], *x[1:]) or x[0] != result[0]:
            raise VerifyException(
                f"weight @{self.weight.string_value()} {shape_text(weight)} does not take {shape_text(x)} to {shape_text(result)}"
            )
        _verify_rows(op, x[1:])
        if self.bias is not None:
            bias = _vector_shape(self, self.bias)
            if bias != result[1:]:
                raise VerifyException(
                    f"bias @{self.bias.string_value()} is {shape_text(bias)}, expected {shape_text(result[1:])}"
                )


@irdl_op_definition
class RmsNormOp(IRDLOperation):
    """`y = x / sqrt(mean(x^2) + eps) * weight` over the last dimension: x [..., width], weight [width].

    ```mlir
    %n = graph.rms_norm %x, @norm {eps = 1e-05 : f64} : tensor<1x576xf32>
    ```
    """

    name = "graph.rms_norm"
    T: ClassVar = VarConstraint("T", F32)

    x = operand_def(T)
    weight = prop_def(SYMBOL)
    eps = prop_def(FloatAttr[Float64Type])
    result = result_def(T)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x `,` $weight attr-dict `:` type($x)"

    def __init__(self, x: SSAValue, weight: str | SymbolRefAttr, eps: float | FloatAttr[AnyFloat]):
        super().__init__(
            operands=[x],
            properties={
                "weight": symbol_ref(weight),
                "eps": eps if isinstance(eps, FloatAttr) else FloatAttr(eps, f64),
            },
            result_types=[x.type],
        )

    def verify_(self) -> None:
        if not 0 < self.eps.value.data < inf:
            raise VerifyException(f"eps must be finite and positive, found {self.eps.value.data}")
        weight = _vector_shape(self, self.weight)
        if weight != shape_of(self.x)[-1:]:
            raise VerifyException(
                f"norm weight @{self.weight.string_value()} is {shape_text(weight)}, input is {shape_text(shape_of(self.x))}"
            )


@irdl_op_definition
class RopeOp(IRDLOperation):
    """Rotary embedding, rotate-half form, of [T, heads, head_dim]; row r stands at position `pos + r`.

    With a = (pos + r) * frequencies: y[:half] = x[:half] cos a - x[half:] sin a; y[half:] = x[half:] cos a + x[:half] sin a.

    ```mlir
    %r = graph.rope %q, @inv_freq at %pos : tensor<1x9x64xf32>
    ```
    """

    name = "graph.rope"
    T: ClassVar = VarConstraint("T", F32)

    x = operand_def(T)
    frequencies = prop_def(SYMBOL)
    pos = operand_def(IndexType)
    result = result_def(T)

    traits = traits_def(Pure())

    assembly_format = "$x `,` $frequencies `at` $pos `:` type($x) attr-dict"

    def __init__(self, x: SSAValue, frequencies: str | SymbolRefAttr, pos: SSAValue):
        super().__init__(operands=[x, pos], properties={"frequencies": symbol_ref(frequencies)}, result_types=[x.type])

    def verify_(self) -> None:
        found = SymbolTable.lookup_symbol(self, self.frequencies)
        if not isinstance(found, WeightOp) or found.layers is not None:
            raise VerifyException(f"@{self.frequencies.string_value()} must be a graph.weight without layers")
        shape = shape_of(self.x)
        if len(shape) != 3 or found.type.get_shape() != (shape[-1] // 2,) or shape[-1] % 2:
            raise VerifyException(
                f"rope rotates [T, heads, head_dim] with [head_dim / 2] frequencies, found {shape_text(shape)} "
                f"and {shape_text(found.type.get_shape())}"
            )


@irdl_op_definition
class CacheAppendOp(IRDLOperation):
    """Writes rows `[pos, pos + T)` of a cache; the result is the whole cache after the write.

    ```mlir
    %ka = graph.cache_append %k, @k_cache at %pos : (tensor<1x3x64xf32>) -> tensor<2048x3x64xf32>
    ```
    """

    name = "graph.cache_append"

    rows = operand_def(F32)
    cache = prop_def(SYMBOL)
    pos = operand_def(IndexType)
    result = result_def(TensorType[AnyFloat])

    # The write outlives the step: an append whose result is unused must stay.
    traits = traits_def(MemoryWriteEffect())

    assembly_format = "$rows `,` $cache `at` $pos `:` `(` type($rows) `)` `->` type($result) attr-dict"

    def __init__(self, rows: SSAValue, cache: str | SymbolRefAttr, pos: SSAValue, result_type: CacheTensor):
        super().__init__(operands=[rows, pos], properties={"cache": symbol_ref(cache)}, result_types=[result_type])

    def verify_(self) -> None:
        cache = resolve(self, self.cache, CacheOp)
        if self.result.type != cache.type:
            raise VerifyException(f"result {self.result.type} differs from cache {cache.type}")
        if shape_of(self.rows)[1:] != cache.type.get_shape()[1:]:
            raise VerifyException(f"rows {shape_text(shape_of(self.rows))} do not fit cache {cache.type}")


@irdl_op_definition
class AttentionOp(IRDLOperation):
    """Causal grouped-query attention; row r sees positions `[0, pos + r]`.

    q [T, heads, head_dim], k and v [max_seq, kv_heads, head_dim] -> [T, heads, head_dim]; head h uses KV head
    `h // (heads / kv_heads)`; scores are scaled by `scale`.

    ```mlir
    %o = graph.attention %q, %k, %v at %pos {scale = 0.125 : f64} : (tensor<1x9x64xf32>, tensor<64x3x64xf32>, tensor<64x3x64xf32>) -> tensor<1x9x64xf32>
    ```
    """

    name = "graph.attention"
    Q: ClassVar = VarConstraint("Q", F32)
    KV: ClassVar = VarConstraint("KV", base(TensorType[AnyFloat]))

    q = operand_def(Q)
    k = operand_def(KV)
    v = operand_def(KV)
    pos = operand_def(IndexType)
    scale = prop_def(FloatAttr[Float64Type])
    result = result_def(Q)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$q `,` $k `,` $v `at` $pos attr-dict `:` `(` type($q) `,` type($k) `,` type($v) `)` `->` type($result)"
    )

    def __init__(self, q: SSAValue, k: SSAValue, v: SSAValue, pos: SSAValue, scale: float):
        super().__init__(operands=[q, k, v, pos], properties={"scale": FloatAttr(scale, f64)}, result_types=[q.type])

    def verify_(self) -> None:
        if not 0 < abs(self.scale.value.data) < inf:
            raise VerifyException(f"scale must be finite and not zero, found {self.scale.value.data}")
        q, k = shape_of(self.q), shape_of(self.k)
        if len(q) != 3 or len(k) != 3 or q[2] != k[2]:
            raise VerifyException(
                f"attention takes q [T, heads, head_dim], found {shape_text(q)}, and k {shape_text(k)}"
            )
        if q[1] % k[1]:
            raise VerifyException(f"{q[1]} heads are not divisible by {k[1]} KV heads")


class _Elementwise(IRDLOperation):
    """Base of pointwise ops of two equal tensors."""

    T: ClassVar = VarConstraint("T", F32)

    lhs = operand_def(T)
    rhs = operand_def(T)
    result = result_def(T)

    traits = traits_def(Pure())
    assembly_format = "$lhs `,` $rhs `:` type($lhs) attr-dict"

    def __init__(self, lhs: SSAValue, rhs: SSAValue):
        super().__init__(operands=[lhs, rhs], result_types=[lhs.type])


@irdl_op_definition
class AddOp(_Elementwise):
    """Pointwise sum (the residual connection).

    ```mlir
    %h = graph.add %x, %o : tensor<1x576xf32>
    ```
    """

    name = "graph.add"


@irdl_op_definition
class SiluMulOp(_Elementwise):
    """Gated activation `silu(lhs) * rhs` with silu(x) = x / (1 + exp(-x)).

    ```mlir
    %m = graph.silu_mul %gate, %up : tensor<1x1536xf32>
    ```
    """

    name = "graph.silu_mul"


@irdl_op_definition
class ArgmaxOp(IRDLOperation):
    """Index of the greatest logit of each row, the lowest such index on ties: [T, vocab] -> [T].

    ```mlir
    %next = graph.argmax %logits : tensor<1x49152xf32> -> tensor<1xi32>
    ```
    """

    name = "graph.argmax"

    x = operand_def(F32)
    result = result_def(IDS)

    traits = traits_def(Pure())

    assembly_format = "$x `:` type($x) `->` type($result) attr-dict"

    def __init__(self, x: SSAValue):
        rows = shape_of(x)[0]
        super().__init__(operands=[x], result_types=[TensorType(i32, [rows])])

    def verify_(self) -> None:
        if len(shape_of(self.x)) != 2 or shape_of(self.result) != shape_of(self.x)[:1]:
            raise VerifyException(f"argmax takes [T, vocab] to [T], found {shape_text(shape_of(self.x))}")
