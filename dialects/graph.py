"""The `graph` dialect: what a decoder step computes, as SSA over builtin tensors.

It models the tensor level of ML compilers (StableHLO, linalg on tensors) with the op names of the transformer field.
Weights are symbols that name checkpoint entries, the KV cache is explicit state, the position is an SSA value, and the
identical decoder layers are one region (`graph.layers`), so that the size of the IR does not grow with their number.

Shapes: T is the number of tokens of a step (static); activations are float32 of shape [T, ...]. A symbol declared with
`layers N` stands for N entries, one a layer; its type is that of one layer, and it is usable inside `graph.layers N`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar, cast

from xdsl.dialects.builtin import (
    I64,
    AnyFloat,
    Float32Type,
    Float64Type,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    TensorType,
    f64,
    i32,
    i64,
)
from xdsl.ir import Attribute, Dialect, Operation, Region, SSAValue
from xdsl.irdl import (
    EqAttrConstraint,
    IRDLOperation,
    ParsePropInAttrDict,
    VarConstraint,
    base,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.pattern_rewriter import RewritePattern
from xdsl.printer import Printer
from xdsl.traits import (
    HasCanonicalizationPatternsTrait,
    HasParent,
    IsTerminator,
    MemoryWriteEffect,
    NoTerminator,
    Pure,
    RecursiveMemoryEffect,
    SymbolOpInterface,
    SymbolTable,
)
from xdsl.utils.exceptions import VerifyException

from ..amk_ir.attrs import CheckpointAttr, RopeFrequenciesAttr

OpT = TypeVar("OpT", bound=Operation)

F32Tensor = TensorType[Float32Type]
IdTensor = TensorType[IntegerType]
WeightTensor = TensorType[AnyFloat]

_IDS = TensorType.constr(EqAttrConstraint(i32))
_F32 = base(TensorType[Float32Type])
_SYMBOL = base(SymbolRefAttr)


def _symbol(name: str | SymbolRefAttr) -> SymbolRefAttr:
    return SymbolRefAttr(name) if isinstance(name, str) else name


def _shape(value: SSAValue) -> tuple[int, ...]:
    return cast(TensorType[Attribute], value.type).get_shape()


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def enclosing_layers(op: Operation) -> int | None:
    """Number of layers of the `graph.layers` around `op`, None outside."""
    parent = op.parent_op()
    while parent is not None and not isinstance(parent, LayersOp):
        parent = parent.parent_op()
    return None if parent is None else parent.count.value.data


def _resolve(op: Operation, name: SymbolRefAttr, kind: type[OpT]) -> OpT:
    """The weight or cache that `op` refers to; checks that its `layers` fit where it is used."""
    found = SymbolTable.lookup_symbol(op, name)
    if not isinstance(found, kind):
        what = kind.name if found is None else f"{kind.name}, found {found.name}"
        raise VerifyException(f"'{op.name}' refers to @{name.string_value()}, expected a {what} of the model")
    layers = found.properties.get("layers")
    declared = cast("IntegerAttr", layers).value.data if layers is not None else None
    if declared != (around := enclosing_layers(op)):
        raise VerifyException(
            f"'{op.name}' uses @{name.string_value()} declared with {declared or 'no'} layers "
            f"inside {f'graph.layers {around}' if around else 'no graph.layers'}"
        )
    return found


# ---- structure ----------------------------------------------------------------------------------------------------


@irdl_op_definition
class ModelOp(IRDLOperation):
    """A model: weights, caches and one step. Positions are below `max_seq`.

    ```mlir
    graph.model @tiny max_seq 64 { ... }
    ```
    """

    name = "graph.model"

    sym_name = prop_def(SymbolNameConstraint())
    max_seq = prop_def(IntegerAttr[I64])
    body = region_def("single_block")

    traits = traits_def(SymbolOpInterface(), SymbolTable(), NoTerminator())

    def __init__(self, name: str, max_seq: int, body: Region):
        super().__init__(
            properties={"sym_name": StringAttr(name), "max_seq": IntegerAttr(max_seq, i64)}, regions=[body]
        )

    @property
    def step(self) -> StepOp:
        """The one step of the model."""
        return next(op for op in self.body.block.ops if isinstance(op, StepOp))

    @classmethod
    def parse(cls, parser: Parser) -> ModelOp:
        name = parser.parse_symbol_name().data
        parser.parse_keyword("max_seq")
        max_seq = parser.parse_integer(allow_boolean=False)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = ModelOp(name, max_seq, parser.parse_region())
        if attributes is not None:
            op.attributes |= attributes.data
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(f" max_seq {self.max_seq.value.data} ")
        if self.attributes:
            printer.print_op_attributes(self.attributes, print_keyword=True)
            printer.print_string(" ")
        printer.print_region(self.body, print_block_terminators=False)

    def verify_(self) -> None:
        if self.max_seq.value.data < 1:
            raise VerifyException(f"max_seq must be at least 1, found {self.max_seq.value.data}")
        steps = sum(isinstance(op, StepOp) for op in self.body.block.ops)
        if steps != 1:
            raise VerifyException(f"a model has exactly one graph.step, found {steps}")
        for op in self.body.block.ops:
            if not isinstance(op, WeightOp | CacheOp | StepOp):
                raise VerifyException(f"a model holds weights, caches and one step, found '{op.name}'")


@irdl_op_definition
class WeightOp(IRDLOperation):
    """A constant tensor, or one for each layer. With a checkpoint source, `{layer}` in its name is the layer.

    ```mlir
    graph.weight @q_proj layers 30 from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.weight"> : tensor<9x64x576xf32>
    ```
    """

    name = "graph.weight"

    sym_name = prop_def(SymbolNameConstraint())
    layers = opt_prop_def(IntegerAttr[I64])
    source = prop_def(base(CheckpointAttr) | base(RopeFrequenciesAttr))
    type = prop_def(TensorType[AnyFloat])

    traits = traits_def(SymbolOpInterface(), HasParent(ModelOp))

    assembly_format = "$sym_name (`layers` $layers^)? `from` $source `:` $type attr-dict"

    def __init__(
        self, name: str, source: CheckpointAttr | RopeFrequenciesAttr, type: WeightTensor, layers: int | None = None
    ):
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "layers": None if layers is None else IntegerAttr(layers, i64),
                "source": source,
                "type": type,
            }
        )

    def verify_(self) -> None:
        _verify_layers(self.layers)
        if any(d < 1 for d in self.type.get_shape()):
            raise VerifyException(f"weight shape must be static and positive, found {self.type}")
        if isinstance(self.source, RopeFrequenciesAttr):
            half = self.source.data.head_dim // 2
            if self.type.get_shape() != (half,) or self.layers is not None:
                raise VerifyException(f"rope frequencies of head_dim {2 * half} are tensor<{half}xf32>, without layers")
        elif ("{layer}" in self.source.data) != (self.layers is not None):
            raise VerifyException(
                f'checkpoint entry "{self.source.data}" must contain {{layer}} exactly if the weight has layers'
            )


@irdl_op_definition
class CacheOp(IRDLOperation):
    """State that lives across steps: keys or values of all positions, [max_seq, kv_heads, head_dim].

    ```mlir
    graph.cache @k_cache layers 30 : tensor<2048x3x64xf32>
    ```
    """

    name = "graph.cache"

    sym_name = prop_def(SymbolNameConstraint())
    layers = opt_prop_def(IntegerAttr[I64])
    type = prop_def(TensorType[AnyFloat])

    traits = traits_def(SymbolOpInterface(), HasParent(ModelOp))

    assembly_format = "$sym_name (`layers` $layers^)? `:` $type attr-dict"

    def __init__(self, name: str, type: WeightTensor, layers: int | None = None):
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "layers": None if layers is None else IntegerAttr(layers, i64),
                "type": type,
            }
        )

    def verify_(self) -> None:
        _verify_layers(self.layers)
        shape = self.type.get_shape()
        if len(shape) != 3 or any(d < 1 for d in shape):
            raise VerifyException(f"a cache is [max_seq, kv_heads, head_dim], found {self.type}")
        parent = self.parent_op()
        if isinstance(parent, ModelOp) and shape[0] != parent.max_seq.value.data:
            raise VerifyException(
                f"cache holds {shape[0]} positions, the model has max_seq {parent.max_seq.value.data}"
            )


def _verify_layers(layers: IntegerAttr | None) -> None:
    if layers is not None and layers.value.data < 1:
        raise VerifyException(f"layers must be at least 1, found {layers.value.data}")


@irdl_op_definition
class StepOp(IRDLOperation):
    """One decoder step: from T token ids and the position of the first of them to the results of `graph.return`.

    ```mlir
    graph.step (%token : tensor<1xi32>, %pos : index) { ... graph.return %logits, %next : ... }
    ```
    """

    name = "graph.step"

    body = region_def("single_block")

    traits = traits_def(HasParent(ModelOp))

    def __init__(self, body: Region):
        super().__init__(regions=[body])

    @property
    def tokens(self) -> SSAValue:
        """The token ids, tensor<Txi32>."""
        return self.body.block.args[0]

    @property
    def pos(self) -> SSAValue:
        """The position of the first token, index."""
        return self.body.block.args[1]

    @classmethod
    def parse(cls, parser: Parser) -> StepOp:
        arguments = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_argument)
        return StepOp(parser.parse_region(arguments))

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        with printer.in_parens():
            printer.print_list(self.body.block.args, printer.print_block_argument)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)

    def verify_(self) -> None:
        types = self.body.block.arg_types
        if len(types) != 2 or not _IDS.verifies(types[0]) or types[1] != IndexType():
            raise VerifyException(f"a step takes (tensor<Txi32>, index), found ({', '.join(map(str, types))})")
        if not isinstance(self.body.block.last_op, ReturnOp):
            raise VerifyException("a step ends in graph.return")


@irdl_op_definition
class ReturnOp(IRDLOperation):
    """Results of a step: the logits [T, vocab] and the chosen next token ids [T].

    ```mlir
    graph.return %logits, %next : tensor<1x49152xf32>, tensor<1xi32>
    ```
    """

    name = "graph.return"

    logits = operand_def(_F32)
    next_token = operand_def(_IDS)

    traits = traits_def(IsTerminator(), HasParent(StepOp))

    assembly_format = "$logits `,` $next_token `:` type($logits) `,` type($next_token) attr-dict"

    def __init__(self, logits: SSAValue, next_token: SSAValue):
        super().__init__(operands=[logits, next_token])


class LayersOpHasCanonicalizationPatterns(HasCanonicalizationPatternsTrait):
    @classmethod
    def get_canonicalization_patterns(cls) -> tuple[RewritePattern, ...]:
        from .canonicalization_graph import DropUnusedCarried, ForwardInvariantCarried

        return (ForwardInvariantCarried(), DropUnusedCarried())


@irdl_op_definition
class LayersOp(IRDLOperation):
    """`count` identical layers, each with its own weights: a loop that carries tensors.

    ```mlir
    %x = graph.layers 30 (%h = %x0) : tensor<1x576xf32> { ... graph.yield %h2 : tensor<1x576xf32> }
    ```
    """

    name = "graph.layers"

    count = prop_def(IntegerAttr[I64])
    inits = var_operand_def(_F32)
    outs = var_result_def(_F32)
    body = region_def("single_block")

    traits = traits_def(HasParent(StepOp), RecursiveMemoryEffect(), LayersOpHasCanonicalizationPatterns())

    def __init__(self, count: int, inits: Sequence[SSAValue], body: Region):
        super().__init__(
            operands=[inits],
            result_types=[[v.type for v in inits]],
            properties={"count": IntegerAttr(count, i64)},
            regions=[body],
        )

    @classmethod
    def parse(cls, parser: Parser) -> LayersOp:
        count = parser.parse_integer(allow_boolean=False)

        def parse_carried() -> tuple[Parser.UnresolvedArgument, UnresolvedOperand]:
            argument = parser.parse_argument(expect_type=False)
            parser.parse_punctuation("=")
            return argument, parser.parse_unresolved_operand()

        carried = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parse_carried)
        parser.parse_punctuation(":")
        types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
        if len(types) != len(carried):
            parser.raise_error(f"{len(carried)} carried values need as many types, found {len(types)}")
        inits = [parser.resolve_operand(operand, t) for (_, operand), t in zip(carried, types, strict=True)]
        arguments = [argument.resolve(t) for (argument, _), t in zip(carried, types, strict=True)]
        return LayersOp(count, inits, parser.parse_region(arguments))

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {self.count.value.data} ")
        with printer.in_parens():
            printer.print_list(
                zip(self.body.block.args, self.inits, strict=True),
                lambda pair: self._print_carried(printer, *pair),
            )
        printer.print_string(" : ")
        printer.print_list(self.outs.types, printer.print_attribute)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)

    @staticmethod
    def _print_carried(printer: Printer, argument: SSAValue, init: SSAValue) -> None:
        printer.print_ssa_value(argument)
        printer.print_string(" = ")
        printer.print_ssa_value(init)

    def verify_(self) -> None:
        if self.count.value.data < 1:
            raise VerifyException(f"the number of layers must be at least 1, found {self.count.value.data}")
        types = tuple(self.inits.types)
        last = self.body.block.last_op
        if not isinstance(last, YieldOp):
            raise VerifyException("graph.layers ends in graph.yield")
        if not types == tuple(self.outs.types) == tuple(self.body.block.arg_types) == tuple(last.values.types):
            raise VerifyException("carried values, block arguments, yielded values and results must have equal types")


@irdl_op_definition
class YieldOp(IRDLOperation):
    """The values carried to the next layer.

    ```mlir
    graph.yield %h : tensor<1x576xf32>
    ```
    """

    name = "graph.yield"

    values = var_operand_def(_F32)

    traits = traits_def(IsTerminator(), HasParent(LayersOp), Pure())

    assembly_format = "$values `:` type($values) attr-dict"

    def __init__(self, values: Sequence[SSAValue]):
        super().__init__(operands=[values])


# ---- computation --------------------------------------------------------------------------------------------------


@irdl_op_definition
class EmbeddingOp(IRDLOperation):
    """Rows of an embedding table: [T] ids, table [vocab, width] -> [T, width].

    ```mlir
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x576xf32>
    ```
    """

    name = "graph.embedding"

    ids = operand_def(_IDS)
    table = prop_def(_SYMBOL)
    result = result_def(_F32)

    traits = traits_def(Pure())

    assembly_format = "$ids `,` $table `:` `(` type($ids) `)` `->` type($result) attr-dict"

    def __init__(self, ids: SSAValue, table: str | SymbolRefAttr, result_type: F32Tensor):
        super().__init__(operands=[ids], properties={"table": _symbol(table)}, result_types=[result_type])

    def verify_(self) -> None:
        table = _resolve(self, self.table, WeightOp).type.get_shape()
        if len(table) != 2 or _shape(self.result) != (*_shape(self.ids), table[1]):
            raise VerifyException(
                f"table {_text(table)} and ids {_text(_shape(self.ids))} do not give {_text(_shape(self.result))}"
            )


@irdl_op_definition
class LinearOp(IRDLOperation):
    """`y = x w^T (+ bias)`: x [T, *k], w [*n, *k], bias [*n] -> [T, *n].

    ```mlir
    %q = graph.linear %n, @q_proj bias @q_bias : (tensor<1x576xf32>) -> tensor<1x9x64xf32>
    ```
    """

    name = "graph.linear"

    x = operand_def(_F32)
    weight = prop_def(_SYMBOL)
    bias = opt_prop_def(_SYMBOL)
    result = result_def(_F32)

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
            properties={"weight": _symbol(weight), "bias": None if bias is None else _symbol(bias)},
            result_types=[result_type],
        )

    def verify_(self) -> None:
        weight = _resolve(self, self.weight, WeightOp).type.get_shape()
        x, result = _shape(self.x), _shape(self.result)
        if weight != (*result[1:], *x[1:]) or x[0] != result[0]:
            raise VerifyException(
                f"weight @{self.weight.string_value()} {_text(weight)} does not take {_text(x)} to {_text(result)}"
            )
        if self.bias is not None:
            bias = _resolve(self, self.bias, WeightOp).type.get_shape()
            if bias != result[1:]:
                raise VerifyException(
                    f"bias @{self.bias.string_value()} is {_text(bias)}, expected {_text(result[1:])}"
                )


@irdl_op_definition
class RmsNormOp(IRDLOperation):
    """`y = x / sqrt(mean(x^2) + eps) * weight` over the last dimension: x [..., width], weight [width].

    ```mlir
    %n = graph.rms_norm %x, @norm {eps = 1e-05 : f64} : tensor<1x576xf32>
    ```
    """

    name = "graph.rms_norm"
    T: ClassVar = VarConstraint("T", _F32)

    x = operand_def(T)
    weight = prop_def(_SYMBOL)
    eps = prop_def(FloatAttr[Float64Type])
    result = result_def(T)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x `,` $weight attr-dict `:` type($x)"

    def __init__(self, x: SSAValue, weight: str | SymbolRefAttr, eps: float | FloatAttr[AnyFloat]):
        super().__init__(
            operands=[x],
            properties={
                "weight": _symbol(weight),
                "eps": eps if isinstance(eps, FloatAttr) else FloatAttr(eps, f64),
            },
            result_types=[x.type],
        )

    def verify_(self) -> None:
        weight = _resolve(self, self.weight, WeightOp).type.get_shape()
        if weight != _shape(self.x)[-1:]:
            raise VerifyException(
                f"norm weight @{self.weight.string_value()} is {_text(weight)}, input is {_text(_shape(self.x))}"
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
    T: ClassVar = VarConstraint("T", _F32)

    x = operand_def(T)
    frequencies = prop_def(_SYMBOL)
    pos = operand_def(IndexType)
    result = result_def(T)

    traits = traits_def(Pure())

    assembly_format = "$x `,` $frequencies `at` $pos `:` type($x) attr-dict"

    def __init__(self, x: SSAValue, frequencies: str | SymbolRefAttr, pos: SSAValue):
        super().__init__(operands=[x, pos], properties={"frequencies": _symbol(frequencies)}, result_types=[x.type])

    def verify_(self) -> None:
        found = SymbolTable.lookup_symbol(self, self.frequencies)
        if not isinstance(found, WeightOp) or found.layers is not None:
            raise VerifyException(f"@{self.frequencies.string_value()} must be a graph.weight without layers")
        shape = _shape(self.x)
        if len(shape) != 3 or found.type.get_shape() != (shape[-1] // 2,) or shape[-1] % 2:
            raise VerifyException(
                f"rope rotates [T, heads, head_dim] with [head_dim / 2] frequencies, found {_text(shape)} "
                f"and {_text(found.type.get_shape())}"
            )


@irdl_op_definition
class CacheAppendOp(IRDLOperation):
    """Writes rows `[pos, pos + T)` of a cache; the result is the whole cache after the write.

    ```mlir
    %ka = graph.cache_append %k, @k_cache at %pos : (tensor<1x3x64xf32>) -> tensor<2048x3x64xf32>
    ```
    """

    name = "graph.cache_append"

    rows = operand_def(_F32)
    cache = prop_def(_SYMBOL)
    pos = operand_def(IndexType)
    result = result_def(TensorType[AnyFloat])

    # The write outlives the step: an append whose result is unused must stay.
    traits = traits_def(MemoryWriteEffect())

    assembly_format = "$rows `,` $cache `at` $pos `:` `(` type($rows) `)` `->` type($result) attr-dict"

    def __init__(self, rows: SSAValue, cache: str | SymbolRefAttr, pos: SSAValue, result_type: WeightTensor):
        super().__init__(operands=[rows, pos], properties={"cache": _symbol(cache)}, result_types=[result_type])

    def verify_(self) -> None:
        cache = _resolve(self, self.cache, CacheOp)
        if self.result.type != cache.type:
            raise VerifyException(f"result {self.result.type} differs from cache {cache.type}")
        if _shape(self.rows)[1:] != cache.type.get_shape()[1:]:
            raise VerifyException(f"rows {_text(_shape(self.rows))} do not fit cache {cache.type}")


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
    Q: ClassVar = VarConstraint("Q", _F32)
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
        q, k = _shape(self.q), _shape(self.k)
        if len(q) != 3 or len(k) != 3 or q[2] != k[2]:
            raise VerifyException(f"attention takes q [T, heads, head_dim], found {_text(q)}, and k {_text(k)}")
        if q[1] % k[1]:
            raise VerifyException(f"{q[1]} heads are not divisible by {k[1]} KV heads")


class _Elementwise(IRDLOperation):
    """Base of pointwise ops of two equal tensors."""

    T: ClassVar = VarConstraint("T", _F32)

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

    x = operand_def(_F32)
    result = result_def(_IDS)

    traits = traits_def(Pure())

    assembly_format = "$x `:` type($x) `->` type($result) attr-dict"

    def __init__(self, x: SSAValue):
        rows = _shape(x)[0]
        super().__init__(operands=[x], result_types=[TensorType(i32, [rows])])

    def verify_(self) -> None:
        if len(_shape(self.x)) != 2 or _shape(self.result) != _shape(self.x)[:1]:
            raise VerifyException(f"argmax takes [T, vocab] to [T], found {_text(_shape(self.x))}")


Graph = Dialect(
    "graph",
    [
        AddOp,
        ArgmaxOp,
        AttentionOp,
        CacheAppendOp,
        CacheOp,
        EmbeddingOp,
        LayersOp,
        LinearOp,
        ModelOp,
        ReturnOp,
        RmsNormOp,
        RopeOp,
        SiluMulOp,
        StepOp,
        WeightOp,
        YieldOp,
    ],
)
