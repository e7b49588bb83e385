"""All complete executions of a schedule as one formula for z3: when each event completes, and what each wait observes.

Written from docs/semantics.md, for schedules with too many interleavings to enumerate. Each event has a completion time.
Each wait observes the signals of its counter that completed before some moment: at the latest that of the wait, and late
enough for as many signals as it waits for, and for those that its SM has heard of. The ring loads the tiles of a task at
some moment before the task, and nothing else is known of it. So every model of the formula is an execution, and the other
way round; a moment before the wait is the old value that the semantics allows to be read.

`sees` asks with two assumptions: a is known to itself, b does not know of a. Knowledge is passed on by clauses in one
direction only (along a queue, and from an observed signal to its wait), so a model that can leave b without it exists
if and only if there is no path from a to b.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import z3

from .small_kernels import Event

At = tuple[int, int]
"""An event: (SM, place in its queue)."""


class Executions:
    """The executions of `queues` that complete every event.

    thresholds: of each wait, how many signals it waits for. tags: (writer, reader) pairs, the reader waits for the
    writer. loaded: the tasks whose tiles the ring loads. Every partial execution is the beginning of a complete one if there is one (confluence), so looking at
    complete ones is enough.
    """

    def __init__(
        self,
        queues: Sequence[Sequence[Event]],
        thresholds: dict[At, int],
        tags: Collection[tuple[At, At]],
        loaded: Collection[At] = (),
    ):
        self.queues = queues
        self._answers: dict[tuple[str, At, At], bool] = {}
        self._lines: list[str] = []
        places = [(sm, n) for sm, queue in enumerate(queues) for n in range(len(queue))]
        for at in places:
            self._declare(_time(at), "Int")
            self._declare(_knows(at), "Bool")
        for sm, n in places:
            if n:
                self._assert(f"(< {_time((sm, n - 1))} {_time((sm, n))})")
                self._assert(f"(=> {_knows((sm, n - 1))} {_knows((sm, n))})")
        for writer, reader in tags:
            self._assert(f"(< {_time(writer)} {_time(reader)})")
        for task in loaded:
            self._declare(_load(task), "Int")
            self._assert(f"(< {_load(task)} {_time(task)})")
        choice = self._observe(thresholds, tags)
        self.solver = z3.SimpleSolver()
        self.solver.add(z3.parse_smt2_string("\n".join(self._lines)))
        # What was heard of only matters for what is seen, and makes up most of the formula: added when it is needed.
        self._lines = [line for line in self._lines if line.startswith("(declare-const")]
        self._hear(choice)
        self._heard: str | None = "\n".join(self._lines)

    def possible(self) -> bool:
        """Whether there is a complete execution."""
        return self._sat()

    def allows(self, order: Sequence[At]) -> bool:
        """Whether this is a complete execution. (z3 remembers it, and finds others faster.)"""
        self.solver.push()
        self.solver.add(*(z3.Int(_time(at)) == n for n, at in enumerate(order)))
        answer = self._sat()
        self.solver.pop()
        return answer and len(order) == sum(map(len, self.queues))

    def comes_before(self, a: At, b: At) -> bool:
        """In every execution, a completes before b."""
        if a[0] == b[0]:
            return a < b
        if ("before", a, b) not in self._answers:
            reverse = z3.Bool(f"reverse_{_time(a)}_{_time(b)}")
            self.solver.add(z3.Implies(reverse, z3.Int(_time(b)) < z3.Int(_time(a))))
            self._answers["before", a, b] = not self._sat(reverse)
        return self._answers["before", a, b]

    def is_loaded_before(self, task: At, b: At) -> bool:
        """In every execution, the ring has loaded the tiles of a task when b completes."""
        if ("loaded", task, b) not in self._answers:
            late = z3.Bool(f"late_{_time(task)}_{_time(b)}")
            self.solver.add(z3.Implies(late, z3.Int(_time(b)) < z3.Int(_load(task))))
            self._answers["loaded", task, b] = not self._sat(late)
        return self._answers["loaded", task, b]

    def sees(self, a: At, b: At) -> bool:
        """In every execution, b sees a."""
        if a[0] == b[0]:
            return a < b
        if ("sees", a, b) not in self._answers:
            unseen = (z3.Bool(_knows(a)), z3.Not(z3.Bool(_knows(b))))
            if self._heard is not None and self._sat(*unseen):
                self.solver.add(z3.parse_smt2_string(self._heard))
                self._heard = None
            self._answers["sees", a, b] = self._heard is not None or not self._sat(*unseen)
        return self._answers["sees", a, b]

    def _sat(self, *assumptions: z3.BoolRef) -> bool:
        answer = self.solver.check(*assumptions)
        if answer == z3.unknown:
            raise RuntimeError(f"z3 gives up: {self.solver.reason_unknown()}")
        return answer == z3.sat

    def _declare(self, name: str, sort: str) -> None:
        self._lines.append(f"(declare-const {name} {sort})")

    def _assert(self, formula: str) -> None:
        self._lines.append(f"(assert {formula})")

    def _observe(self, thresholds: dict[At, int], tags: Collection[tuple[At, At]]) -> dict[At, dict[At, str]]:
        """[wait][signal]: the formula that the wait observes it; "true" if it cannot be otherwise."""
        choice: dict[At, dict[At, str]] = {}
        for wait, sources in self._sources(thresholds, tags).items():
            others = [s for s in sources if s[0] != wait[0]]
            needed = thresholds[wait] - (len(sources) - len(others))
            choice[wait] = dict.fromkeys(sources, "true")
            if needed > len(others):
                self._assert("false")
            elif needed < len(others):
                choice[wait] |= {s: f"o{_name(wait)}_{_name(s)}" for s in others}
                # the first k signals are those before some moment, at the latest that of the wait
                moment = f"m{_name(wait)}"
                self._declare(moment, "Int")
                self._assert(f"(<= {moment} {_time(wait)})")
                for s in others:
                    self._declare(choice[wait][s], "Bool")
                    self._assert(f"(= {choice[wait][s]} (< {_time(s)} {moment}))")
                for s in set(sources) - set(others):
                    self._assert(f"(< {_time(s)} {moment})")
                if needed > 0:
                    self._assert(f"((_ at-least {needed}) {' '.join(choice[wait][s] for s in others)})")
        for wait, sources in choice.items():
            for s, observed in sources.items():
                if s[0] != wait[0]:
                    self._assert(f"(=> {observed} (< {_time(s)} {_time(wait)}))")
                    self._assert(f"(=> (and {observed} {_knows(s)}) {_knows(wait)})")
        return choice

    def _sources(self, thresholds: dict[At, int], tags: Collection[tuple[At, At]]) -> dict[At, list[At]]:
        """The signals that each wait may observe: those of its counter without those that have to come after it.

        Leaving these out changes no execution, but the formula is many times smaller. A signal has to come after a wait
        that a chain of queues, tags and waits leads from to it, where each wait needs all its sources.
        """
        sources = {
            wait: [
                (sm, n)
                for sm, queue in enumerate(self.queues)
                for n, event in enumerate(queue)
                if event == ("signal", self.queues[wait[0]][wait[1]][1])
            ]
            for wait in thresholds
        }
        while True:
            follows: dict[At, list[At]] = {}
            for sm, queue in enumerate(self.queues):
                for n in range(1, len(queue)):
                    follows.setdefault((sm, n - 1), []).append((sm, n))
            for first, then in tags:
                follows.setdefault(first, []).append(then)
            for wait, mine in sources.items():
                if len(mine) <= thresholds[wait]:
                    for s in mine:
                        follows.setdefault(s, []).append(wait)
            left = {}
            for wait, mine in sources.items():
                later = _reached(wait, follows)
                left[wait] = [s for s in mine if s not in later]
            if left == sources:
                return sources
            sources = left

    def _hear(self, choice: dict[At, dict[At, str]]) -> None:
        """A wait observes the signals of its counter that its SM has heard of, by whatever way.

        heard(w, s): after the wait w, its SM has heard of the signal s of another SM. Only those that matter are made,
        backwards from the waits that have a choice.
        """
        last_wait: dict[At, At | None] = {}
        for sm, queue in enumerate(self.queues):
            last = None
            for n, event in enumerate(queue):
                last_wait[sm, n] = last
                if event[0] == "wait":
                    last = (sm, n)
        made: set[tuple[At, At]] = set()
        todo: list[tuple[At, At]] = []

        def heard(at: At, s: At) -> str:
            """Whether the SM of `at` has heard of s when it comes to `at`, or by being s."""
            if at[0] == s[0]:
                return "true" if s <= at else "false"
            if (wait := last_wait[at]) is None:
                return "false"
            if (wait, s) not in made:
                made.add((wait, s))
                todo.append((wait, s))
                self._declare(f"h{_name(wait)}_{_name(s)}", "Bool")
            return f"h{_name(wait)}_{_name(s)}"

        for wait, sources in choice.items():
            for s, observed in sources.items():
                if observed != "true" and (condition := heard(wait, s)) != "false":
                    self._assert(f"(=> {condition} {observed})")
        while todo:
            wait, s = todo.pop()
            result = f"h{_name(wait)}_{_name(s)}"
            if (condition := heard(wait, s)) != "false":
                self._assert(f"(=> {condition} {result})")
            for source, observed in choice[wait].items():
                if source[0] != wait[0] and (condition := heard(source, s)) != "false":
                    self._assert(f"(=> (and {observed} {condition}) {result})")


def _reached(start: At, follows: dict[At, list[At]]) -> set[At]:
    found, todo = set(), [start]
    while todo:
        for then in follows.get(todo.pop(), ()):
            if then not in found:
                found.add(then)
                todo.append(then)
    return found


def _name(at: At) -> str:
    return f"{at[0]}_{at[1]}"


def _time(at: At) -> str:
    return f"t{_name(at)}"


def _load(at: At) -> str:
    return f"l{_name(at)}"


def _knows(at: At) -> str:
    return f"k{_name(at)}"
