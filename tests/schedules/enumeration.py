"""Exhaustive enumeration: decides a small kernel by exploring every reachable state.

It keeps track of who has heard of whom, and decides each rule from its definition in docs/semantics.md, element by element
and position by position.
"""

import itertools
from collections.abc import Iterator

from .small_kernels import SHAPES, Event, Kernel


class Oracle:
    """Decides a kernel whose tasks each run once."""

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.queues = kernel.queues
        self.end = tuple(map(len, self.queues))
        self.runs = {(s, n): e for s, q in enumerate(self.queues) for n, e in enumerate(q) if e[0] == "run"}
        self.position = 0

    def reads(self, event: Event, streamed: bool = False):
        boxes = self.kernel.families[event[1]].reads
        return [b.elements(event[2], self.position) for b in boxes if b.streamed == streamed]

    def writes(self, event: Event):
        return [b.elements(event[2], self.position) for b in self.kernel.families[event[1]].writes]

    def enabled(self, pcs: tuple[int, ...], sm: int) -> bool:
        if pcs[sm] == self.end[sm]:
            return False
        event = self.queues[sm][pcs[sm]]
        done = [e for s, q in enumerate(self.queues) for e in q[: pcs[s]]]
        if event[0] == "wait":
            return done.count(("signal", event[1])) >= self.kernel.threshold(event)
        if event[0] == "run":
            words = {e for r in self.reads(event) for e in r if e[0] == "t"}
            written = {e for d in done if d[0] == "run" for w in self.writes(d) for e in w}
            return words <= written
        return True

    def states(self) -> dict[tuple[int, ...], list[int]]:
        """All reachable states, with the SMs that can move."""
        found: dict[tuple[int, ...], list[int]] = {}
        todo = [(0,) * len(self.queues)]
        while todo:
            pcs = todo.pop()
            if pcs in found:
                continue
            found[pcs] = [s for s in range(len(pcs)) if self.enabled(pcs, s)]
            todo += [(*pcs[:s], pcs[s] + 1, *pcs[s + 1 :]) for s in found[pcs]]
        return found

    def always_before(self, a: tuple[int, int], b: tuple[int, int], states: dict[tuple[int, ...], list[int]]) -> bool:
        """In no execution does event b run while a has not."""
        return not any(pcs[b[0]] == b[1] and b[0] in movable and pcs[a[0]] <= a[1] for pcs, movable in states.items())

    def always_loaded(self, b: tuple[int, int], a: tuple[int, int], states: dict[tuple[int, ...], list[int]]) -> bool:
        """In no execution does event a run while the tile of event b is not in the ring yet.

        The load is an event of its own: nothing holds it up, and b waits for it. Other loads hold up nobody for good.
        """
        start = ((0,) * len(self.queues), False)
        seen, todo = set(), [start]
        while todo:
            state = todo.pop()
            if state in seen:
                continue
            seen.add(state)
            pcs, loaded = state
            if not loaded:
                todo.append((pcs, True))
            for s in states[pcs]:
                at = (s, pcs[s])
                if at == b and not loaded:
                    continue
                if at == a and not loaded:
                    return False
                todo.append(((*pcs[:s], pcs[s] + 1, *pcs[s + 1 :]), loaded))
        return True

    def always_visible(self, a: tuple[int, int], b: tuple[int, int], states: dict[tuple[int, ...], list[int]]) -> bool:
        """In every execution, b runs knowing of a: through program order, or a signal that a wait observed.

        A wait observes the first k signals of its counter, in the order in which they came: at least as many as it
        waits for and as its SM has heard of, at most all so far. Tags order tasks in time, but carry no knowledge.
        """
        none = (0,) * self.kernel.counters
        # of each SM: does it know of a, how many signals of each counter has it heard of; the same of each signal
        start = ((0,) * len(self.queues), ((False, none),) * len(self.queues), ((),) * self.kernel.counters)
        seen, todo = set(), [start]
        while todo:
            state = todo.pop()
            if state in seen:
                continue
            seen.add(state)
            pcs, sms, signals = state
            for s in states[pcs]:
                event = self.queues[s][pcs[s]]
                knows, heard = sms[s]
                if (s, pcs[s]) == b and not knows:
                    return False
                after = (*pcs[:s], pcs[s] + 1, *pcs[s + 1 :])
                outcomes, sent = [(knows or (s, pcs[s]) == a, heard)], signals
                if event[0] == "signal":
                    c = event[1]
                    outcomes = [(knows, (*heard[:c], len(signals[c]) + 1, *heard[c + 1 :]))]
                    sent = (*signals[:c], (*signals[c], outcomes[0]), *signals[c + 1 :])
                elif event[0] == "wait":
                    c = event[1]
                    outcomes = []
                    for k in range(max(self.kernel.threshold(event), heard[c]), len(signals[c]) + 1):
                        told = signals[c][:k]
                        most = tuple(map(max, zip(heard, *(h for _, h in told), strict=True))) if told else heard
                        outcomes.append(
                            (knows or any(t for t, _ in told), (*most[:c], max(k, most[c]), *most[c + 1 :]))
                        )
                todo += [(after, (*sms[:s], o, *sms[s + 1 :]), sent) for o in outcomes]
        return True

    def has_deadlock(self) -> bool:
        for position in range(self.kernel.max_seq - self.kernel.tokens + 1):
            self.position = position
            if any(not movable and pcs != self.end for pcs, movable in self.states().items()):
                return True
        return False

    def history(self, position: int) -> set:
        """State elements that are written before a step at `position`, however the earlier steps advanced."""

        def paths(now: int) -> Iterator[list[int]]:
            if now == 0:
                yield []
            for back in range(1, self.kernel.tokens + 1):
                if now - back >= 0:
                    for path in paths(now - back):
                        yield [*path, now - back]

        result: set | None = None
        for path in paths(position):
            written: set = set()
            for self.position in path:
                written |= {e for run in self.runs.values() for w in self.writes(run) for e in w if e[0] == "s"}
            result = written if result is None else result & written
        return result or set()

    def problem(self) -> str | None:
        """Why the kernel is unsafe, or None."""
        consumed = [
            [(e[1], e[2]) for e in q if e[0] == "run" and self.kernel.families[e[1]].streams] for q in self.queues
        ]
        if consumed != self.kernel.fetches:
            return "stream"
        if self.has_deadlock():
            return "deadlock"
        for position in range(self.kernel.max_seq - self.kernel.tokens + 1):
            history = self.history(position)
            self.position = position
            if problem := self.problem_at(history, self.states()):
                return f"{problem} at {position}"
        return None

    def problem_at(self, history: set, states: dict[tuple[int, ...], list[int]]) -> str | None:
        writes = [(at, e) for at, run in self.runs.items() for w in self.writes(run) for e in w]
        reads = [(at, e) for at, run in self.runs.items() for e in {e for r in self.reads(run) for e in r}]
        single = [e for _, e in writes if e[0] != "s"]
        if len(single) != len(set(single)):
            return "written twice"
        if not {("o", (n,)) for n in range(SHAPES["o"][0])} <= set(single):
            return "output"
        state_writes = [(at, e) for at, e in writes if e[0] == "s"]
        for (a, e), (b, f) in itertools.combinations(state_writes, 2):
            if e == f and (a == b or not (self.always_visible(a, b, states) or self.always_visible(b, a, states))):
                return "write race"
        for b, e in reads:
            covered = e in history
            for a, f in writes:
                if e != f:
                    continue
                if e[0] == "t" or (a != b and self.always_visible(a, b, states)):
                    covered = True
                elif e[0] != "s" or (a != b and not self.always_before(b, a, states)):
                    return "race"
            if not covered:
                return "coverage"
        for b, run in self.runs.items():
            for e in {e for tile in self.reads(run, streamed=True) for e in tile}:
                # the load may be the first event of all, so no write of this step is sure to come before it
                if any(f == e and not self.always_loaded(b, a, states) for a, f in writes):
                    return "race"
                if e not in history:
                    return "coverage"
        return None
