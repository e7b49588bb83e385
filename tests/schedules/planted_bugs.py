"""Bugs to plant in the verifier, one at a time: tests that do not notice one of them are too weak.

A bug is one changed place in the source. `planted` loads the package from the changed text under a name of its own,
beside the real verifier and on top of the same dialects.
"""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

import amk.passes.verifier as real

FOLDER = Path(real.__path__[0])
PACKAGE = "amk.passes.planted_verifier"


@dataclass(frozen=True)
class Bug:
    """`old`, which stands exactly once in passes/verifier/FILE.py, becomes `new`."""

    what: str
    file: str
    old: str
    new: str

    def apply(self, file: str, source: str) -> str:
        """The text of one of the files; AssertionError if the place to change is not there any more, or not clear."""
        if file != self.file:
            return source
        assert source.count(self.old) == 1, f"`{self.old}` stands {source.count(self.old)} times in {file}.py"
        return source.replace(self.old, self.new)


class _Planter(MetaPathFinder, Loader):
    """Imports PACKAGE from the files of the verifier, one of them changed."""

    def __init__(self, bug: Bug | None):
        self.bug = bug

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PACKAGE and not fullname.startswith(f"{PACKAGE}."):
            return None
        return spec_from_loader(fullname, self, is_package=fullname == PACKAGE)

    def exec_module(self, module: ModuleType) -> None:
        file = module.__name__.removeprefix(PACKAGE).removeprefix(".") or "__init__"
        path = FOLDER / f"{file}.py"
        source = path.read_text(encoding="utf-8")
        if self.bug is not None:
            source = self.bug.apply(file, source)
        exec(compile(source, str(path), "exec"), module.__dict__)


@contextmanager
def planted(bug: Bug | None) -> Iterator[ModuleType]:
    """The verifier with a bug in it, for as long as the context lasts; without one, a copy of the real one."""
    planter = _Planter(bug)
    sys.meta_path.insert(0, planter)
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        sys.meta_path.remove(planter)
        for name in [n for n in sys.modules if n == PACKAGE or n.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]
        vars(sys.modules["amk.passes"]).pop("planted_verifier", None)


BUGS = [
    # deadlock
    Bug(
        "a wait goes on only beyond its threshold",
        "execution",
        "if counters[ref] < args[i]:",
        "if counters[ref] <= args[i]:",
    ),
    Bug(
        "a wait goes on one signal early", "execution", "if counters[ref] < args[i]:", "if counters[ref] < args[i] - 1:"
    ),
    Bug(
        "every wait is for one signal",
        "execution",
        "ref = np.concatenate([body.ref[sync], tagged.need[0], tagged.done[0]])\n    arg = np.concatenate([body.arg[sync],",
        "ref = np.concatenate([body.ref[sync], tagged.need[0], tagged.done[0]])\n    arg = np.concatenate([np.minimum(body.arg[sync], 1),",
    ),
    Bug(
        "thresholds above the number of signals are met",
        "execution",
        "arg = np.concatenate([body.arg[sync],",
        "arg = np.concatenate([np.minimum(body.arg[sync], timeline.schedule.signals[body.ref[sync]]),",
    ),
    Bug(
        "words that nobody writes hold nobody up",
        "execution",
        "missing[list(tagged.impossible)] += 1",
        "missing[list(tagged.impossible)] += 0",
    ),
    Bug(
        "a tagged read goes on after the first of several writers",
        "execution",
        "missing = np.bincount(tagged.done[0], minlength=tagged.count)",
        "missing = np.minimum(np.bincount(tagged.done[0], minlength=tagged.count), 1)",
    ),
    Bug(
        "a task that writes tagged words tells of them before it has read its own",
        "execution",
        "order = np.lexsort((kind, event))\n    missing",
        "order = np.lexsort((-kind, event))\n    missing",
    ),
    Bug(
        "tags that move with the position are followed at one position only",
        "check",
        "for world in worlds(accesses, positions):",
        "for world in worlds(accesses, positions)[:1]:",
    ),
    # the order of events
    Bug(
        "what a tagged word tells is all that its writer did",
        "clocks",
        "rows[used, 0] = mine[0]\n                    maximum(mine[1], heard, out=rows[used, 1])",
        "maximum(mine, heard, out=rows[used])",
    ),
    Bug(
        "blocked runs for `sees` wait for tagged words",
        "races",
        "ignore_tags=relation is Relation.VISIBLE",
        "ignore_tags=False",
    ),
    Bug(
        "a signal tells of its own SM only",
        "clocks",
        "maximum(counted[low], mine, out=counted[low])",
        "counted[low][:, sm] = mine[:, sm]",
    ),
    Bug(
        "a wait for a part of the signals hears of all that may come first",
        "clocks",
        "exact = possible.sum(axis=0) == thresholds",
        "exact = possible.sum(axis=0) >= thresholds",
    ),
    Bug(
        "events of one SM are ordered whichever comes first",
        "clocks",
        "np.where(sm_first == sm_then, first < then, known)",
        "np.where(sm_first == sm_then, True, known)",
    ),
    Bug(
        "an event knows of the one that comes right after what it knows",
        "clocks",
        "known = plane[self.row_of_event[then], sm_first] > first",
        "known = plane[self.row_of_event[then], sm_first] >= first",
    ),
    Bug(
        "the last write that clocks leave open is not tried",
        "races",
        "for event in distinct(write[left]).tolist():",
        "for event in distinct(write[left]).tolist()[:-1]:",
    ),
    Bug(
        "a blocked run goes on through the event that is blocked",
        "execution",
        "stop[halted] = _first_item(items, halted, never)",
        "stop[halted] = _first_item(items, halted, never + 1)",
    ),
    Bug(
        "the search for an unseen write takes every signal for harmless",
        "unseen",
        "return not state.knows[sm] and not state.heard[sm]",
        "return True",
    ),
    Bug("the search for an unseen write is not held up by tags", "unseen", "if state.missing[ref]:", "if False:"),
    Bug(
        "the search for an unseen write forgets what an SM has heard of",
        "unseen",
        "number = max(threshold, state.heard[sm].get(counter, 0))",
        "number = threshold",
    ),
    Bug(
        "the search for an unseen write lets a signal tell of its own SM only",
        "unseen",
        "told.append((knows or state.knows[sm], _union(heard, state.heard[sm])))",
        "told.append((state.knows[sm], state.heard[sm]))",
    ),
    # which pairs are looked at
    Bug(
        "two writes of state are not compared",
        "races",
        "writes.take(order.settle(writes.write, writes.other, Relation.VISIBLE)[2])",
        "writes.take(slice(0, 0))",
    ),
    Bug(
        "two writes of state may be ordered by tags",
        "races",
        "order.settle(writes.write, writes.other, Relation.VISIBLE)",
        "order.settle(writes.write, writes.other, Relation.ORDERED)",
    ),
    Bug(
        "a read of state may not come before a write",
        "races",
        "order.settle(pairs.write, pairs.other, Relation.ORDERED)\n    race &=",
        "order.settle(pairs.write, pairs.other, None)\n    race &=",
    ),
    Bug(
        "a read of scratch may come before the write",
        "races",
        "order.settle(pairs.write, pairs.other, None)",
        "order.settle(pairs.write, pairs.other, Relation.ORDERED)",
    ),
    Bug(
        "only the first read of a region on an SM counts, also where it comes before the write",
        "races",
        "return\n    pairs = _with_writers(overlap, region, event)",
        "return\n    pairs = firsts",
    ),
    Bug(
        "readers wait for the first write on each SM",
        "races",
        "writers = last_per_sm(",
        "writers = first_per_sm(",
    ),
    Bug(
        "a read that comes before a write is covered by it",
        "races",
        "yield from check_read_before_written(order.timeline, pairs.overlap, part)",
        "yield from check_read_before_written(order.timeline, pairs.overlap)",
    ),
    # regions
    Bug(
        "a tile ends one element early",
        "regions",
        "stop = start + _evaluate(dim.size, values, position)",
        "stop = start + _evaluate(dim.size, values, position) - 1",
    ),
    Bug(
        "a tile ends one element late",
        "regions",
        "high[:, axis] = np.maximum(start, stop)",
        "high[:, axis] = np.maximum(start, stop) + 1",
    ),
    Bug("limits cut nothing off", "regions", "stop = np.minimum(stop, dim.limit)", "pass"),
    Bug(
        "tasks are numbered as if domains had one index",
        "regions",
        "stride *= extent\n        return region",
        "stride *= 1\n        return region",
    ),
    Bug(
        "the last position is not looked at",
        "regions",
        "(crossings >= 0) & (crossings <= max_pos)",
        "(crossings >= 0) & (crossings < max_pos)",
    ),
    Bug(
        "only the first position is looked at",
        "regions",
        "found = {0, min(1, max_pos)}",
        "return [0]\n        found = {0}",
    ),
    Bug(
        "the first dimension of a buffer does not count",
        "arrangement",
        "for axis in reversed(range(len(shape))):",
        "for axis in reversed(range(1, len(shape))):",
    ),
    Bug(
        "boxes of tagged words are equal if they begin alike",
        "execution",
        "np.concatenate([boxes.low, boxes.high], axis=1), axis=0",
        "boxes.low, axis=0",
    ),
    # coverage
    Bug(
        "earlier steps wrote one row more",
        "coverage",
        "+ max(position * (size >= tokens) + size - tokens, size)",
        "+ max(position * (size >= tokens) + size - tokens + 1, size)",
    ),
    Bug("earlier steps wrote no rows", "coverage", "and position > 0:", "and position > 10**9:"),
    Bug("elements may be written twice", "coverage", "if len(found.first):", "if len(found.first) > 10**9:"),
    Bug(
        "the last hole of an output is not seen",
        "coverage",
        "holes = np.flatnonzero(np.bincount(cell, minlength=part.cells) == 0)",
        "holes = np.flatnonzero(np.bincount(cell, minlength=part.cells) == 0)[:-1]",
    ),
    Bug(
        "one element of a read has to be written",
        "coverage",
        "bad = ~written[read_cell]",
        "bad = ~written[read_cell] & ~np.isin(read, read[written[read_cell]])",
    ),
    # streams of state
    Bug(
        "a tile of state is read when its task runs",
        "races",
        "streamed = accesses.reads.streamed[region]",
        "streamed = accesses.reads.streamed[region] & False",
    ),
    Bug(
        "a tile of state is in the ring after every write that its task sees",
        "races",
        "late = order.always_first(pairs.other, pairs.write)",
        "late = order.always_first(pairs.other, pairs.write) | order.always_first(pairs.write, pairs.other)",
    ),
    Bug(
        "a task may not replace the state that it streams",
        "races",
        "result = (first == then) | self.clocks",
        "result = self.clocks",
    ),
    Bug(
        "blocked runs do not tell that a task which streams comes before a write",
        "races",
        "result[mine] = then[mine] >= self._reached(event, Relation.ORDERED)[sm[then[mine]]]",
        "result[mine] = False",
    ),
    Bug(
        "tagged words do not tell that a task which streams comes before a write",
        "races",
        "result[mine] = then[mine] >= self._reached(event, Relation.ORDERED)[sm[then[mine]]]",
        "result[mine] = then[mine] >= self._reached(event, Relation.VISIBLE)[sm[then[mine]]]",
    ),
    Bug(
        "what a task streams may be written in this step, after it",
        "races",
        "(distinct(region), np.zeros(0, np.int64), None))",
        "(distinct(region), np.arange(len(overlap.accesses.writes)), None))",
    ),
    Bug(
        "one tile of a streamed region tells of all",
        "coverage",
        "mine = np.isin(read, before[0])",
        "mine = np.isin(read, before[0][:1])",
    ),
    # tasks, stream, resources
    Bug("one task may be missing", "timeline", "if len(ran) < size:", "if len(ran) < size - 1:"),
    Bug("a task may run twice", "timeline", "if len(ran) < len(tasks):", "if len(ran) < len(tasks) - 1:"),
    Bug(
        "fetches are compared by family",
        "timeline",
        "np.array_equal(\n        (body.ref[consumed], body.arg[consumed]), (stream.ref, stream.arg)\n    )",
        "np.array_equal(body.ref[consumed], stream.ref)",
    ),
    Bug(
        "the last fetch is not compared",
        "timeline",
        "(body.ref[consumed], body.arg[consumed]), (stream.ref, stream.arg)",
        "(body.ref[consumed][:-1], body.arg[consumed][:-1]), (stream.ref[:-1], stream.arg[:-1])",
    ),
    Bug(
        "one block more than is resident may wait",
        "resources",
        "kernel.num_sms > limit:",
        "kernel.num_sms > limit + 1:",
    ),
    Bug("activations take no shared memory", "resources", "if ring + widest > target", "if ring > target"),
]
"""`what` says what the verifier believes then."""
