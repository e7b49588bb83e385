"""Mutations of what the target has to offer, of what is not valid IR, and two mutations at once."""

from __future__ import annotations

import random
from dataclasses import replace

from xdsl.dialects.builtin import IntegerAttr, StringAttr, UnitAttr, i64
from xdsl.ir import Attribute

from amk.amk_ir.attrs import DomainAttr, Ring, RingAttr
from amk.dialects.queue import CounterOp
from amk.dialects.task import LoadOp, StoreOp

from .lowerings import TARGETS, Lowering
from .mutant_regions import accesses, edit_of, with_dim
from .mutants import CLASSES, Edit, Mutant, Truth, copied, mutation, places, room, widest_sms


def _kernel_mutant(lowering: Lowering, what: str, certain: Truth | None, **properties: Attribute | None) -> Mutant:
    """A mutant with other properties of the kernel."""
    mutant = copied(lowering, what)
    mutant.edits = [Edit(lowering.kernel, name, value) for name, value in properties.items()]
    mutant.certain = certain
    return mutant


def _with_sms(rng: random.Random, lowering: Lowering, sms: int, certain: Truth) -> Mutant:
    """A grid of so many SMs: the queues that there are, on random ones of them, and idle ones."""
    mutant = _kernel_mutant(lowering, f"{sms} SMs", certain, sms=IntegerAttr(sms, i64))
    places = sorted(rng.sample(range(sms), len(lowering.bodies)))
    bodies, streams = mutant.bodies, mutant.streams
    mutant.bodies, mutant.streams = [[] for _ in range(sms)], [[] for _ in range(sms)]
    for sm, body, stream in zip(places, bodies, streams, strict=True):
        mutant.bodies[sm], mutant.streams[sm] = body, stream
    return mutant


# ---- resources ----------------------------------------------------------------------------------------------------


@mutation("resources", "idle SMs added")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: an SM without work is done at once."""
    return _with_sms(rng, lowering, len(lowering.bodies) + rng.randint(1, 4), Truth.SAFE)


@mutation("resources", "grid of the whole GPU")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: as many blocks as the GPU has SMs are resident."""
    sms = widest_sms(lowering.kernel)
    return None if sms is None else _with_sms(rng, lowering, sms, Truth.SAFE)


@mutation("resources", "grid beyond residency")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: a block more than the GPU has SMs is not resident, and a wait for it never comes through."""
    sms = widest_sms(lowering.kernel)
    return None if sms is None else _with_sms(rng, lowering, sms + rng.choice([1, 1, 2, sms]), Truth.UNSAFE)


def _ring(rng: random.Random, lowering: Lowering, more: int) -> Mutant | None:
    """A ring of as many stages of a random size as fit, and `more`."""
    if (bytes_left := room(lowering.kernel)) is None:
        return None
    size = 512 * rng.randint(1, 64)
    ring = Ring(bytes_left // size + more, size, 1)
    return _kernel_mutant(lowering, f"ring of {ring}", Truth.UNSAFE if more else Truth.SAFE, ring=RingAttr(ring))


@mutation("resources", "ring as great as fits")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe."""
    return _ring(rng, lowering, 0)


@mutation("resources", "ring too great")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: with the widest activations, it does not fit into shared memory."""
    return _ring(rng, lowering, 1)


@mutation("resources", "ring of other stages")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: the stream waits for room, whatever there is of it, and tiles leave in the order in which they came."""
    stages = rng.randint(1, 6)
    ring = Ring(stages, 512 * rng.randint(1, 16), rng.randint(1, stages))
    return _kernel_mutant(lowering, f"ring of {ring}", Truth.SAFE, ring=RingAttr(ring))


@mutation("resources", "ring removed")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: tasks take tiles from a ring that is not there. All that would be fetched may be left out too."""
    mutant = _kernel_mutant(lowering, "no ring", Truth.UNSAFE, ring=None)
    if rng.random() < 0.5:
        mutant.streams = [[] for _ in mutant.streams]
    return mutant


@mutation("resources", "another target")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the table of shared memory: the ring was planned for the first."""
    target = rng.choice([t for t in TARGETS if t != lowering.kernel.target.data])
    return _kernel_mutant(lowering, f"for {target}", None, target=StringAttr(target))


@mutation("resources", "two tokens a step")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: steps may skip a row that only one of two tokens writes."""
    if lowering.kernel.max_seq.value.data < 2:
        return None
    return _kernel_mutant(lowering, "two tokens a step", None, tokens=IntegerAttr(2, i64))


# ---- not valid IR -------------------------------------------------------------------------------------------------


def _refused(lowering: Lowering, what: str, *edits: Edit) -> Mutant:
    mutant = copied(lowering, what)
    mutant.edits, mutant.certain = list(edits), Truth.REFUSED
    return mutant


@mutation("not valid IR", "out of bounds at the last position only")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Refused: a row beyond the end of the state, at the last position alone."""
    choices = [
        (op, axis)
        for kind in (LoadOp, StoreOp)
        for _, op, buffer in accesses(lowering, kind)
        for axis, dim in enumerate(op.region.dims)
        if buffer.kind.data.value == "state" and "pos" in dim.start.names | dim.size.names
    ]
    op, axis = rng.choice(choices)
    dim = op.region.dims[axis]
    dim = replace(dim, start=dim.start + 1) if rng.random() < 0.5 else replace(dim, size=dim.size + 1)
    access = with_dim(op.region, axis, dim)
    return _refused(lowering, f"{op.name} {access}", edit_of(op, access))


@mutation("not valid IR", "longer sequences than the state holds")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Refused: the new last position is out of bounds."""
    more = lowering.kernel.max_seq.value.data + rng.choice([1, 1, 2, 1000])
    return _refused(lowering, f"max_seq {more}", Edit(lowering.kernel, "max_seq", IntegerAttr(more, i64)))


@mutation("not valid IR", "last tile out of bounds")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Refused: a tile that ends at the end of the buffer is moved by one."""
    choices = [
        (op, axis)
        for kind in (LoadOp, StoreOp)
        for _, op, buffer in accesses(lowering, kind)
        for axis, dim in enumerate(op.region.dims)
        if dim.limit is None
        and buffer.kind.data.value == "scratch"
        and dim.start.is_constant
        and dim.start.constant + dim.size.constant == buffer.shape[axis]
    ]
    if not choices:
        return None
    op, axis = rng.choice(choices)
    access = with_dim(op.region, axis, replace(op.region.dims[axis], start=op.region.dims[axis].start + 1))
    return _refused(lowering, f"{op.name} {access}", edit_of(op, access))


@mutation("not valid IR", "counter out of range")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Refused: the counter array is made shorter than what is signalled or waited for."""
    last = {lowering.counters[e[1]] for body in lowering.bodies for e in body if e[0] != "run"}
    names = sorted({name for name, element in last if element > 0})
    if not names:
        return None
    name = rng.choice(names)
    size = rng.randint(1, max(element for n, element in last if n == name))
    op: CounterOp = lowering.kernel.counters[name]
    return _refused(lowering, f"queue.counter @{name}[{size}]", Edit(op, "size", IntegerAttr(size, i64)))


@mutation("not valid IR", "task out of range")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Refused: the domain is made smaller than what runs."""
    families = [(f, a) for f in lowering.families for a, (_, extent) in enumerate(f.domain.data) if extent > 1]
    if not families:
        return None
    family, axis = rng.choice(families)
    domain = list(family.domain.data)
    domain[axis] = (domain[axis][0], rng.randrange(1, domain[axis][1]))
    what = f"@{family.sym_name.data} over {domain}"
    return _refused(lowering, what, Edit(family, "domain", DomainAttr(tuple(domain))))


@mutation("not valid IR", "threshold below one")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Refused: a wait for nothing."""
    waits = places(lowering.bodies, "wait")
    if not waits:
        return None
    mutant = _refused(lowering, "a threshold below one")
    sm, i = rng.choice(waits)
    mutant.bodies[sm][i] = ("wait", mutant.bodies[sm][i][1], rng.choice([0, 0, -1]))
    return mutant


@mutation("not valid IR", "ring that cannot be")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Refused: no stages, more in flight than there are, or stages that do not hold whole fragments."""
    ring = rng.choice([Ring(0, 512, 0), Ring(2, 512, 3), Ring(2, 500, 1), Ring(2, 0, 1), Ring(2, 512, 0)])
    return _refused(lowering, f"ring of {ring}", Edit(lowering.kernel, "ring", RingAttr(ring)))


@mutation("not valid IR", "tag where none can be")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Refused: only words of scratch buffers carry epochs."""
    buffer = rng.choice([b for b in lowering.buffers if b.kind.data.value != "scratch"])
    return _refused(lowering, f"tagged @{buffer.sym_name.data}", Edit(buffer, "tagged", UnitAttr()))


@mutation("not valid IR", "queue of an SM that is not there")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Refused: the grid is made smaller than the number of queues."""
    sms = rng.randrange(1, len(lowering.bodies))
    return _refused(lowering, f"{sms} SMs", Edit(lowering.kernel, "sms", IntegerAttr(sms, i64)))


# ---- two at once --------------------------------------------------------------------------------------------------

_EVENTS = ("waits", "signals", "edges", "counters", "order", "placement")


@mutation("two at once", "two mutations of events")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: one may hide or mend the other."""
    return _two(rng, lowering, _EVENTS)


@mutation("two at once", "events and regions")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    return _two(rng, lowering, ("tiles", "buffers", "tags"))


def _two(rng: random.Random, lowering: Lowering, second: tuple[str, ...]) -> Mutant | None:
    first = rng.choice([c for c in CLASSES.values() if c.group in _EVENTS])
    then = rng.choice([c for c in CLASSES.values() if c.group in second])
    if (a := first.mutate(rng, lowering)) is None:
        return None
    if (b := then.mutate(rng, lowering.with_queues(a.bodies, a.streams))) is None:
        return None
    b.what, b.certain = f"{a.what}; {b.what}", None
    return b
