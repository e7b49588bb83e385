"""Mutations of what runs where and when, and of the streams."""

from __future__ import annotations

import random

from .lowerings import Lowering
from .mutant_sync import some
from .mutants import Mutant, Truth, copied, mutation, name_of, places


def refetched(lowering: Lowering, mutant: Mutant) -> Mutant:
    """The mutant with the streams that its bodies consume."""
    mutant.streams = [lowering.consumed(body) for body in mutant.bodies]
    return mutant


def streaming(lowering: Lowering, least: int) -> list[int]:
    """The SMs whose stream holds at least so many tasks."""
    return [sm for sm, stream in enumerate(lowering.streams) if len(stream) >= least]


# ---- the order of one queue ---------------------------------------------------------------------------------------


@mutation("order", "neighbours swapped")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    mutant = copied(lowering)
    pairs = [(sm, i) for sm, body in enumerate(mutant.bodies) for i in range(len(body) - 1) if body[i] != body[i + 1]]
    if not pairs:
        return None
    sm, i = rng.choice(pairs)
    body = mutant.bodies[sm]
    body[i], body[i + 1] = body[i + 1], body[i]
    mutant.what = f"SM {sm}: {name_of(lowering, body[i])} before {name_of(lowering, body[i + 1])}"
    return refetched(lowering, mutant)


@mutation("order", "two events of an SM swapped")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    mutant = copied(lowering)
    sm = rng.choice([s for s, body in enumerate(mutant.bodies) if len(body) > 1])
    body = mutant.bodies[sm]
    i, j = rng.sample(range(len(body)), 2)
    body[i], body[j] = body[j], body[i]
    mutant.what = f"SM {sm}: events {i} and {j} swapped"
    return refetched(lowering, mutant)


@mutation("order", "neighbouring tasks swapped")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: safe unless one reads what the other writes."""
    mutant = copied(lowering)
    pairs = [
        (sm, i)
        for sm, body in enumerate(mutant.bodies)
        for i in range(len(body) - 1)
        if body[i][0] == body[i + 1][0] == "run"
    ]
    if not pairs:
        return None
    sm, i = rng.choice(pairs)
    body = mutant.bodies[sm]
    body[i], body[i + 1] = body[i + 1], body[i]
    mutant.what = f"SM {sm}: {name_of(lowering, body[i])} before {name_of(lowering, body[i + 1])}"
    return refetched(lowering, mutant)


@mutation("order", "phases swapped on one SM")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: the SM does two stretches, from a wait to the next, in the other order."""
    mutant = copied(lowering)
    cuts = {
        sm: [i for i, e in enumerate(body) if e[0] == "wait" and (not i or body[i - 1][0] != "wait")]
        for sm, body in enumerate(mutant.bodies)
    }
    sms = [sm for sm, at in cuts.items() if len(at) >= 2]
    if not sms:
        return None
    sm = rng.choice(sms)
    n = rng.randrange(len(cuts[sm]) - 1)
    body = mutant.bodies[sm]
    first, middle = cuts[sm][n], cuts[sm][n + 1]
    last = cuts[sm][n + 2] if n + 2 < len(cuts[sm]) else len(body)
    mutant.bodies[sm] = body[:first] + body[middle:last] + body[first:middle] + body[last:]
    mutant.what = f"SM {sm}: events {first} to {middle - 1} after those to {last - 1}"
    return refetched(lowering, mutant)


@mutation("order", "stretch of an SM reversed")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    mutant = copied(lowering)
    sm = rng.choice([s for s, body in enumerate(mutant.bodies) if len(body) > 1])
    body = mutant.bodies[sm]
    first = rng.randrange(len(body) - 1)
    last = min(len(body), first + rng.randint(2, 5))
    body[first:last] = body[first:last][::-1]
    mutant.what = f"SM {sm}: events {first} to {last - 1} reversed"
    return refetched(lowering, mutant)


@mutation("order", "task moved within its SM")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    mutant = copied(lowering)
    at = some(rng, mutant.bodies, "run")
    assert at is not None
    sm, i = at
    body = mutant.bodies[sm]
    event = body.pop(i)
    to = rng.randint(max(0, i - 4), min(len(body), i + 4))
    body.insert(to, event)
    mutant.what = f"SM {sm}: {name_of(lowering, event)} moved from {i} to {to}"
    return refetched(lowering, mutant)


@mutation("order", "state written after it is read")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: a task that writes state goes, with what signals it, behind the last reader on its SM."""
    mutant = copied(lowering)
    state = {b.sym_name.data for b in lowering.buffers if b.kind.data.value == "state"}
    writers = {n for n, f in enumerate(lowering.families) if state & {op.region.buffer for op in f.stores}}
    readers = {n for n, f in enumerate(lowering.families) if state & {op.region.buffer for op in f.loads}}
    choices: list[tuple[int, int, int]] = []
    for sm, i in places(mutant.bodies, "run"):
        body = mutant.bodies[sm]
        later = [j for j in range(i + 1, len(body)) if body[j][0] == "run" and body[j][1] in readers]
        if body[i][1] in writers and later:
            choices.append((sm, i, later[0]))
    if not choices:
        return None
    sm, i, j = rng.choice(choices)
    body = mutant.bodies[sm]
    # its signal, if it follows directly, comes along in half of the cases
    stop = i + 1 + (body[i + 1][0] == "signal" and rng.random() < 0.5)
    moved = body[i:stop]
    mutant.bodies[sm] = body[:i] + body[stop : j + 1] + moved + body[j + 1 :]
    mutant.what = f"SM {sm}: {name_of(lowering, body[i])} behind {name_of(lowering, body[j])}"
    return refetched(lowering, mutant)


# ---- placement ----------------------------------------------------------------------------------------------------


def _to_another_sm(rng: random.Random, lowering: Lowering, before: int, after: int) -> Mutant:
    """A task moves to another SM, with up to so many waits and signals next to it."""
    mutant = copied(lowering)
    at = some(rng, mutant.bodies, "run")
    assert at is not None
    sm, i = at
    body = mutant.bodies[sm]
    first, last = i, i + 1
    while first > 0 and i - first < before and body[first - 1][0] == "wait":
        first -= 1
    while last < len(body) and last - i <= after and body[last][0] == "signal":
        last += 1
    moved = body[first:last]
    other = rng.choice([s for s in range(len(mutant.bodies)) if s != sm])
    to = rng.randint(0, len(mutant.bodies[other]))
    mutant.bodies[sm] = body[:first] + body[last:]
    mutant.bodies[other][to:to] = moved
    mutant.what = f"SM {sm}, events {first} to {last - 1} ({name_of(lowering, body[i])}) moved to SM {other}, {to}"
    return refetched(lowering, mutant)


@mutation("placement", "task moved to another SM")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    return _to_another_sm(rng, lowering, 0, 0)


@mutation("placement", "task moved to another SM with its synchronisation")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: often safe, unless the place closes a circle."""
    return _to_another_sm(rng, lowering, 9, 9)


@mutation("placement", "tasks exchanged between SMs")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: tasks of one family, so that many are safe."""
    mutant = copied(lowering)
    runs = places(mutant.bodies, "run")
    pairs = [
        (a, b)
        for a in runs
        for b in runs
        if a[0] < b[0] and mutant.bodies[a[0]][a[1]][1] == mutant.bodies[b[0]][b[1]][1]
    ]
    if not pairs:
        return None
    (s, i), (t, j) = rng.choice(pairs)
    a, b = mutant.bodies[s], mutant.bodies[t]
    a[i], b[j] = b[j], a[i]
    mutant.what = f"{name_of(lowering, a[i])} and {name_of(lowering, b[j])} exchanged between SMs {s} and {t}"
    return refetched(lowering, mutant)


@mutation("placement", "queues exchanged between SMs")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: the SMs are alike, and each queue takes its stream along."""
    mutant = copied(lowering)
    s, t = rng.sample(range(len(mutant.bodies)), 2)
    for queues in (mutant.bodies, mutant.streams):
        queues[s], queues[t] = queues[t], queues[s]
    mutant.what = f"the queues of SMs {s} and {t} exchanged"
    mutant.certain = Truth.SAFE
    return mutant


@mutation("placement", "one SM does the work of two")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: a queue is emptied into another, at random places but in its order."""
    mutant = copied(lowering)
    s, t = rng.sample(range(len(mutant.bodies)), 2)
    mixed, to = list(mutant.bodies[t]), 0
    for event in mutant.bodies[s]:
        to = rng.randint(to, min(len(mixed), to + 4))
        mixed.insert(to, event)
        to += 1
    mutant.bodies[s], mutant.bodies[t] = [], mixed
    mutant.what = f"SM {t} does the work of SM {s} as well"
    return refetched(lowering, mutant)


# ---- tasks --------------------------------------------------------------------------------------------------------


@mutation("tasks", "task missing")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: every task of a family has to run."""
    mutant = copied(lowering)
    at = some(rng, mutant.bodies, "run")
    assert at is not None
    mutant.what = f"SM {at[0]} without {name_of(lowering, mutant.bodies[at[0]].pop(at[1]))}, event {at[1]}"
    mutant.certain = Truth.UNSAFE
    return refetched(lowering, mutant)


@mutation("tasks", "task run twice")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: every task runs once."""
    mutant = copied(lowering)
    at = some(rng, mutant.bodies, "run")
    assert at is not None
    event, other = mutant.bodies[at[0]][at[1]], rng.randrange(len(mutant.bodies))
    to = rng.randint(0, len(mutant.bodies[other]))
    mutant.bodies[other].insert(to, event)
    mutant.what = f"{name_of(lowering, event)} again on SM {other} at {to}"
    mutant.certain = Truth.UNSAFE
    return refetched(lowering, mutant)


@mutation("tasks", "task in place of another")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: one task runs twice, the other does not."""
    mutant = copied(lowering)
    runs = places(mutant.bodies, "run")
    (s, i), (t, j) = rng.sample(runs, 2)
    mutant.what = f"{name_of(lowering, mutant.bodies[t][j])} in place of {name_of(lowering, mutant.bodies[s][i])}"
    mutant.bodies[s][i] = mutant.bodies[t][j]
    mutant.certain = Truth.UNSAFE
    return refetched(lowering, mutant)


# ---- streams ------------------------------------------------------------------------------------------------------


@mutation("streams", "fetches swapped")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: tiles leave the ring in the order in which they enter, and each task is in the stream once."""
    mutant = copied(lowering)
    sm = rng.choice(streaming(lowering, 2))
    stream = mutant.streams[sm]
    i = rng.randrange(len(stream) - 1)
    j = rng.choice([i + 1, rng.randrange(i + 1, len(stream))])
    stream[i], stream[j] = stream[j], stream[i]
    mutant.what = f"SM {sm}: fetches {i} and {j} swapped"
    mutant.certain = Truth.UNSAFE
    return mutant


@mutation("streams", "fetch missing")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: a task never finds its tiles."""
    mutant = copied(lowering)
    sm = rng.choice(streaming(lowering, 1))
    i = rng.randrange(len(mutant.streams[sm]))
    del mutant.streams[sm][i]
    mutant.what = f"SM {sm}: fetch {i} missing"
    mutant.certain = Truth.UNSAFE
    return mutant


@mutation("streams", "fetch too many")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: its tiles stay in the ring."""
    mutant = copied(lowering)
    source, sm = rng.choice(streaming(lowering, 1)), rng.randrange(len(mutant.streams))
    i = rng.randint(0, len(mutant.streams[sm]))
    mutant.streams[sm].insert(i, rng.choice(mutant.streams[source]))
    mutant.what = f"SM {sm}: another fetch at {i}"
    mutant.certain = Truth.UNSAFE
    return mutant


@mutation("streams", "fetch on another SM")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: one SM lacks the tiles, the other keeps them."""
    mutant = copied(lowering)
    sm = rng.choice(streaming(lowering, 1))
    other = rng.choice([s for s in range(len(mutant.streams)) if s != sm])
    entry = mutant.streams[sm].pop(rng.randrange(len(mutant.streams[sm])))
    mutant.streams[other].insert(rng.randint(0, len(mutant.streams[other])), entry)
    mutant.what = f"fetch of {name_of(lowering, ('run', *entry))} on SM {other}, its task runs on SM {sm}"
    mutant.certain = Truth.UNSAFE
    return mutant


@mutation("streams", "tasks swapped, fetches kept")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: the fetches come in the order in which the tasks ran before."""
    mutant = copied(lowering)
    sm = rng.choice(streaming(lowering, 2))
    body = mutant.bodies[sm]
    at = [i for i, e in enumerate(body) if e[0] == "run" and lowering.families[e[1]].streams]
    n = rng.randrange(len(at) - 1)
    i, j = at[n], at[n + 1]
    body[i], body[j] = body[j], body[i]
    mutant.what = f"SM {sm}: {name_of(lowering, body[i])} before {name_of(lowering, body[j])}"
    mutant.certain = Truth.UNSAFE
    return mutant


@mutation("streams", "task moved, fetch kept")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: the tiles of the task enter the ring of the SM where it was."""
    mutant = copied(lowering)
    sm = rng.choice(streaming(lowering, 1))
    body = mutant.bodies[sm]
    i = rng.choice([i for i, e in enumerate(body) if e[0] == "run" and lowering.families[e[1]].streams])
    event = body.pop(i)
    other = rng.choice([s for s in range(len(mutant.bodies)) if s != sm])
    mutant.bodies[other].insert(rng.randint(0, len(mutant.bodies[other])), event)
    mutant.what = f"{name_of(lowering, event)} moved from SM {sm} to SM {other}"
    mutant.certain = Truth.UNSAFE
    return mutant
