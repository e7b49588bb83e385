"""The layers of the `graph` dialect: a loop that carries tensors, its canonicalisation, and what may be used inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import I64, IntegerAttr, SymbolRefAttr, i64
from xdsl.ir import Operation, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.printer import Printer
from xdsl.traits import (
    HasCanonicalizationPatternsTrait,
    HasParent,
    IsTerminator,
    Pure,
    RecursiveMemoryEffect,
    SymbolTable,
)
from xdsl.utils.exceptions import VerifyException

from ...amk_ir.attrs import MAX_LAYERS, parse_count
from ..outside_in import OutsideIn
from .structure import StepOp
from .values import F32, OpT


class LayersOpHasCanonicalizationPatterns(HasCanonicalizationPatternsTrait):
    @classmethod
    def get_canonicalization_patterns(cls) -> tuple[RewritePattern, ...]:
        return (ForwardInvariantCarried(), DropUnusedCarried())


@irdl_op_definition
class LayersOp(OutsideIn):
    """`count` identical layers, each with its own weights: a loop that carries tensors.

    ```mlir
    %x = graph.layers 30 (%h = %x0) : tensor<1x576xf32> { ... graph.yield %h2 : tensor<1x576xf32> }
    ```
    """

    name = "graph.layers"

    count = prop_def(IntegerAttr[I64])
    inits = var_operand_def(F32)
    outs = var_result_def(F32)
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
        count = parse_count(parser, "the number of layers", MAX_LAYERS)

        def parse_carried() -> tuple[Parser.UnresolvedArgument, UnresolvedOperand]:
            argument = parser.parse_argument(expect_type=False)
            parser.parse_punctuation("=")
            return argument, parser.parse_unresolved_operand()

        carried = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parse_carried)
        parser.parse_punctuation(":")
        types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
        if len(types) != len(carried):
            parser.raise_error(f"{len(carried)} carried values need as many types, found {len(types)}")
        arguments = [argument.resolve(t) for (argument, _), t in zip(carried, types, strict=True)]
        body = parser.parse_region(arguments)
        # after the region, in which the names of the arguments mean something else
        inits = [parser.resolve_operand(operand, t) for (_, operand), t in zip(carried, types, strict=True)]
        return LayersOp(count, inits, body)

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
        if self.count.value.data > MAX_LAYERS:
            raise VerifyException(f"the number of layers must be at most {MAX_LAYERS}, found {self.count.value.data}")
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

    values = var_operand_def(F32)

    traits = traits_def(IsTerminator(), HasParent(LayersOp), Pure())

    assembly_format = "$values `:` type($values) attr-dict"

    def __init__(self, values: Sequence[SSAValue]):
        super().__init__(operands=[values])


def enclosing_layers(op: Operation) -> int | None:
    """Number of layers of the `graph.layers` around `op`, None outside."""
    parent = op.parent_op()
    while parent is not None and not isinstance(parent, LayersOp):
        parent = parent.parent_op()
    return None if parent is None else parent.count.value.data


def resolve(op: Operation, name: SymbolRefAttr, kind: type[OpT]) -> OpT:
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


class ForwardInvariantCarried(RewritePattern):
    """layers (%a = %x) { ... use(%a) ... yield %a }, use(%result) -> layers (%a = %x) { ... use(%x) ... }, use(%x)"""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: LayersOp, rewriter: PatternRewriter) -> None:
        last = op.body.block.last_op
        assert isinstance(last, YieldOp)
        for argument, init, result, yielded in zip(op.body.block.args, op.inits, op.outs, last.values, strict=True):
            if yielded is not argument:
                continue
            if any(use.operation is not last for use in argument.uses):
                argument.replace_uses_with_if(init, lambda use: use.operation is not last)
                rewriter.notify_op_modified(op)
            if result.first_use is not None:
                result.replace_all_uses_with(init)
                rewriter.notify_op_modified(op)


class DropUnusedCarried(RewritePattern):
    """%u, %v = layers (%a = %x, %b = %y) { yield %c, %d } -> %v = layers (%b = %y) { yield %d }, %u and %a unused

    A yield of %a itself is no use of it. At least one carried value stays.
    """

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: LayersOp, rewriter: PatternRewriter) -> None:
        block, last = op.body.block, op.body.block.last_op
        assert isinstance(last, YieldOp)
        kept = [
            i
            for i, (argument, result) in enumerate(zip(block.args, op.outs, strict=True))
            if result.first_use is not None or any(use.operation is not last or use.index != i for use in argument.uses)
        ] or [0]
        if len(kept) == len(op.inits):
            return
        values = [last.values[i] for i in kept]
        rewriter.replace(last, YieldOp(values))
        for i in reversed(range(len(block.args))):
            if i not in kept:
                block.erase_arg(block.args[i])
        inits = [op.inits[i] for i in kept]
        results = [op.outs[i] for i in kept]
        new = LayersOp(op.count.value.data, inits, Region(op.body.detach_block(block)))
        replaced = iter(new.outs)
        rewriter.replace(op, new, [next(replaced) if r in results else None for r in op.outs])
