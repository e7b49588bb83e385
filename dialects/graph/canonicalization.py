"""Canonicalisation patterns of the `graph` dialect."""

from __future__ import annotations

from xdsl.ir import Region
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from .structure import LayersOp, YieldOp


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
