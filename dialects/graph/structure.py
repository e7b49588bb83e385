"""The structure of the `graph` dialect: models, weights, caches and the step."""

from __future__ import annotations

from xdsl.dialects.builtin import (
    I64,
    AnyFloat,
    IndexType,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    TensorType,
    i64,
)
from xdsl.ir import Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    base,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    traits_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import HasParent, IsTerminator, NoTerminator, SymbolOpInterface, SymbolTable
from xdsl.utils.exceptions import VerifyException

from ...amk_ir.attrs import MAX_EXTENT, MAX_LAYERS, CheckpointAttr, RopeFrequenciesAttr, parse_count, size_problem
from ...amk_ir.quantized_type import QuantizedType, rows_problem
from ..outside_in import OutsideIn
from .values import F32, IDS, WEIGHT, CacheTensor, WeightTensor, shape_of


@irdl_op_definition
class ModelOp(OutsideIn):
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
        max_seq = parse_count(parser, "max_seq", MAX_EXTENT)
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
        if self.max_seq.value.data > MAX_EXTENT:
            raise VerifyException(f"max_seq must be at most {MAX_EXTENT}, found {self.max_seq.value.data}")
        steps = sum(isinstance(op, StepOp) for op in self.body.block.ops)
        if steps != 1:
            raise VerifyException(f"a model has exactly one graph.step, found {steps}")
        for op in self.body.block.ops:
            if not isinstance(op, WeightOp | CacheOp | StepOp):
                raise VerifyException(f"a model holds weights, caches and one step, found '{op.name}'")
        if (tokens := shape_of(self.step.tokens)[0]) > self.max_seq.value.data:
            raise VerifyException(f"a step takes at most max_seq = {self.max_seq.value.data} tokens, found {tokens}")


@irdl_op_definition
class WeightOp(OutsideIn):
    """A constant tensor, or one for each layer. With a checkpoint source, `{layer}` in its name is the layer.

    A checkpoint's matrix may be quantised: its values are those of `amk_ir.quantization.QuantizedTensor.dequantize`.

    ```mlir
    graph.weight @q_proj layers 30 from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.weight"> : tensor<9x64x576xf32>
    graph.weight @head from #amk.checkpoint<"lm_head.weight"> : tensor<49152x576x!amk.quantized<"int8", columns = 576>>
    ```
    """

    name = "graph.weight"

    sym_name = prop_def(SymbolNameConstraint())
    layers = opt_prop_def(IntegerAttr[I64])
    source = prop_def(base(CheckpointAttr) | base(RopeFrequenciesAttr))
    type = prop_def(WEIGHT)

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
        _verify_size(self.type, self.layers)
        if problem := rows_problem(self.type.get_shape(), self.type.get_element_type()):
            raise VerifyException(problem)
        if isinstance(self.source, RopeFrequenciesAttr):
            half = self.source.data.head_dim // 2
            is_float = not isinstance(self.type.get_element_type(), QuantizedType)
            if self.type.get_shape() != (half,) or self.layers is not None or not is_float:
                raise VerifyException(f"rope frequencies of head_dim {2 * half} are tensor<{half}xf32>, without layers")
        elif ("{layer}" in self.source.data) != (self.layers is not None):
            raise VerifyException(
                f'checkpoint entry "{self.source.data}" must contain {{layer}} exactly if the weight has layers'
            )


@irdl_op_definition
class CacheOp(OutsideIn):
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

    def __init__(self, name: str, type: CacheTensor, layers: int | None = None):
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
        _verify_size(self.type, self.layers)
        parent = self.parent_op()
        if isinstance(parent, ModelOp) and shape[0] != parent.max_seq.value.data:
            raise VerifyException(
                f"cache holds {shape[0]} positions, the model has max_seq {parent.max_seq.value.data}"
            )


def _verify_layers(layers: IntegerAttr | None) -> None:
    if layers is not None and not 1 <= layers.value.data <= MAX_LAYERS:
        limit = "least 1" if layers.value.data < 1 else f"most {MAX_LAYERS}"
        raise VerifyException(f"layers must be at {limit}, found {layers.value.data}")


def _verify_size(type: WeightTensor | CacheTensor, layers: IntegerAttr | None) -> None:
    if problem := size_problem(type.get_shape(), 1 if layers is None else layers.value.data):
        raise VerifyException(problem)


@irdl_op_definition
class StepOp(OutsideIn):
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
        if len(types) != 2 or not IDS.verifies(types[0]) or types[1] != IndexType():
            raise VerifyException(f"a step takes (tensor<Txi32>, index), found ({', '.join(map(str, types))})")
        if problem := size_problem(shape_of(self.tokens)):
            raise VerifyException(problem)
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

    logits = operand_def(F32)
    next_token = operand_def(IDS)

    traits = traits_def(IsTerminator(), HasParent(StepOp))

    assembly_format = "$logits `,` $next_token `:` type($logits) `,` type($next_token) attr-dict"

    def __init__(self, logits: SSAValue, next_token: SSAValue):
        super().__init__(operands=[logits, next_token])
