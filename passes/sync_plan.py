"""Which counters a kernel needs: who signals, who waits, and which waits follow from others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.linear import Linear
from .dependences import BufferUse, Dependences, slot_of

Event = tuple[int, Linear]
"""A phase and the element of the counter that it signals or waits for."""


@dataclass
class Counter:
    """An array of counters. A phase waits for all signals of an element; every SM of a phase signals once."""

    names: list[str]
    size: int
    signals: list[Event]
    waits: list[Event] = field(default_factory=list[Event])

    def add_waits(self, waits: Iterable[Event]) -> None:
        self.waits += [w for w in waits if w not in self.waits]


def plan_counters(dependences: Dependences, uses: Iterable[BufferUse]) -> list[Counter]:
    """Counters that order all edges of `uses`, few of them, with no wait that follows from the others."""
    uses = tuple(uses)
    counters: list[Counter] = []
    needed = _reduced(len(dependences.instances), {edge for use in uses for edge in use.edges})
    for use in uses:
        wanted = _by_buffer(dependences, use)
        for counter in [wanted] if wanted is not None else _by_phase(dependences, use.edges & needed):
            same = next((c for c in counters if c.signals == counter.signals and c.size == counter.size), None)
            if same is None:
                counters.append(counter)
            else:
                same.names += [n for n in counter.names if n not in same.names]
                same.add_waits(counter.waits)
    _drop_implied(dependences, counters)
    return [c for c in counters if c.waits]


def _by_buffer(dependences: Dependences, use: BufferUse) -> Counter | None:
    """One counter an element of the first dimension, or one in all: its writers signal, its readers wait for all.

    None if a reader would wait for a signal that comes after it, or if more than reads after writes must be ordered.
    """
    if not use.is_written_once:
        return None
    if use.slots:
        size = use.buffer.shape[0]
        signals = _events((p, slot_of(b)) for p, boxes in use.writers.items() for b in boxes)
        waits = _events((p, slot_of(b)) for p, boxes in use.readers.items() for b in boxes)
    else:
        size = 1
        signals, waits = [(p, Linear()) for p in use.writers], [(p, Linear()) for p in use.readers]
    counter = Counter([use.buffer.sym_name.data], size, signals, waits)
    graph = _Graph(dependences, [counter])
    return counter if graph.is_acyclic else None


def _events(events: Iterable[tuple[int, Linear | None]]) -> list[Event]:
    return list(dict.fromkeys((phase, slot) for phase, slot in events if slot is not None))


def _reduced(count: int, edges: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """The edges between `count` instances that do not follow from the others."""
    earlier: list[list[int]] = [[] for _ in range(count)]
    for first, second in edges:
        earlier[second].append(first)
    kept: set[tuple[int, int]] = set()
    ancestors: list[int] = []
    for second, found in enumerate(earlier):
        mask = 0
        for first in sorted(found, reverse=True):
            if not mask >> first & 1:
                mask |= ancestors[first] | 1 << first
                kept.add((first, second))
        ancestors.append(mask)
    return kept


def _by_phase(dependences: Dependences, edges: Iterable[tuple[int, int]]) -> list[Counter]:
    """A counter for each pair of phases with an edge: the earlier signals, the later waits, iteration by iteration."""
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for first, second in sorted(edges):
        key = dependences.instances[first].phase, dependences.instances[second].phase
        pairs.setdefault(key, []).append((first, second))
    return [_phase_counter(dependences, first, second, edges) for (first, second), edges in pairs.items()]


def _phase_counter(dependences: Dependences, first: int, second: int, edges: list[tuple[int, int]]) -> Counter:
    phases, instances = dependences.phases, dependences.instances
    names = list(phases[first].families)
    whole = Counter(names, 1, [(first, Linear())], [(second, Linear())])
    if max(dependences.instances_of(first)) < min(dependences.instances_of(second)):
        return whole  # all iterations of the one come before all of the other
    loops = phases[first].loops
    if len(loops) == 1 and phases[second].loops == loops:
        index, values = loops[0].index.data, loops[0].range
        distances = {instances[b].indices[index] - instances[a].indices[index] for a, b in edges}
        if len(distances) == 1:
            # Iteration i waits for iteration i - distance; the first ones have nothing to wait for.
            (distance,) = distances
            here = Linear.of(index) - values.start
            return Counter(names, len(values) + distance, [(first, here + distance)], [(second, here)])
    raise PassFailedException(
        f"insert-sync: the dependence of @{', @'.join(phases[second].families)} on @{', @'.join(names)} is not between "
        "iterations of one loop at a constant distance; give the buffer a leading loop dimension"
    )


@dataclass
class _Graph:
    """Which instances come before which through waits, as bit sets over instance numbers."""

    dependences: Dependences
    counters: list[Counter]
    is_acyclic: bool = True
    """No wait is for a signal that comes at or after it in the sequential order."""

    def __post_init__(self) -> None:
        self.waits: dict[tuple[int, Event], dict[int, int]] = {}
        """For counter number and wait: the instances that it waits for, by the instance that waits."""
        for number, counter in enumerate(self.counters):
            signalled: dict[int, int] = {}
            for phase, index in counter.signals:
                for i in self.dependences.instances_of(phase):
                    slot = index.evaluate(self.dependences.instances[i].indices)
                    signalled[slot] = signalled.get(slot, 0) | 1 << i
            for wait in counter.waits:
                phase, index = wait
                before: dict[int, int] = {}
                for i in self.dependences.instances_of(phase):
                    before[i] = signalled.get(index.evaluate(self.dependences.instances[i].indices), 0)
                    self.is_acyclic &= before[i] >> i == 0
                self.waits[number, wait] = before

    def ancestors(self) -> list[int]:
        """For each instance, all instances that come before it."""
        direct = [0] * len(self.dependences.instances)
        for before in self.waits.values():
            for i, mask in before.items():
                direct[i] |= mask
        result: list[int] = []
        for mask in direct:
            result.append(_closure(mask, result))
        return result


def _closure(mask: int, ancestors: list[int]) -> int:
    """`mask` and all ancestors of its instances."""
    total, rest = mask, mask
    while rest:
        i = rest.bit_length() - 1
        total |= ancestors[i]
        rest &= ~(1 << i)
        rest &= ~ancestors[i]
    return total


def _drop_implied(dependences: Dependences, counters: list[Counter]) -> None:
    """Removes each wait whose signals all come before some other wait of the same phase anyway.

    Every SM of a phase waits before it runs and signals after it, so order through counters is transitive; that of
    tags is not, for plain data, and has no part in this.
    """
    graph = _Graph(dependences, counters)
    ancestors = graph.ancestors()  # dropping what is implied changes no ancestors
    # those that wait for the oldest signals first: they are the most likely to be implied
    for key in sorted(graph.waits, key=lambda k: max(graph.waits[k].values())):
        phase = key[1][0]
        others = [before for k, before in graph.waits.items() if k != key and k[1][0] == phase]
        implied = all(
            mask & ~_closure(_union(before.get(i, 0) for before in others), ancestors) == 0
            for i, mask in graph.waits[key].items()
        )
        if implied:
            del graph.waits[key]
            counters[key[0]].waits.remove(key[1])


def _union(masks: Iterable[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total
