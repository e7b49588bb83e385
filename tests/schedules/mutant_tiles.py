"""Mutations of streams of state: further tiles, and rows that are replaced before or after they are streamed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from xdsl.dialects.builtin import TensorType, f32

from amk.amk_ir.access import Access, Dim
from amk.amk_ir.linear import Linear
from amk.dialects.task import FamilyOp, StoreOp, StreamOp

from .lowerings import Lowering
from .mutants import Insertion, Mutant, Truth, applied, copied, mutation


def _mutant(lowering: Lowering, family: FamilyOp, insertions: list[Insertion], certain: Truth | None = None) -> Mutant:
    ops = "; ".join(f"{i.op.name} {i.op.region}" for i in insertions if isinstance(i.op, StoreOp | StreamOp))
    mutant = copied(lowering, f"@{family.sym_name.data}: also {ops}")
    mutant.edits, mutant.certain = [*insertions], certain
    with applied(mutant.edits):
        mutant.streams = [lowering.consumed(body) for body in mutant.bodies]
    return mutant


# ---- tiles --------------------------------------------------------------------------------------------------------


def _tile(
    rng: random.Random, lowering: Lowering, family: FamilyOp, change: Callable[[Dim], Dim] = lambda d: d
) -> Insertion | None:
    """Rows that some task streams, streamed by `family` as well; `change` changes the dimension of the rows.

    The layer and the heads are those of the family where it has such indices, else the first ones.
    """
    states = {b.sym_name.data: b for b in lowering.buffers if b.kind.data.value == "state"}
    tiles = [op.region for f in lowering.families for op in f.streams if op.region.buffer in states]
    if lowering.kernel.ring is None or not tiles:
        return None
    access, extents = rng.choice(tiles), family.domain.extents
    buffer, dims = states[access.buffer], list[Dim]()
    for dim, extent in zip(access.dims, states[access.buffer].shape, strict=True):
        if "pos" in dim.size.names:
            dims.append(change(dim))
            continue
        terms = {n: c for n, c in dim.start.terms if n in extents}
        reach = sum(c * (extents[n] - 1) for n, c in terms.items())
        start = Linear.make(terms if reach + dim.size.constant <= extent else {}, 0)
        dims.append(replace(dim, start=start))
    first = family.body.block.first_op
    assert first is not None
    return Insertion(StreamOp(replace(access, dims=tuple(dims)), buffer.type.get_element_type()), first)


@mutation("state", "rows of earlier steps streamed by another task")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: no task of this step writes rows of earlier ones."""
    family = rng.choice(lowering.families)
    tile = _tile(rng, lowering, family)
    return None if tile is None else _mutant(lowering, family, [tile], Truth.SAFE)


@mutation("state", "rows of this step streamed")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: earlier steps have not written them, and what this one writes may come after the load."""
    tokens = lowering.kernel.tokens.value.data
    own = Dim(Linear.of("pos"), Linear(constant=tokens))
    family, grown = rng.choice(lowering.families), rng.random() < 0.5
    tile = _tile(rng, lowering, family, lambda d: replace(d, size=d.size + tokens) if grown else own)
    return None if tile is None else _mutant(lowering, family, [tile], Truth.UNSAFE)


# ---- rows that are replaced ---------------------------------------------------------------------------------------


def _replacement(rng: random.Random, lowering: Lowering, family: FamilyOp) -> Insertion | None:
    """The first rows of a cache are overwritten with what a task of `family` stores elsewhere: of each task another head
    and part, as far as there are enough."""
    states = [b for b in lowering.buffers if b.kind.data.value == "state" and len(b.shape) == 5]
    stores = [op for op in family.stores if isinstance(op.value.type, TensorType)]
    stores = [op for op in stores if op.value.type.get_element_type() == f32 and len(op.value.type.get_shape()) == 2]
    if not states or not stores:
        return None
    buffer, store = rng.choice(states), rng.choice(stores)
    rows, width = store.value.type.get_shape()
    layers, _, heads, parts, half = buffer.shape
    free = [(heads, 2), (parts, 3)]
    starts = [Linear()] * 5
    for name, extent in family.domain.extents.items():
        if name == "layer" and extent <= layers:
            starts[0] = Linear.of(name)
        elif axis := next(((n, a) for n, a in free if 1 < extent <= n), None):
            free.remove(axis)
            starts[axis[1]] = Linear.of(name)
    single = [Dim(start, kept=False) for start in starts]
    access = Access(
        buffer.sym_name.data,
        (
            single[0],
            Dim(Linear(), Linear(constant=rows)),
            single[2],
            single[3],
            Dim(Linear(), Linear(constant=width), limit=half if width > half else None),
        ),
    )
    return Insertion(StoreOp(store.value, access), store) if rows <= buffer.shape[1] else None


def _late(rng: random.Random, lowering: Lowering) -> FamilyOp:
    """Mostly a family that comes after those that stream state."""
    states = {b.sym_name.data for b in lowering.buffers if b.kind.data.value == "state"}
    last = max(
        n for n, f in enumerate(lowering.families) if n == 0 or any(o.region.buffer in states for o in f.streams)
    )
    later = lowering.families[last:]
    return rng.choice(later if rng.random() < 0.8 else lowering.families)


@mutation("state", "rows of earlier steps replaced")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: safe if every task that streams the rows comes before the one that replaces them."""
    family = _late(rng, lowering)
    store = _replacement(rng, lowering, family)
    return None if store is None else _mutant(lowering, family, [store])


@mutation("state", "rows of earlier steps replaced by a task that streams some")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: a tile comes before the write of its own task, but not before that of another one."""
    family = _late(rng, lowering)
    store, tile = _replacement(rng, lowering, family), _tile(rng, lowering, family)
    return None if store is None or tile is None else _mutant(lowering, family, [store, tile])
