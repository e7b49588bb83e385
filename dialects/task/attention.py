"""The ops of the `task` dialect that attend: whole, over a part of the positions, and from parts."""

from __future__ import annotations

from math import inf
from typing import ClassVar

from xdsl.dialects.builtin import DYNAMIC_INDEX, I64, Float64Type, FloatAttr, IntegerAttr, TensorType, f32, f64, i64
from xdsl.ir import SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from ...amk_ir.access import Dim
from ...amk_ir.attrs import LinearAttr
from ...amk_ir.linear import POSITION, Linear
from .structure import FamilyOp, LoadOp, StreamOp
from .tiles import F32, FLOAT, op_of, shape_of, shape_text

_EARLIER = Dim(Linear(), Linear.of(POSITION))
"""The positions of earlier steps."""


class _Attention(IRDLOperation):
    """Base of ops that attend: their operands, and what holds for the shapes of all of them."""

    Q: ClassVar = VarConstraint("Q", F32)
    KV: ClassVar = VarConstraint("KV", FLOAT)
    NEW: ClassVar = VarConstraint("NEW", F32)

    q = operand_def(Q)
    k = operand_def(KV)
    v = operand_def(KV)
    k_new = operand_def(NEW)
    v_new = operand_def(NEW)
    scale = prop_def(FloatAttr[Float64Type])

    def verify_(self) -> None:
        if not 0 < abs(self.scale.value.data) < inf:
            raise VerifyException(f"scale must be finite and not zero, found {self.scale.value.data}")
        q, k, new = shape_of(self.q), shape_of(self.k), shape_of(self.k_new)
        if len(q) != 4 or len(k) != 4 or q[2:] != k[2:] or q[2] != 2 or k[0] != DYNAMIC_INDEX:
            raise VerifyException(
                f"attention takes q [T, heads, 2, half] and k, v [?, kv_heads, 2, half], found {shape_text(q)} and {shape_text(k)}"
            )
        if q[1] % k[1]:
            raise VerifyException(f"{q[1]} heads are not divisible by {k[1]} KV heads")
        if new != (q[0], *k[1:]):
            raise VerifyException(
                f"k_new and v_new are the rows of this step, {shape_text((q[0], *k[1:]))}, found {shape_text(new)}"
            )
        for value in (self.k, self.v):
            read = op_of(value)
            if isinstance(read, LoadOp | StreamOp):
                positions = next(dim for dim in read.region.dims if dim.kept)
                if positions != _EARLIER:
                    raise VerifyException(f"k and v are the rows of positions {_EARLIER}, found {read.region}")


@irdl_op_definition
class AttentionOp(_Attention):
    """Causal grouped-query attention of rows at `pos`, `pos + 1`, ...; row r sees positions `[0, pos + r]`.

    q [T, heads, 2, half]; k, v [pos, kv_heads, 2, half], the rows of earlier steps; k_new, v_new [T, kv_heads, 2, half], those
    of this step, used as if rounded to the element type of k -> [T, heads, 2, half]. Head h uses KV head
    `h // (heads / kv_heads)`; scores are scaled by `scale`.

    ```mlir
    %o = task.attention %q, %k, %v, %kn, %vn {scale = 0.125 : f64} : (tensor<1x3x2x32xf32>, tensor<?x1x2x32xbf16>, tensor<1x1x2x32xf32>)
    ```
    """

    name = "task.attention"

    result = result_def(_Attention.Q)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$q `,` $k `,` $v `,` $k_new `,` $v_new attr-dict `:` `(` type($q) `,` type($k) `,` type($k_new) `)`"
    )

    def __init__(self, q: SSAValue, k: SSAValue, v: SSAValue, k_new: SSAValue, v_new: SSAValue, scale: float):
        super().__init__(
            operands=[q, k, v, k_new, v_new], properties={"scale": FloatAttr(scale, f64)}, result_types=[q.type]
        )


@irdl_op_definition
class AttentionPartOp(_Attention):
    """`task.attention` over one of several parts of the positions: what `task.attention_merge` makes the whole of.

    Positions are dealt to the parts in blocks: position p is in part `p / block % parts`, and this is part `part`. The
    exponent of a score s is `s * scale * log2(e)`. Results: the sums [T, heads, 2, half] of the values, each times
    2^(its exponent - m), and [T, heads, 2]: m, the greatest exponent, and the sum of these factors. Of no positions:
    0, -3e38 and 0.

    ```mlir
    %sums, %stats = task.attention_part %q, %k, %v, %kn, %vn {scale = 0.125 : f64, part = #amk.linear<part>, parts = 16 : i64, block = 64 : i64} : (tensor<1x3x2x32xf32>, tensor<?x1x2x32xbf16>, tensor<1x1x2x32xf32>) -> tensor<1x3x2xf32>
    ```
    """

    name = "task.attention_part"

    part = prop_def(LinearAttr)
    parts = prop_def(IntegerAttr[I64])
    block = prop_def(IntegerAttr[I64])
    sums = result_def(_Attention.Q)
    stats = result_def(F32)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$q `,` $k `,` $v `,` $k_new `,` $v_new attr-dict `:` "
        "`(` type($q) `,` type($k) `,` type($k_new) `)` `->` type($stats)"
    )

    def __init__(
        self,
        q: SSAValue,
        k: SSAValue,
        v: SSAValue,
        k_new: SSAValue,
        v_new: SSAValue,
        scale: float,
        part: Linear,
        parts: int,
        block: int,
    ):
        super().__init__(
            operands=[q, k, v, k_new, v_new],
            properties={
                "scale": FloatAttr(scale, f64),
                "part": LinearAttr(part),
                "parts": IntegerAttr(parts, i64),
                "block": IntegerAttr(block, i64),
            },
            result_types=[q.type, TensorType(f32, [*shape_of(q)[:2], 2])],
        )

    def verify_(self) -> None:
        super().verify_()
        if shape_of(self.stats) != (expected := (*shape_of(self.q)[:2], 2)):
            raise VerifyException(
                f"the second result of attention_part is {shape_text(expected)}, found {shape_text(shape_of(self.stats))}"
            )
        parts, block = self.parts.value.data, self.block.value.data
        if parts < 1 or block < 1:
            raise VerifyException(f"parts and block must be at least 1, found {parts} and {block}")
        family = self.parent_op()
        if isinstance(family, FamilyOp):
            ranges = {name: (0, extent - 1) for name, extent in family.domain.data}
            if unbound := sorted(self.part.data.names - ranges.keys()):
                raise VerifyException(f"part uses index '{unbound[0]}', which is not in the domain")
            low, high = self.part.data.bounds(ranges)
            if low < 0 or high >= parts:
                raise VerifyException(f"part must lie in [0, {parts}), found [{low}, {high}]")


@irdl_op_definition
class AttentionMergeOp(IRDLOperation):
    """Attention from all its parts: sums [parts, T, heads, 2, half] and [parts, T, heads, 2] -> [T, heads, 2, half].

    ```mlir
    %o = task.attention_merge %sums, %stats : (tensor<16x1x3x2x32xf32>, tensor<16x1x3x2xf32>) -> tensor<1x3x2x32xf32>
    ```
    """

    name = "task.attention_merge"

    sums = operand_def(F32)
    stats = operand_def(F32)
    result = result_def(F32)

    traits = traits_def(Pure())
    assembly_format = "$sums `,` $stats attr-dict `:` `(` type($sums) `,` type($stats) `)` `->` type($result)"

    def __init__(self, sums: SSAValue, stats: SSAValue):
        super().__init__(operands=[sums, stats], result_types=[TensorType(f32, shape_of(sums)[1:])])

    def verify_(self) -> None:
        sums, stats, result = shape_of(self.sums), shape_of(self.stats), shape_of(self.result)
        if len(sums) != 5 or sums[1:] != result or stats != (*sums[:3], 2):
            raise VerifyException(
                "attention_merge takes [parts, T, heads, 2, half] and [parts, T, heads, 2] to [T, heads, 2, half], found "
                f"{shape_text(sums)} and {shape_text(stats)} to {shape_text(result)}"
            )
