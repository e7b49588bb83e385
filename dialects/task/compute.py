"""The ops of the `task` dialect that compute on tile values."""

from __future__ import annotations

from math import inf, prod
from typing import ClassVar, cast

from xdsl.dialects.builtin import (
    I64,
    Float64Type,
    FloatAttr,
    IntegerAttr,
    TensorType,
    f32,
    f64,
    i32,
    i64,
)
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
from xdsl.traits import (
    Pure,
)
from xdsl.utils.exceptions import VerifyException

from ...amk_ir.quantized_type import QuantizedType
from .tiles import (
    F32,
    FLOAT,
    IDS,
    WEIGHT,
    AnyTensor,
    shape_of,
    shape_text,
)


@irdl_op_definition
class MatmulOp(IRDLOperation):
    """`y = x w^T`: x [T, *k], w [*n, *k] -> [T, *n].

    ```mlir
    %y = task.matmul %n, %w : (tensor<1x576xf32>, tensor<2x4x576xbf16>) -> tensor<1x2x4xf32>
    ```
    """

    name = "task.matmul"

    x = operand_def(F32)
    w = operand_def(WEIGHT)
    result = result_def(F32)

    traits = traits_def(Pure())
    assembly_format = "$x `,` $w `:` `(` type($x) `,` type($w) `)` `->` type($result) attr-dict"

    def __init__(self, x: SSAValue, w: SSAValue):
        rank = len(shape_of(x)) - 1
        shape = (shape_of(x)[0], *shape_of(w)[: len(shape_of(w)) - rank])
        super().__init__(operands=[x, w], result_types=[TensorType(f32, shape)])

    def verify_(self) -> None:
        x, w, y = shape_of(self.x), shape_of(self.w), shape_of(self.result)
        if not x or not y or x[0] != y[0] or w != (*y[1:], *x[1:]):
            raise VerifyException(f"weight tile {shape_text(w)} does not take {shape_text(x)} to {shape_text(y)}")
        element = cast(AnyTensor, self.w.type).get_element_type()
        if isinstance(element, QuantizedType) and element.columns < prod(x[1:]):
            raise VerifyException(
                f"the weight tile is quantised in rows of {element.columns} columns, x has rows of {shape_text(x[1:])}"
            )


@irdl_op_definition
class RmsNormOp(IRDLOperation):
    """`y = x / sqrt(mean(x^2) + eps) * weight` over the last dimension: x [T, width], weight [width].

    ```mlir
    %n = task.rms_norm %x, %g {eps = 1.0e-05 : f64} : (tensor<1x576xf32>, tensor<576xbf16>)
    ```
    """

    name = "task.rms_norm"
    T: ClassVar = VarConstraint("T", F32)

    x = operand_def(T)
    weight = operand_def(FLOAT)
    eps = prop_def(FloatAttr[Float64Type])
    result = result_def(T)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x `,` $weight attr-dict `:` `(` type($x) `,` type($weight) `)`"

    def __init__(self, x: SSAValue, weight: SSAValue, eps: float):
        super().__init__(operands=[x, weight], properties={"eps": FloatAttr(eps, f64)}, result_types=[x.type])

    def verify_(self) -> None:
        if not 0 < self.eps.value.data < inf:
            raise VerifyException(f"eps must be finite and positive, found {self.eps.value.data}")
        if len(shape_of(self.x)) != 2 or shape_of(self.weight) != shape_of(self.x)[1:]:
            raise VerifyException(
                f"norm takes x [T, width] and weight [width], found {shape_text(shape_of(self.x))} "
                f"and {shape_text(shape_of(self.weight))}"
            )


@irdl_op_definition
class RopeOp(IRDLOperation):
    """Rotary embedding of [T, ..., 2, n] with frequencies [n]; row r stands at position `pos + r`.

    With a = (pos + r) * frequencies: y[0] = x[0] cos a - x[1] sin a; y[1] = x[1] cos a + x[0] sin a.

    ```mlir
    %r = task.rope %y, %f : (tensor<1x2x4xf32>, tensor<4xf32>)
    ```
    """

    name = "task.rope"
    T: ClassVar = VarConstraint("T", F32)

    x = operand_def(T)
    frequencies = operand_def(F32)
    result = result_def(T)

    traits = traits_def(Pure())
    assembly_format = "$x `,` $frequencies `:` `(` type($x) `,` type($frequencies) `)` attr-dict"

    def __init__(self, x: SSAValue, frequencies: SSAValue):
        super().__init__(operands=[x, frequencies], result_types=[x.type])

    def verify_(self) -> None:
        x, frequencies = shape_of(self.x), shape_of(self.frequencies)
        if len(x) < 3 or x[-2] != 2 or frequencies != x[-1:]:
            raise VerifyException(
                f"rope takes x [T, ..., 2, n] and frequencies [n], found {shape_text(x)} and {shape_text(frequencies)}"
            )


class _Elementwise(IRDLOperation):
    """Base of pointwise ops of two equal tiles."""

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
    """Pointwise sum.

    ```mlir
    %h = task.add %x, %y : tensor<1x8xf32>
    ```
    """

    name = "task.add"


@irdl_op_definition
class SiluMulOp(_Elementwise):
    """Gated activation `silu(lhs) * rhs` with silu(x) = x / (1 + exp(-x)).

    ```mlir
    %m = task.silu_mul %gate, %up : tensor<1x4xf32>
    ```
    """

    name = "task.silu_mul"


@irdl_op_definition
class SumPartsOp(IRDLOperation):
    """Sum of the parts of each row, from the first part to the last: x [T, parts, *n] -> [T, *n].

    ```mlir
    %y = task.sum_parts %x : tensor<1x3x576xf32> -> tensor<1x576xf32>
    ```
    """

    name = "task.sum_parts"

    x = operand_def(F32)
    result = result_def(F32)

    traits = traits_def(Pure())
    assembly_format = "$x `:` type($x) `->` type($result) attr-dict"

    def __init__(self, x: SSAValue):
        shape = shape_of(x)
        super().__init__(operands=[x], result_types=[TensorType(f32, (*shape[:1], *shape[2:]))])

    def verify_(self) -> None:
        x, result = shape_of(self.x), shape_of(self.result)
        if len(x) < 2 or x[1] < 1 or result != (x[0], *x[2:]):
            raise VerifyException(
                f"sum_parts takes [T, parts, *n] to [T, *n], found {shape_text(x)} to {shape_text(result)}"
            )


@irdl_op_definition
class BiasAddOp(IRDLOperation):
    """Adds one vector to every row: x [T, *n], bias [*n].

    ```mlir
    %y = task.bias_add %x, %b : (tensor<1x2x4xf32>, tensor<2x4xbf16>)
    ```
    """

    name = "task.bias_add"
    T: ClassVar = VarConstraint("T", F32)

    x = operand_def(T)
    bias = operand_def(FLOAT)
    result = result_def(T)

    traits = traits_def(Pure())
    assembly_format = "$x `,` $bias `:` `(` type($x) `,` type($bias) `)` attr-dict"

    def __init__(self, x: SSAValue, bias: SSAValue):
        super().__init__(operands=[x, bias], result_types=[x.type])

    def verify_(self) -> None:
        if shape_of(self.bias) != shape_of(self.x)[1:]:
            raise VerifyException(
                f"bias is {shape_text(shape_of(self.bias))}, expected {shape_text(shape_of(self.x)[1:])}"
            )


@irdl_op_definition
class ArgmaxOp(IRDLOperation):
    """Index of the greatest element of each row, the lowest such index on ties: [T, n] -> [T].

    ```mlir
    %next = task.argmax %logits : tensor<1x49152xf32> -> tensor<1xi32>
    ```
    """

    name = "task.argmax"

    x = operand_def(F32)
    result = result_def(IDS)

    traits = traits_def(Pure())
    assembly_format = "$x `:` type($x) `->` type($result) attr-dict"

    def __init__(self, x: SSAValue):
        super().__init__(operands=[x], result_types=[TensorType(i32, [shape_of(x)[0]])])

    def verify_(self) -> None:
        if len(shape_of(self.x)) != 2 or shape_of(self.result) != shape_of(self.x)[:1]:
            raise VerifyException(f"argmax takes [T, n] to [T], found {shape_text(shape_of(self.x))}")


MAX_ARGMAX_PART = 2**22
"""Elements of a row of `task.argmax_part`: twice their index has at most 23 bits, so f32 holds it with one to spare."""


@irdl_op_definition
class ArgmaxPartOp(IRDLOperation):
    """The greatest element of each row of a part and where it is, as two f32: [T, n] -> [T, 2].

    The first is the value v, the second `2 i + b`: i is the lowest index of v in the part, and b the lowest bit of v's
    representation. So `task.argmax_merge` knows v exactly even if words are handed over without their lowest bits.

    ```mlir
    %best = task.argmax_part %logits : tensor<1x420xf32> -> tensor<1x2xf32>
    ```
    """

    name = "task.argmax_part"

    x = operand_def(F32)
    result = result_def(F32)

    traits = traits_def(Pure())
    assembly_format = "$x `:` type($x) `->` type($result) attr-dict"

    def __init__(self, x: SSAValue):
        super().__init__(operands=[x], result_types=[TensorType(f32, [shape_of(x)[0], 2])])

    def verify_(self) -> None:
        x, result = shape_of(self.x), shape_of(self.result)
        if len(x) != 2 or result != (x[0], 2):
            raise VerifyException(f"argmax_part takes [T, n] to [T, 2], found {shape_text(x)} to {shape_text(result)}")
        if x[1] > MAX_ARGMAX_PART:
            raise VerifyException(f"argmax_part numbers at most {MAX_ARGMAX_PART} elements, found {x[1]}")


@irdl_op_definition
class ArgmaxMergeOp(IRDLOperation):
    """Argmax of whole rows from those of their parts: [T, parts, 2] -> [T], the lowest index on ties.

    Element i of part p, as `task.argmax_part` counts them, is element `p * stride + i` of the row. Parts may overlap.

    ```mlir
    %next = task.argmax_merge %best {stride = 372 : i64} : tensor<1x132x2xf32> -> tensor<1xi32>
    ```
    """

    name = "task.argmax_merge"

    x = operand_def(F32)
    stride = prop_def(IntegerAttr[I64])
    result = result_def(IDS)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: SSAValue, stride: int):
        super().__init__(
            operands=[x],
            properties={"stride": IntegerAttr(stride, i64)},
            result_types=[TensorType(i32, [shape_of(x)[0]])],
        )

    def verify_(self) -> None:
        x, result, stride = shape_of(self.x), shape_of(self.result), self.stride.value.data
        if len(x) != 3 or x[2] != 2 or result != x[:1]:
            raise VerifyException(
                f"argmax_merge takes [T, parts, 2] to [T], found {shape_text(x)} to {shape_text(result)}"
            )
        if stride < 1 or (x[1] - 1) * stride + MAX_ARGMAX_PART > 2**31:
            raise VerifyException(f"stride must be at least 1 and keep indices of {x[1]} parts in i32, found {stride}")
