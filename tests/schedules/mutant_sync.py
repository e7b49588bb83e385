"""Mutations of waits, signals and counters."""

from __future__ import annotations

import random

from .direct_oracle import Event, execute
from .lowerings import SPARE, Lowering
from .mutants import Mutant, Truth, copied, mutation, name_of, places


def spelled(lowering: Lowering, what: str = "") -> Mutant:
    """A copy in which waits for all signals say how many that are, so that they do not follow the signals."""
    mutant = copied(lowering, what)
    for body in mutant.bodies:
        for i, event in enumerate(body):
            if event[0] == "wait" and event[2] is None:
                body[i] = ("wait", event[1], max(1, total(lowering.bodies, event[1])))
    return mutant


def total(bodies: list[list[Event]], counter: int) -> int:
    """The signals of a counter in a step."""
    return sum(event == ("signal", counter) for body in bodies for event in body)


def some(rng: random.Random, bodies: list[list[Event]], kind: str) -> tuple[int, int] | None:
    """Where some event of a kind is."""
    found = places(bodies, kind)
    return rng.choice(found) if found else None


def used(lowering: Lowering) -> list[int]:
    """The counters that are signalled and waited for."""
    signalled = {event[1] for body in lowering.bodies for event in body if event[0] == "signal"}
    return sorted(signalled & {event[1] for body in lowering.bodies for event in body if event[0] == "wait"})


def spares(lowering: Lowering) -> range:
    """The counters that nobody uses."""
    return range(len(lowering.counters) - SPARE, len(lowering.counters))


# ---- waits --------------------------------------------------------------------------------------------------------


@mutation("waits", "wait dropped")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    mutant = copied(lowering)
    if (at := some(rng, mutant.bodies, "wait")) is None:
        return None
    mutant.what = f"SM {at[0]} without {name_of(lowering, mutant.bodies[at[0]].pop(at[1]))}, event {at[1]}"
    return mutant


def _moved(rng: random.Random, lowering: Lowering, kind: str, later: bool) -> Mutant | None:
    """An event of a kind one to four places later or earlier on its SM."""
    mutant = copied(lowering)
    if (at := some(rng, mutant.bodies, kind)) is None:
        return None
    sm, i = at
    body = mutant.bodies[sm]
    to = min(len(body) - 1, i + rng.randint(1, 4)) if later else max(0, i - rng.randint(1, 4))
    if to == i:
        return None
    event = body.pop(i)
    body.insert(to, event)
    mutant.what = f"SM {sm}: {name_of(lowering, event)} moved from {i} to {to}"
    return mutant


@mutation("waits", "wait moved later")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: safe if it still stands before its first use."""
    return _moved(rng, lowering, "wait", True)


@mutation("waits", "wait moved earlier")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: stronger, so safe unless it waits for what comes after it."""
    return _moved(rng, lowering, "wait", False)


@mutation("waits", "wait moved to another SM")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    mutant = copied(lowering)
    if (at := some(rng, mutant.bodies, "wait")) is None:
        return None
    sm, i = at
    event = mutant.bodies[sm].pop(i)
    other = rng.choice([s for s in range(len(mutant.bodies)) if s != sm])
    to = rng.randint(0, len(mutant.bodies[other]))
    mutant.bodies[other].insert(to, event)
    mutant.what = f"{name_of(lowering, event)} moved from SM {sm}, event {i} to SM {other}, event {to}"
    return mutant


@mutation("waits", "wait repeated")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: counters only rise, so a wait that came through comes through again later on its SM."""
    mutant = copied(lowering)
    if (at := some(rng, mutant.bodies, "wait")) is None:
        return None
    sm, i = at
    to = rng.randint(i + 1, len(mutant.bodies[sm]))
    mutant.bodies[sm].insert(to, mutant.bodies[sm][i])
    mutant.what = f"SM {sm}: {name_of(lowering, mutant.bodies[sm][i])} again at {to}"
    mutant.certain = Truth.SAFE
    return mutant


@mutation("waits", "thresholds spelled out")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: a wait for all signals and one for their number mean the same."""
    mutant = spelled(lowering, "every wait with its number")
    mutant.certain = Truth.SAFE
    return mutant if used(lowering) else None


@mutation("waits", "wait weakened")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: a smaller threshold, which may do where one signal implies another."""
    mutant = spelled(lowering)
    waits = [(sm, i) for sm, i in places(mutant.bodies, "wait") if mutant.bodies[sm][i][2] > 1]
    if not waits:
        return None
    sm, i = rng.choice(waits)
    _, counter, threshold = mutant.bodies[sm][i]
    mutant.bodies[sm][i] = ("wait", counter, rng.choice([threshold - 1, rng.randint(1, threshold - 1)]))
    mutant.what = f"SM {sm}, event {i}: {name_of(lowering, mutant.bodies[sm][i])} instead of {threshold}"
    return mutant


@mutation("waits", "all waits on a counter weakened")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    mutant = spelled(lowering)
    counters = [c for c in used(lowering) if total(mutant.bodies, c) > 1]
    if not counters:
        return None
    counter = rng.choice(counters)
    threshold = total(mutant.bodies, counter) - 1
    for sm, i in places(mutant.bodies, "wait"):
        if mutant.bodies[sm][i][1] == counter:
            mutant.bodies[sm][i] = ("wait", counter, threshold)
    mutant.what = f"every {name_of(lowering, ('wait', counter, threshold))}"
    return mutant


@mutation("waits", "threshold above the number of signals")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: the wait never comes through, so its SM never finishes."""
    mutant = spelled(lowering)
    if (at := some(rng, mutant.bodies, "wait")) is None:
        return None
    sm, i = at
    _, counter, threshold = mutant.bodies[sm][i]
    mutant.bodies[sm][i] = ("wait", counter, threshold + rng.choice([1, 1, 2, 1000]))
    mutant.what = f"SM {sm}, event {i}: {name_of(lowering, mutant.bodies[sm][i])} of {threshold}"
    mutant.certain = Truth.UNSAFE
    return mutant


@mutation("waits", "wait on another element")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: the counter of another layer or tile."""
    mutant = copied(lowering)
    choices = [
        (sm, i, c)
        for sm, i in places(mutant.bodies, "wait")
        for c, (name, _) in enumerate(lowering.counters)
        if name == lowering.counters[mutant.bodies[sm][i][1]][0] and c != mutant.bodies[sm][i][1]
    ]
    if not choices:
        return None
    sm, i, c = rng.choice(choices)
    old, mutant.bodies[sm][i] = mutant.bodies[sm][i], ("wait", c, mutant.bodies[sm][i][2])
    mutant.what = f"SM {sm}, event {i}: {name_of(lowering, mutant.bodies[sm][i])} instead of {name_of(lowering, old)}"
    return mutant


@mutation("waits", "wait on another counter")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    mutant = copied(lowering)
    counters = used(lowering)
    if len(counters) < 2 or (at := some(rng, mutant.bodies, "wait")) is None:
        return None
    sm, i = at
    old = mutant.bodies[sm][i]
    other = rng.choice([c for c in counters if c != old[1]])
    mutant.bodies[sm][i] = ("wait", other, None)
    mutant.what = f"SM {sm}, event {i}: {name_of(lowering, mutant.bodies[sm][i])} instead of {name_of(lowering, old)}"
    return mutant


@mutation("waits", "wait added anywhere")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: safe unless it blocks for ever."""
    mutant = copied(lowering)
    if not (counters := used(lowering)):
        return None
    counter, sm = rng.choice(counters), rng.randrange(len(mutant.bodies))
    event = ("wait", counter, rng.choice([None, rng.randint(1, total(mutant.bodies, counter))]))
    to = rng.randint(0, len(mutant.bodies[sm]))
    mutant.bodies[sm].insert(to, event)
    mutant.what = f"SM {sm}: {name_of(lowering, event)} added at {to}"
    return mutant


# ---- signals ------------------------------------------------------------------------------------------------------


@mutation("signals", "signal lost")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: waits for all signals no longer wait for what stood before this one."""
    mutant = copied(lowering)
    if (at := some(rng, mutant.bodies, "signal")) is None:
        return None
    mutant.what = f"SM {at[0]} without {name_of(lowering, mutant.bodies[at[0]].pop(at[1]))}, event {at[1]}"
    return mutant


@mutation("signals", "signal lost, thresholds kept")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: somebody waits for as many signals as there were, and one of them never comes."""
    mutant = spelled(lowering)
    needed = set(used(lowering))
    signals = [(sm, i) for sm, i in places(mutant.bodies, "signal") if mutant.bodies[sm][i][1] in needed]
    if not signals:
        return None
    sm, i = rng.choice(signals)
    mutant.what = f"SM {sm} without {name_of(lowering, mutant.bodies[sm].pop(i))}, event {i}"
    mutant.certain = Truth.UNSAFE
    return mutant


@mutation("signals", "signal doubled")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: every wait waits for all signals, the second one comes right after the first, and nothing stands between."""
    mutant = copied(lowering)
    if (at := some(rng, mutant.bodies, "signal")) is None:
        return None
    sm, i = at
    mutant.bodies[sm].insert(i, mutant.bodies[sm][i])
    mutant.what = f"SM {sm}: {name_of(lowering, mutant.bodies[sm][i])} twice at {i}"
    mutant.certain = Truth.SAFE
    return mutant


@mutation("signals", "signal doubled, thresholds kept")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: a wait may come through without one of the others."""
    mutant = spelled(lowering)
    if (at := some(rng, mutant.bodies, "signal")) is None:
        return None
    sm, i = at
    mutant.bodies[sm].insert(i, mutant.bodies[sm][i])
    mutant.what = f"SM {sm}: {name_of(lowering, mutant.bodies[sm][i])} twice at {i}"
    return mutant


@mutation("signals", "signal early")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: before the task that it tells of, or before a wait that others relied on."""
    return _moved(rng, lowering, "signal", False)


@mutation("signals", "signal late")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: safe unless somebody it needs meanwhile waits for it."""
    return _moved(rng, lowering, "signal", True)


def _misdirected(rng: random.Random, lowering: Lowering, mutant: Mutant) -> Mutant | None:
    counters = used(lowering)
    if len(counters) < 2 or (at := some(rng, mutant.bodies, "signal")) is None:
        return None
    sm, i = at
    old = mutant.bodies[sm][i]
    mutant.bodies[sm][i] = ("signal", rng.choice([c for c in counters if c != old[1]]))
    mutant.what = f"SM {sm}, event {i}: {name_of(lowering, mutant.bodies[sm][i])} instead of {name_of(lowering, old)}"
    return mutant


@mutation("signals", "signal misdirected")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: all who wait for the other counter wait for this SM now."""
    return _misdirected(rng, lowering, copied(lowering))


@mutation("signals", "signal misdirected, thresholds kept")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe, if anybody waits on the counter that it was for: it stays below what they wait for."""
    mutant = _misdirected(rng, lowering, spelled(lowering))
    if mutant is None or total(mutant.bodies, (lost := _lost(lowering, mutant))) == total(lowering.bodies, lost):
        return None
    mutant.certain = Truth.UNSAFE if lost in used(lowering) else None
    return mutant


def _lost(lowering: Lowering, mutant: Mutant) -> int:
    """The counter that has fewer signals than before."""
    return min(range(len(lowering.counters)), key=lambda c: total(mutant.bodies, c) - total(lowering.bodies, c))


@mutation("signals", "signal moved to another SM")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle."""
    mutant = copied(lowering)
    if (at := some(rng, mutant.bodies, "signal")) is None:
        return None
    sm, i = at
    event = mutant.bodies[sm].pop(i)
    other = rng.choice([s for s in range(len(mutant.bodies)) if s != sm])
    to = rng.randint(0, len(mutant.bodies[other]))
    mutant.bodies[other].insert(to, event)
    mutant.what = f"{name_of(lowering, event)} moved from SM {sm}, event {i} to SM {other}, event {to}"
    return mutant


@mutation("signals", "signal added anywhere")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: waits for all signals wait for it too, which may block for ever."""
    mutant = copied(lowering)
    if not (counters := used(lowering)):
        return None
    event, sm = ("signal", rng.choice(counters)), rng.randrange(len(mutant.bodies))
    to = rng.randint(0, len(mutant.bodies[sm]))
    mutant.bodies[sm].insert(to, event)
    mutant.what = f"SM {sm}: {name_of(lowering, event)} added at {to}"
    return mutant


@mutation("signals", "signals that nobody waits for")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: a signal never blocks and says nothing to those who do not wait."""
    mutant = copied(lowering)
    counter = rng.choice(spares(lowering))
    for _ in range(rng.randint(1, 5)):
        body = rng.choice(mutant.bodies)
        body.insert(rng.randint(0, len(body)), ("signal", counter))
    mutant.what = f"signals to {lowering.counters[counter][0]}[{lowering.counters[counter][1]}]"
    mutant.certain = Truth.SAFE
    return mutant


# ---- edges and cycles ---------------------------------------------------------------------------------------------


@mutation("edges", "edges along an execution")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: each new wait stands after its signal in an execution of the kernel, which therefore is still one."""
    mutant = copied(lowering, "new edges:")
    order = execute(lowering.unchanged_head(), lowering.bodies, rng.getrandbits(32))
    if len(order) < 2:  # of a kernel that was made to deadlock before
        return None
    added: dict[tuple[int, int], list[tuple[bool, Event]]] = {}
    for counter in rng.sample(spares(lowering), rng.randint(1, 3)):
        first, second = sorted(rng.sample(range(len(order)), 2))
        if order[first][0] != order[second][0]:
            added.setdefault(order[first], []).append((False, ("signal", counter)))
            added.setdefault(order[second], []).append((True, ("wait", counter, None)))
            mutant.what += f" SM {order[first][0]}, {order[first][1]} to SM {order[second][0]}, {order[second][1]};"
    if not added:
        return None
    for sm, body in enumerate(lowering.bodies):
        mutant.bodies[sm] = []
        for i, event in enumerate(body):
            more = added.get((sm, i), [])
            mutant.bodies[sm] += [
                *(e for before, e in more if before),
                event,
                *(e for before, e in more if not before),
            ]
    mutant.certain = Truth.SAFE
    return mutant


@mutation("edges", "cycle within an SM")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: the only signal stands behind the wait for it."""
    mutant = copied(lowering)
    counter, sm = rng.choice(spares(lowering)), rng.randrange(len(mutant.bodies))
    body = mutant.bodies[sm]
    first, second = sorted((rng.randint(0, len(body)), rng.randint(0, len(body))))
    body.insert(second, ("signal", counter))
    body.insert(first, ("wait", counter, rng.choice([None, 1])))
    mutant.what = f"SM {sm} waits at {first} for its signal at {second + 1}"
    mutant.certain = Truth.UNSAFE
    return mutant


@mutation("edges", "cycle across SMs")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Unsafe: each of some SMs waits for the one before it, in a circle, before it signals the next."""
    mutant = copied(lowering)
    count = rng.randint(2, min(len(mutant.bodies), SPARE))
    circle = rng.sample(range(len(mutant.bodies)), count)
    counters = rng.sample(spares(lowering), count)
    for n, sm in enumerate(circle):
        body = mutant.bodies[sm]
        first, second = sorted((rng.randint(0, len(body)), rng.randint(0, len(body))))
        body.insert(second, ("signal", counters[n]))
        body.insert(first, ("wait", counters[n - 1], None))
    mutant.what = f"SMs {circle} wait for each other in a circle"
    mutant.certain = Truth.UNSAFE
    return mutant


@mutation("edges", "one direction of a circle")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: an edge between two random events, which may close a circle with those that are there."""
    mutant = copied(lowering)
    counter = rng.choice(spares(lowering))
    sms = rng.sample(range(len(mutant.bodies)), 2)
    for event, sm in zip((("signal", counter), ("wait", counter, None)), sms, strict=True):
        to = rng.randint(0, len(mutant.bodies[sm]))
        mutant.bodies[sm].insert(to, event)
        mutant.what += f"SM {sm}: {name_of(lowering, event)} at {to}; "
    return mutant


# ---- counters -----------------------------------------------------------------------------------------------------


def _two_counters(rng: random.Random, lowering: Lowering, same_array: bool) -> tuple[int, int] | None:
    """Two counters, the one that is waited for first in an execution first."""
    counters = used(lowering)
    name = [array for array, _ in lowering.counters]
    pairs = [(a, b) for a in counters for b in counters if a < b and (name[a] == name[b]) == same_array]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    order = execute(lowering.unchanged_head(), lowering.bodies, rng.getrandbits(32))
    events = [lowering.bodies[sm][i] for sm, i in order]
    first = next((e[1] for e in events if e[0] == "wait" and e[1] in (a, b)), a)
    return (a, b) if first == a else (b, a)


def _shared(lowering: Lowering, mutant: Mutant, first: int, second: int, shift: int) -> Mutant:
    """Counter `second` becomes `first`; thresholds of waits on it, where they are spelled out, rise by `shift`."""
    for body in mutant.bodies:
        for i, event in enumerate(body):
            if event[1] != second or event[0] == "run":
                continue
            if event[0] == "signal":
                body[i] = ("signal", first)
            else:
                body[i] = ("wait", first, None if event[2] is None else event[2] + shift)
    mutant.what = f"{name_of(lowering, ('signal', second))} becomes {name_of(lowering, ('signal', first))}"
    return mutant


def _sharing(rng: random.Random, lowering: Lowering, how: str, same_array: bool) -> Mutant | None:
    if (pair := _two_counters(rng, lowering, same_array)) is None:
        return None
    mutant = copied(lowering) if how == "all" else spelled(lowering)
    return _shared(lowering, mutant, *pair, total(lowering.bodies, pair[0]) if how == "cumulative" else 0)


@mutation("counters", "counter shared between layers")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: who waits for all signals of an early phase waits for those of a later one too."""
    return _sharing(rng, lowering, "all", True)


@mutation("counters", "counter shared between layers, thresholds kept")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: the signals of the first layer let through those who wait in the second."""
    return _sharing(rng, lowering, "kept", True)


@mutation("counters", "counter shared between layers, thresholds added")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: a counter that rises from phase to phase, safe where the phases are in order."""
    return _sharing(rng, lowering, "cumulative", True)


@mutation("counters", "counter shared between phases")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle, as between layers."""
    return _sharing(rng, lowering, "all", False)


@mutation("counters", "counter shared between phases, thresholds kept")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle, as between layers."""
    return _sharing(rng, lowering, "kept", False)


@mutation("counters", "counter shared between phases, thresholds added")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle, as between layers."""
    return _sharing(rng, lowering, "cumulative", False)


@mutation("counters", "counters exchanged")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """Safe: which counter is which does not matter, as long as all who use it use the same."""
    counters = used(lowering)
    if len(counters) < 2:
        return None
    mutant = copied(lowering)
    a, b = rng.sample(counters, 2)
    other = {a: b, b: a}
    for body in mutant.bodies:
        for i, event in enumerate(body):
            if event[0] != "run":
                body[i] = (event[0], other.get(event[1], event[1]), *event[2:])
    mutant.what = f"{name_of(lowering, ('signal', a))} and {name_of(lowering, ('signal', b))} exchanged"
    mutant.certain = Truth.SAFE
    return mutant


@mutation("counters", "waits exchanged between two counters")
def _(rng: random.Random, lowering: Lowering) -> Mutant | None:
    """By the oracle: the signals stay where they are."""
    counters = used(lowering)
    if len(counters) < 2:
        return None
    mutant = copied(lowering)
    a, b = rng.sample(counters, 2)
    other = {a: b, b: a}
    for body in mutant.bodies:
        for i, event in enumerate(body):
            if event[0] == "wait":
                body[i] = ("wait", other.get(event[1], event[1]), event[2])
    mutant.what = f"waits on {name_of(lowering, ('signal', a))} and {name_of(lowering, ('signal', b))} exchanged"
    return mutant
