"""The exact search for an execution in which one event does not see another, though it always comes after it.

That happens only where tagged words order the two, and then tags decide more: they keep an SM from signalling so early that
its signal is observed in place of another. The blocked run of `races` disregards them; this search does not.

Call a signal or an SM *clean* if nothing that it knows, or may come to observe because of how many signals of a counter it
has heard of, tells of the write. Some events never do harm by being executed as early as possible (docs/semantics.md):

- all but signals: what a wait observes at least is fixed as soon as it is enabled;
- a signal of a clean SM to a counter whose signals were clean so far: in whatever execution it comes later, moving it to
  the front leaves all beginnings of clean signals as long as they were;
- a signal to a counter of which some signal knows of the write already: whoever would observe the new one observes that.

So the search executes these at once and branches only on the others, of which there are few: mostly the first signal to
each counter by an SM that knows of the write.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .execution import ItemKind, Items

SEARCH_LIMIT = 5_000_000
"""Items that the searches for one schedule may execute or copy; beyond, it is rejected as undecided."""


class SearchLimitError(Exception):
    """The search would take too long."""


_Heard = dict[int, int]
"""By counter: the number of signals, where some of these are not clean."""


@dataclass
class _State:
    """at: the next item of each SM. knows: of the write. order: the items since `parent`.

    heard: of each SM. unclean: by counter, the number of its first signal that is not clean. told: by such a counter,
    what its first signals up to that one, and to each later one, tell together.
    """

    at: list[int]
    counters: list[int]
    missing: list[int]
    knows: list[bool]
    heard: list[_Heard]
    unclean: dict[int, int] = field(default_factory=dict[int, int])
    told: dict[int, list[tuple[bool, _Heard]]] = field(default_factory=dict[int, list[tuple[bool, _Heard]]])
    order: list[int] = field(default_factory=list[int])
    parent: _State | None = None

    def after(self) -> _State:
        """A state to go on from this one."""
        return _State(
            self.at.copy(),
            self.counters.copy(),
            self.missing.copy(),
            self.knows.copy(),
            [h.copy() for h in self.heard],
            self.unclean.copy(),
            {c: told.copy() for c, told in self.told.items()},
            parent=self,
        )

    def path(self) -> list[int]:
        """All items so far."""
        segments: list[list[int]] = []
        state: _State | None = self
        while state is not None:
            segments.append(state.order)
            state = state.parent
        return [i for segment in reversed(segments) for i in segment]

    def key(self) -> tuple[object, ...]:
        """Equal for states that cannot differ in what follows."""
        return (
            tuple(self.at),
            tuple(self.knows),
            tuple(tuple(sorted(h.items())) for h in self.heard),
            tuple(
                (c, self.unclean[c], tuple((k, tuple(sorted(h.items()))) for k, h in told))
                for c, told in sorted(self.told.items())
            ),
        )


class UnseenSearch:
    """Searches in one schedule, which together may execute `limit` items."""

    def __init__(self, items: Items, limit: int = SEARCH_LIMIT):
        self.items = items
        self.left = limit

    def find(self, write: int, other: int) -> list[int] | None:
        """An execution up to the event `other`, in which its SM does not see `write` by then; None if there is none.

        A list of events. The two are tasks on different SMs of a schedule without deadlock. SearchLimitError if it is
        not decided within the limit.
        """
        items = self.items
        write_sm, other_sm = items.timeline.sm[[write, other]].tolist()
        search = _Search(
            items, write_sm, _item_after(items, write_sm, write), other_sm, _item_after(items, other_sm, other)
        )
        start = _State(
            items.bounds[:-1],
            [0] * len(items.timeline.schedule.counters),
            list(items.missing),
            [False] * items.timeline.num_sms,
            [{} for _ in range(items.timeline.num_sms)],
        )
        size = len(start.at) + len(start.counters) + len(start.missing)
        # states, and the SM that signals next: children are made when their turn comes
        todo: list[tuple[_State, int]] = [(start, -1)]
        seen: set[tuple[object, ...]] = set()
        while todo:
            state, sm = todo.pop()
            if sm >= 0:
                state = state.after()
                search.signal(state, sm)
            if search.execute(state):
                return _events(items, state.path(), other)
            self.left -= len(state.order) + size
            if self.left < 0:
                raise SearchLimitError
            if state.knows[search.other_sm] or (key := state.key()) in seen:
                continue
            seen.add(key)
            for s, at in enumerate(state.at):
                if at < items.bounds[s + 1] and items.kind[at] == ItemKind.SIGNAL:
                    todo.append((state, s))
        return None


@dataclass(frozen=True)
class _Search:
    """One question. written, goal: the items before which the write and the other event were executed."""

    items: Items
    write_sm: int
    written: int
    other_sm: int
    goal: int

    def execute(self, state: _State) -> bool:
        """Executes what does no harm; whether that reaches `other`, unseen. Stops if its SM gets to know of the write."""
        items = self.items
        kinds, refs, args, bounds = items.kind, items.ref, items.arg, items.bounds
        waiting: dict[tuple[int, int], list[int]] = {}
        needing: dict[int, list[int]] = {}
        ready = list(range(len(state.at)))
        while ready:
            sm = ready.pop()
            while (i := state.at[sm]) < bounds[sm + 1]:
                if sm == self.other_sm and (i >= self.goal or state.knows[sm]):
                    break
                kind, ref = kinds[i], refs[i]
                if sm == self.write_sm and i >= self.written:
                    state.knows[sm] = True
                if kind == ItemKind.SIGNAL:
                    if not self._is_harmless(state, sm, ref):
                        break
                    self.signal(state, sm)
                    ready += waiting.pop((ref, state.counters[ref]), ())
                    continue
                if kind == ItemKind.WAIT:
                    if state.counters[ref] < args[i]:
                        waiting.setdefault((ref, args[i]), []).append(sm)
                        break
                    self._observe(state, sm, ref, args[i])
                elif kind == ItemKind.NEED:
                    if state.missing[ref]:
                        needing.setdefault(ref, []).append(sm)
                        break
                else:
                    state.missing[ref] -= 1
                    if not state.missing[ref]:
                        ready += needing.pop(ref, ())
                state.at[sm] += 1
                state.order.append(i)
        return state.at[self.other_sm] >= self.goal and not state.knows[self.other_sm]

    def _is_harmless(self, state: _State, sm: int, counter: int) -> bool:
        if counter in state.unclean:
            return state.told[counter][-1][0]
        return not state.knows[sm] and not state.heard[sm]

    def signal(self, state: _State, sm: int) -> None:
        """The signal at which an SM stands completes."""
        i = state.at[sm]
        counter = self.items.ref[i]
        state.counters[counter] = number = state.counters[counter] + 1
        if state.knows[sm] or state.heard[sm]:
            state.unclean.setdefault(counter, number)
        if counter in state.unclean:
            state.heard[sm][counter] = number
            told = state.told.setdefault(counter, [])
            knows, heard = told[-1] if told else (False, {})
            told.append((knows or state.knows[sm], _union(heard, state.heard[sm])))
        state.at[sm] += 1
        state.order.append(i)

    def _observe(self, state: _State, sm: int, counter: int, threshold: int) -> None:
        """A wait observes as few signals as it may."""
        number = max(threshold, state.heard[sm].get(counter, 0))
        if counter in state.unclean and number >= state.unclean[counter]:
            knows, heard = state.told[counter][number - state.unclean[counter]]
            state.knows[sm] |= knows
            state.heard[sm] = _union(state.heard[sm], heard)
            state.heard[sm][counter] = max(number, state.heard[sm].get(counter, 0))


def _union(a: _Heard, b: _Heard) -> _Heard:
    result = a.copy()
    for counter, number in b.items():
        result[counter] = max(number, result.get(counter, 0))
    return result


def _item_after(items: Items, sm: int, event: int) -> int:
    """The first item of an SM that comes after a task was executed."""
    at = items.bounds[sm]
    while at < items.bounds[sm + 1] and (items.event[at], items.kind[at]) <= (event, ItemKind.NEED):
        at += 1
    return at


def _events(items: Items, order: list[int], last: int) -> list[int]:
    """The events of an execution of items: tasks without items as late as can be; the event `last` ends it."""
    at: list[int] = items.timeline.schedule.body.bounds[:-1].tolist()
    sms = items.timeline.sm
    events: list[int] = []
    for i in order:
        event, sm = items.event[i], int(sms[items.event[i]])
        # what comes before the item, and it itself unless it is only the condition of a task
        end = event + (items.kind[i] != ItemKind.NEED)
        events += range(at[sm], end)
        at[sm] = max(at[sm], end)
    return [*events, *range(at[int(sms[last])], last + 1)]
