"""Mutations of what tasks read and write: tiles, buffers, state and tags."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import UnionType

from xdsl.dialects.builtin import UnitAttr
from xdsl.ir import Operation
from xdsl.utils.exceptions import VerifyException

from amk.amk_ir.access import Access, Dim
from amk.amk_ir.attrs import AccessAttr
from amk.amk_ir.linear import Linear
from amk.dialects.task import BufferOp, FamilyOp, LoadOp, StoreOp, StreamOp

from .lowerings import Lowering
from .mutants import Edit, Mutant, Truth, applied, copied, mutation, users

ReadOp = LoadOp | StreamOp
AccessOp = ReadOp | StoreOp
Kind = type[AccessOp] | UnionType


def accesses(lowering: Lowering, kind: Kind) -> Iterator[tuple[FamilyOp, AccessOp, BufferOp]]:
    """The reads or stores of buffers that tasks write, with their family and buffer."""
    buffers = {b.sym_name.data: b for b in lowering.buffers}
    for family in lowering.families:
        for op in family.body.block.ops:
            if isinstance(op, kind) and buffers[op.region.buffer].kind.data.value in ("scratch", "output", "state"):
                yield family, op, buffers[op.region.buffer]


def edit_of(op: AccessOp, access: Access) -> Edit:
    """The edit that gives an op another region."""
    return Edit(op, "access", AccessAttr(access))


def with_dim(access: Access, axis: int, dim: Dim) -> Access:
    """The access with another dimension."""
    return replace(access, dims=(*access.dims[:axis], dim, *access.dims[axis + 1 :]))


def is_valid(edits: list[Edit]) -> bool:
    """Whether the edited reads, stores and buffers are valid, and who uses what is read. (`Operation.verify` would print the kernel for its error.)"""
    with applied(edits):
        try:
            for edit in edits:
                edit.op.verify_()
                for user in users(edit.op):
                    user.verify_()
        except VerifyException:
            return False
    return True


def mutant_of(lowering: Lowering, edits: list[Edit], what: str, certain: Truth | None = None) -> Mutant | None:
    """A mutant with these edits, None if they change nothing or are not valid IR."""
    if all(e.op.properties.get(e.name) == e.value for e in edits) or not is_valid(edits):
        return None
    mutant = copied(lowering, what)
    mutant.edits, mutant.certain = edits, certain
    return mutant


Change = Callable[[random.Random, FamilyOp, Dim, int], Dim | None]
"""Another dimension of an access of a family, given the extent of the buffer there."""


def _changed(
    rng: random.Random,
    lowering: Lowering,
    kind: Kind,
    change: Change,
    certain: Callable[[BufferOp], Truth | None] = lambda _: None,
) -> Mutant | None:
    """One dimension of one load or store is changed; tries until one can be."""
    found = list(accesses(lowering, kind))
    for _ in range(20):
        family, op, buffer = rng.choice(found)
        axis = rng.randrange(len(op.region.dims))
        dim = change(rng, family, op.region.dims[axis], buffer.shape[axis])
        if dim is None:
            continue
        access = with_dim(op.region, axis, dim)
        what = f"@{family.sym_name.data}: {op.name} {access} instead of {op.region}"
        if mutant := mutant_of(lowering, [edit_of(op, access)], what, certain(buffer)):
            return mutant
    return None


def _shifted(rng: random.Random, family: FamilyOp, dim: Dim, extent: int) -> Dim | None:
    limit = extent if dim.kept and rng.random() < 0.5 else dim.limit
    return replace(dim, start=dim.start + rng.choice([-2, -1, 1, 1, 2]), limit=limit)


def _closer(rng: random.Random, family: FamilyOp, dim: Dim, extent: int) -> Dim | None:
    """The tiles of an index lie less far apart."""
    names = [n for n, c in dim.start.terms if n != "pos" and c > 1]
    if not names:
        return None
    name = rng.choice(names)
    factor = rng.randrange(1, dim.start.coefficient(name))
    return replace(dim, start=dim.start.substitute({name: Linear()}) + Linear.of(name) * factor)


def _farther(rng: random.Random, family: FamilyOp, dim: Dim, extent: int) -> Dim | None:
    """The tiles of an index lie farther apart; the buffer's end cuts the last."""
    names = [n for n, c in dim.start.terms if n != "pos" and c > 0]
    if not names or not dim.kept:
        return None
    return replace(dim, start=dim.start + Linear.of(rng.choice(names)), limit=extent)


def _cut(rng: random.Random, family: FamilyOp, dim: Dim, extent: int) -> Dim | None:
    """The last tiles lose one or more elements to a limit."""
    if not dim.kept or extent < 2:
        return None
    return replace(dim, limit=rng.choice([(dim.limit or extent) - 1, rng.randrange(1, extent)]))


def _another_index(rng: random.Random, family: FamilyOp, dim: Dim, extent: int) -> Dim | None:
    """The other layer, or the other row, of one that is given by a single index."""
    if dim.kept or extent < 2:
        return None
    return replace(dim, start=Linear(constant=rng.randrange(extent)))


def _without_index(rng: random.Random, family: FamilyOp, dim: Dim, extent: int) -> Dim | None:
    """All tiles of an index at the same place."""
    names = [n for n in dim.start.names if family.domain.extents.get(n, 1) > 1]
    if not names:
        return None
    return replace(dim, start=dim.start.substitute({rng.choice(names): Linear()}))


# ---- tiles --------------------------------------------------------------------------------------------------------


@mutation("tiles", "stored tile shifted")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: overlaps, holes, or both."""
    return _changed(rng, lowering, StoreOp, _shifted)


@mutation("tiles", "stored tiles overlapping")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    return _changed(rng, lowering, StoreOp, _closer)


@mutation("tiles", "stored tiles with gaps")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    return _changed(rng, lowering, StoreOp, _farther)


@mutation("tiles", "stored tiles cut")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: safe if nobody reads what is missing and the host neither."""
    return _changed(rng, lowering, StoreOp, _cut)


@mutation("tiles", "output not covered")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: the last elements of an output are not written."""
    outputs = [(op, b) for _, op, b in accesses(lowering, StoreOp) if b.kind.data.value == "output" and b.shape[-1] > 1]
    if not outputs:
        return None
    op, buffer = rng.choice(outputs)
    axis = len(buffer.shape) - 1
    access = with_dim(op.region, axis, replace(op.region.dims[axis], limit=buffer.shape[-1] - 1))
    return mutant_of(lowering, [edit_of(op, access)], f"task.store {access}", Truth.UNSAFE)


@mutation("tiles", "slot shared by several writers")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe, unless it is state: tasks that differ in the index that is left out write the same elements."""

    def certain(buffer: BufferOp) -> Truth | None:
        return None if buffer.kind.data.value == "state" else Truth.UNSAFE

    return _changed(rng, lowering, StoreOp, _without_index, certain)


@mutation("tiles", "stored to another layer")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    return _changed(rng, lowering, StoreOp, _another_index)


@mutation("tiles", "loaded tile shifted")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: often still elements that are there, because consumers wait for whole vectors."""
    return _changed(rng, lowering, ReadOp, _shifted)


@mutation("tiles", "loaded tiles closer")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    return _changed(rng, lowering, ReadOp, _closer)


@mutation("tiles", "loaded tile cut")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: it reads less; unless the words are tagged, which may have ordered more than themselves."""

    def certain(buffer: BufferOp) -> Truth | None:
        return Truth.SAFE if buffer.tagged is None else None

    return _changed(rng, lowering, ReadOp, _cut, certain)


@mutation("tiles", "loaded from another layer")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    return _changed(rng, lowering, ReadOp, _another_index)


# ---- buffers ------------------------------------------------------------------------------------------------------


def _redirected(op: AccessOp, buffer: str) -> Edit:
    return edit_of(op, replace(op.region, buffer=buffer))


def _alike(lowering: Lowering) -> list[tuple[BufferOp, BufferOp]]:
    """Ordered pairs of buffers of the same type that tasks write."""
    written = [b for b in lowering.buffers if b.kind.data.value in ("scratch", "output", "state")]
    return [(a, b) for a in written for b in written if a is not b and a.type == b.type]


@mutation("buffers", "two buffers in one place")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: all accesses of one go to another of its type."""
    if not (pairs := _alike(lowering)):
        return None
    a, b = rng.choice(pairs)
    ops = [op for kind in (ReadOp, StoreOp) for _, op, buffer in accesses(lowering, kind) if buffer is b]
    edits = [_redirected(op, a.sym_name.data) for op in ops]
    return mutant_of(lowering, edits, f"@{b.sym_name.data} in @{a.sym_name.data}")


@mutation("buffers", "store to another buffer")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    return _one_redirected(rng, lowering, StoreOp)


@mutation("buffers", "load of another buffer")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: it may read too early, or what is long there."""
    return _one_redirected(rng, lowering, ReadOp)


def _one_redirected(rng: random.Random, lowering: Lowering, kind: Kind) -> Mutant | None:
    other: dict[Operation, list[str]] = {}
    for a, b in _alike(lowering):
        other.setdefault(a, []).append(b.sym_name.data)
    ops = [(family, op, buffer) for family, op, buffer in accesses(lowering, kind) if buffer in other]
    if not ops:
        return None
    family, op, buffer = rng.choice(ops)
    name = rng.choice(other[buffer])
    return mutant_of(lowering, [_redirected(op, name)], f"@{family.sym_name.data}: {op.name} @{name} for {op.region}")


@mutation("buffers", "layers of a buffer in one place")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe, unless it is state: each layer overwrites what the one before it wrote."""
    layered = [b for b in lowering.buffers if b.kind.data.value in ("scratch", "state")]
    rng.shuffle(layered)
    for buffer in layered:
        ops = [op for kind in (ReadOp, StoreOp) for _, op, b in accesses(lowering, kind) if b is buffer]
        slots = {
            op.region.dims[0].start.substitute({"layer": layer}).constant
            for family, op, b in accesses(lowering, StoreOp)
            if b is buffer
            for layer in range(family.domain.extents.get("layer", 1))
        }
        if any(op.region.dims[0].kept for op in ops) or len(slots) < 2:
            continue
        edits = [edit_of(op, with_dim(op.region, 0, replace(op.region.dims[0], start=Linear()))) for op in ops]
        certain = None if buffer.kind.data.value == "state" else Truth.UNSAFE
        return mutant_of(lowering, edits, f"all layers of @{buffer.sym_name.data} in layer 0", certain)
    return None


# ---- state --------------------------------------------------------------------------------------------------------


def _state_edits(
    rng: random.Random, lowering: Lowering, kind: Kind, change: Callable[[Dim], Dim]
) -> tuple[list[Edit], str] | None:
    """All accesses of a kind of one state buffer, with the dimension that depends on the position changed."""
    states = [b for b in lowering.buffers if b.kind.data.value == "state"]
    buffer = rng.choice(states)
    edits: list[Edit] = []
    for _, op, b in accesses(lowering, kind):
        if b is buffer:
            (axis,) = [a for a, d in enumerate(op.region.dims) if "pos" in d.start.names | d.size.names]
            edits.append(edit_of(op, with_dim(op.region, axis, change(op.region.dims[axis]))))
    return (edits, buffer.sym_name.data) if edits else None


@mutation("state", "state written at a fixed row")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: rows of earlier steps were never written, or are written while they are streamed."""
    row = rng.randrange(lowering.kernel.max_pos + 1)
    found = _state_edits(rng, lowering, StoreOp, lambda d: replace(d, start=Linear(constant=row)))
    if found is None or lowering.kernel.max_pos < 1:
        return None
    return mutant_of(lowering, found[0], f"@{found[1]} always written at row {row}", Truth.UNSAFE)


@mutation("state", "state written from the end")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: at position 1, row 0 is read, and only the last one is written by then."""
    last = lowering.kernel.max_pos
    found = _state_edits(rng, lowering, StoreOp, lambda d: replace(d, start=Linear.of("pos") * -1 + last))
    if found is None or last < 1:
        return None
    return mutant_of(lowering, found[0], f"@{found[1]} written at row {last} - pos", Truth.UNSAFE)


@mutation("state", "a row of the next step read")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Refused: attention takes the rows of earlier steps, from the first, and those of this one from another buffer."""
    grown = rng.random() < 0.5
    found = _state_edits(
        rng, lowering, ReadOp, lambda d: replace(d, size=d.size + 1) if grown else replace(d, start=d.start + 1)
    )
    if found is None:
        return None
    mutant = copied(lowering, f"@{found[1]} read from row {int(not grown)} to row pos")
    mutant.edits, mutant.certain = found[0], Truth.REFUSED
    return mutant


@mutation("state", "fewer rows of state read")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: of each position, less is read of what is there. (Of fewer positions, attention would not take it.)"""
    cuts = [
        (op, axis, limit, buffer)
        for _, op, buffer in accesses(lowering, ReadOp)
        for axis, dim in enumerate(op.region.dims)
        if buffer.kind.data.value == "state" and dim.kept and "pos" not in dim.size.names
        for limit in range(1, buffer.shape[axis])
    ]
    if not cuts:
        return None
    op, axis, limit, buffer = rng.choice(cuts)
    access = with_dim(op.region, axis, replace(op.region.dims[axis], limit=limit))
    what = f"@{buffer.sym_name.data} read up to {limit} in dimension {axis}"
    return mutant_of(lowering, [edit_of(op, access)], what, Truth.SAFE)


# ---- tags ---------------------------------------------------------------------------------------------------------


def _scratch(lowering: Lowering, tagged: bool) -> list[BufferOp]:
    return [b for b in lowering.buffers if b.kind.data.value == "scratch" and (b.tagged is not None) == tagged]


@mutation("tags", "tag removed")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: nothing hands the buffer over any more, unless program order or a counter happens to."""
    if not (buffers := _scratch(lowering, True)):
        return None
    buffer = rng.choice(buffers)
    return mutant_of(lowering, [Edit(buffer, "tagged", None)], f"@{buffer.sym_name.data} without tags")


@mutation("tags", "tag added")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: each word was written once, before it was read, so that its tag holds nobody up."""
    if not (buffers := _scratch(lowering, False)):
        return None
    buffer = rng.choice(buffers)
    return mutant_of(lowering, [Edit(buffer, "tagged", UnitAttr())], f"@{buffer.sym_name.data} with tags", Truth.SAFE)


@mutation("tags", "tag added, waits dropped")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: safe if the counter handed over nothing but this buffer."""
    buffers, waits = _scratch(lowering, False), [e for body in lowering.bodies for e in body if e[0] == "wait"]
    if not buffers or not waits:
        return None
    buffer = rng.choice(buffers)
    mutant = mutant_of(lowering, [Edit(buffer, "tagged", UnitAttr())], "")
    if mutant is None:
        return None
    counter = rng.choice(waits)[1]
    mutant.bodies = [[e for e in body if e[0] != "wait" or e[1] != counter] for body in mutant.bodies]
    name, element = lowering.counters[counter]
    mutant.what = f"@{buffer.sym_name.data} with tags, no wait on @{name}[{element}]"
    return mutant


@mutation("tags", "tagged words written twice")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: the second write carries the same epoch, so that a reader cannot tell which one it sees."""
    tagged = [b for b in lowering.buffers if b.tagged is not None]
    stores = [(f, op) for f, op, b in accesses(lowering, StoreOp) if b in tagged]
    rng.shuffle(stores)
    for family, op in stores:
        for axis in rng.sample(range(len(op.region.dims)), len(op.region.dims)):
            if (dim := _without_index(rng, family, op.region.dims[axis], 0)) is not None:
                access = with_dim(op.region, axis, dim)
                return mutant_of(lowering, [edit_of(op, access)], f"task.store {access}", Truth.UNSAFE)
    return None


@mutation("tags", "several tags removed")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    if not (buffers := _scratch(lowering, True)):
        return None
    some = rng.sample(buffers, rng.randint(1, len(buffers)))
    edits = [Edit(b, "tagged", None) for b in some]
    return mutant_of(lowering, edits, f"without tags: {', '.join(b.sym_name.data for b in some)}")
