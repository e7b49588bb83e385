"""Products whose sums are divided: parts in a family of their own, added up where the whole sum was used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import StringAttr, SymbolRefAttr, TensorType, f32
from xdsl.ir import Block, Region
from xdsl.rewriter import Rewriter

from ..amk_ir.access import Access, Dim
from ..amk_ir.attrs import BufferKind
from ..amk_ir.linear import Linear
from ..dialects import task
from .family_bodies import ProgramIndex, insert_before
from .names import NameTable


@dataclass(frozen=True)
class Product:
    """The only matmul of the family `name`: of a load, which nothing else uses, with the family's only stream; in one `call`."""

    name: str
    call: task.CallOp
    load: task.LoadOp
    stream: task.StreamOp
    matmul: task.MatmulOp


def find_product(index: ProgramIndex, name: str) -> Product | None:
    """The product of the family `name` if it could be divided: what it multiplies is loaded from a scratch buffer."""
    family, call = index.families[name], index.only_call(name)
    matmuls = [op for op in family.body.block.ops if isinstance(op, task.MatmulOp)]
    if call is None or len(matmuls) != 1 or len(family.streams) != 1:
        return None
    (matmul,) = matmuls
    load, stream = task.op_of(matmul.x), task.op_of(matmul.w)
    if (
        not isinstance(load, task.LoadOp)
        or not isinstance(stream, task.StreamOp)
        or index.buffers[load.region.buffer].kind.data is not BufferKind.SCRATCH
        or len(list(load.result.uses)) != 1
    ):
        return None
    return Product(name, call, load, stream, matmul)


def divide_product(
    index: ProgramIndex,
    old: Product,
    operands: tuple[Access, Access],
    part: tuple[str, int],
    tiles: Sequence[tuple[str, int]],
    stored: Sequence[Dim],
) -> None:
    """Replaces the matmul of `old` by the sum of products of parts of its operands.

    operands: the parts of both, by the indices of the new family, which has the old one's name and a domain that is that of the
    old one, then `part` and `tiles`. stored: which part of a row of results a task makes. The products go to a buffer
    [*domain, T, parts, *n], and what is left of the old family, now `name`_sum, adds them up.
    """
    name, call, load, stream, matmul = old.name, old.call, old.load, old.stream, old.matmul
    family, domain = index.families[name], index.families[name].domain.data
    tokens, *outputs = task.shape_of(matmul.result)
    names = NameTable({*index.buffers, *index.families})
    buffer = task.BufferOp(
        names.unique(f"{matmul.result.name_hint or name}_parts"),
        BufferKind.SCRATCH,
        TensorType(f32, (*(extent for _, extent in domain), tokens, part[1], *outputs)),
    )
    loops = [Dim(Linear.of(loop), kept=False) for loop, _ in domain]
    all_tokens, all_parts, *rows = (Dim(Linear(), Linear(constant=n)) for n in (tokens, part[1], *outputs))

    # the products
    x = task.LoadOp(operands[0], f32)
    weights = task.StreamOp(operands[1], stream.result.type.get_element_type())
    product = task.MatmulOp(x.result, weights.result)
    target = Access(buffer.sym_name.data, (*loops, all_tokens, Dim(Linear.of(part[0]), kept=False), *stored))
    store = task.StoreOp(product.result, target)
    products = task.FamilyOp(name, (*domain, part, *tiles), Region(Block([x, weights, product, store])))
    for new, replaced in ((x, load), (weights, stream), (product, matmul)):
        new.results[0].name_hint = replaced.results[0].name_hint

    # what was made of their sum
    every = task.LoadOp(Access(buffer.sym_name.data, (*loops, all_tokens, all_parts, *rows)), f32)
    total = task.SumPartsOp(every.result)
    every.result.name_hint, total.result.name_hint = buffer.sym_name.data, matmul.result.name_hint
    family.body.block.insert_ops_before((every, total), matmul)
    Rewriter.replace_op(matmul, [], [total.result])
    for op in (load, stream):
        op.detach()
        op.erase()
    family.properties["sym_name"] = StringAttr(names.unique(f"{name}_sum"))

    insert_before(call, family, products, buffer)
    call.properties["family"] = SymbolRefAttr(family.sym_name.data)
