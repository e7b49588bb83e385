"""`split-products`: divide the sums of products that multiply more values than an SM should gather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.access import Dim
from ..amk_ir.linear import POSITION, Linear
from ..amk_ir.quantized_type import QuantizedType
from ..amk_ir.segments import BLOCK_K
from ..dialects import task
from .family_bodies import ProgramIndex, programs
from .partial_products import Product, divide_product, find_product
from .tiling import narrow

PART = "k_part"
"""Domain index of the products: the part of the columns that is multiplied."""
_MOST_PARTS = 16
"""Parts of a sum, at most: whoever adds them up reads all."""


@dataclass(frozen=True)
class SplitProductsPass(ModulePass):
    """Splits the sum over columns of a matmul that reads more than `values` values (tokens x columns) of a scratch buffer, in
    programs of several tokens: one token has few, and another phase would cost it more than it gains.

    The parts are tasks of their own, numbered by the innermost index, in a family of that name; their products are stored, and
    added up (`task.sum_parts`) in the family that makes what the old one stored, tile by tile. An SM with cyclic tasks then
    multiplies the same part in all of them, if the number of parts divides `sms`: so there are the fewest parts, of the
    divisors of `sms` up to 16, with which `values` are not exceeded, or the most, each of whole blocks of 32 columns; of
    columns with several dimensions, as heads have, each part is some of the first one. With values=0 nothing changes; nor do
    quantised weights, whose scales belong to whole rows, or a matmul of what is computed: parts of a norm were measured to
    cost more, with the sums in a phase of their own, than whole rows do.
    """

    name = "split-products"

    values: int = 8192
    sms: int = 132

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for option, value, least in (("values", self.values, 0), ("sms", self.sms, 1)):
            if value < least:
                raise PassFailedException(f"split-products: {option} must be at least {least}, found {value}")
        if self.values == 0:
            return
        for program in programs(op):
            if program.tokens.value.data == 1:
                continue
            for name in tuple(program.families):
                index = ProgramIndex(program)
                product = find_product(index, name)
                if product is not None and _has_rows(product):
                    self._split(index, product)

    def _parts(self, tokens: int, columns: Sequence[int]) -> int:
        """Into how many parts the sums over columns of the shape `columns` are divided: along its first dimension."""
        values = tokens * prod(columns)
        possible = [
            n
            for n in range(1, min(self.sms, _MOST_PARTS) + 1)
            if self.sms % n == 0 and columns[0] % n == 0 and prod(columns) % (n * BLOCK_K) == 0
        ]
        if not possible or values <= self.values:
            return 1
        return next((n for n in possible if values <= self.values * n), possible[-1])

    def _split(self, index: ProgramIndex, product: Product) -> None:
        load, stream = product.load, product.stream
        (tokens, *columns), (_, *outputs) = task.shape_of(load.result), task.shape_of(product.matmul.result)
        parts = self._parts(tokens, columns)
        if parts == 1 or PART in {*index.families[product.name].domain.names, POSITION}:
            return
        size = columns[0] // parts
        some = (Dim(Linear.of(PART) * size, Linear(constant=size)), *(None for _ in columns[1:]))
        operands = narrow(load.region, (None, *some)), narrow(stream.region, (*(None for _ in outputs), *some))
        rows = [Dim(Linear(), Linear(constant=n)) for n in outputs]
        divide_product(index, product, operands, (PART, parts), (), rows)


def _has_rows(product: Product) -> bool:
    """Whether it multiplies rows [T, *columns], all of them, with weights that are not quantised."""
    load, stream = product.load, product.stream
    shape = task.shape_of(load.result)
    columns = [[dim for dim in op.region.dims if dim.kept][1 - len(shape) :] for op in (load, stream)]
    return (
        len(shape) > 1
        and DYNAMIC_INDEX not in shape
        and all(dim.limit is None for dims in columns for dim in dims)
        and not isinstance(stream.result.type.get_element_type(), QuantizedType)
    )
