"""`split-attention-output`: divide the product that follows an attention by KV heads, so that tasks need not wait for all."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.access import Dim
from ..amk_ir.attention_turn import OUTPUT_ROWS, output_tile
from ..amk_ir.linear import Linear
from ..amk_ir.quantized_type import QuantizedType, columns_problem
from ..dialects import task
from .family_bodies import ProgramIndex, is_before, programs
from .partial_products import Product, divide_product, find_product
from .tiling import narrow

HEAD, TILE = "kv_head", "tile"
"""Domain indices of the products: the KV head whose queries are multiplied, and the output rows."""


@dataclass(frozen=True)
class SplitAttentionOutputPass(ModulePass):
    """Splits the sum over heads of a matmul that reads nothing but an attention: a task multiplies the heads of one KV head.

    The products of all KV heads are stored, and summed by whoever reads the result (`task.sum_parts`), in a family of its own
    which fuse-into-consumer copies to the readers. So a task depends on one task of the attention, which
    fuse-into-consumer can put before it. There are about `tasks` tasks, of at most `rows` output rows; where that is not
    enough, nothing changes, nor where the columns of a KV head are no whole groups of quantised weights.
    """

    name = "split-attention-output"

    tasks: int = 132
    rows: int = OUTPUT_ROWS

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for option, value in (("tasks", self.tasks), ("rows", self.rows)):
            if value < 1:
                raise PassFailedException(f"split-attention-output: {option} must be at least 1, found {value}")
        for program in programs(op):
            for name in tuple(program.families):
                index = ProgramIndex(program)
                product = find_product(index, name)
                if product is not None and (kv_heads := _kv_heads(index, product)) is not None:
                    self._split(index, product, kv_heads)

    def _split(self, index: ProgramIndex, product: Product, kv_heads: int) -> None:
        family, load, stream = index.families[product.name], product.load, product.stream
        rows = task.shape_of(product.matmul.result)[1]
        heads = task.shape_of(load.result)[1]
        tile = output_tile(rows, kv_heads, self.tasks)
        if kv_heads < 2 or tile > self.rows or {HEAD, TILE} & {*family.domain.names}:
            return
        group = heads // kv_heads
        some = Dim(Linear.of(HEAD) * group, Linear(constant=group))
        limit = None if rows % tile == 0 else rows
        own_rows = Dim(Linear.of(TILE) * tile, Linear(constant=tile), limit)
        region, element = narrow(stream.region, (own_rows, some, None, None)), stream.result.type.get_element_type()
        shape = index.buffers[region.buffer].shape
        if isinstance(element, QuantizedType) and columns_problem(region.dims, shape, element):
            return
        operands = narrow(load.region, (None, some, None, None)), region
        tiles = ((TILE, ceil(rows / tile)),)
        divide_product(index, product, operands, (HEAD, kv_heads), tiles, (own_rows,))


def _kv_heads(index: ProgramIndex, product: Product) -> int | None:
    """The KV heads of the attention that a product reads; None if it reads no attention as it was stored."""
    family, load, matmul = index.families[product.name], product.load, product.matmul
    buffer = load.region.buffer
    if len(index.writers[buffer]) != 1 or len(task.shape_of(matmul.x)) != 4 or len(task.shape_of(matmul.result)) != 2:
        return None
    writer = index.families[index.writers[buffer][0]]
    writer_call = index.only_call(writer.sym_name.data)
    attention = task.op_of(writer.stores[0].value)
    if (
        not isinstance(attention, task.AttentionOp)
        or len(writer.stores) != 1
        or writer_call is None
        or not is_before(writer_call, product.call)
        or writer.domain != family.domain
        or len(product.call.indices.data) != len(family.domain.data)
        or writer.stores[0].region != load.region
    ):
        return None
    return task.shape_of(attention.k)[1]
