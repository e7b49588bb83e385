"""Small kernels as data of two Promela models, step.pml and history.pml, which Spin searches exhaustively.

Shares no code with the verifier or with the other oracles; what the models mean is docs/semantics.md.
"""

import itertools
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .small_kernels import Kernel

MAX_SET = 31  # members of a set that is a Promela int
MEGABYTES = 64  # of one search; about 150,000 states
MEGABYTES_LEAST = 400  # of one search in which waits observe the least
SECONDS = 100  # of one search
RULES = {
    "invalid end state": "deadlock",
    "assertion violated runs_once": "tasks",
    "assertion violated every_task_runs": "tasks",
    "assertion violated tile_is_its_own": "stream",
    "assertion violated tiles_are_used": "stream",
    "assertion violated writes_once": "written-once",
    "assertion violated reads_what_is_written": "coverage",
    "assertion violated outputs_are_written": "coverage",
}

Element = tuple[str, tuple[int, ...]]  # buffer, index
Tasks = frozenset[int]


class UndecidedError(Exception):
    """A kernel is too large for the models, or a search did not end within its time and memory."""


@dataclass(frozen=True)
class Verdict:
    """The rules that some execution at some position breaks (none: safe), and how many states Spin visited.

    rewritten_words: whether a tagged word is written twice, and so does not say when its readers may go on. least: in
    searches in which waits observe the least that they may.
    """

    broken: frozenset[str]
    states: int
    searches: int
    rewritten_words: bool
    least: bool

    def disagreement(self, rejected: set[str]) -> str | None:
        """How it differs from the verifier's, which has rejected the kernel by these rules, or None.

        After missing or doubled tasks and words that are written twice the verifier looks for no deadlock. A deadlock
        keeps Spin from the rest of the execution, which the verifier judges where it can. Races with elements that
        are written twice are counted differently. Of missing order, either may say "coverage", "race", or both.
        """
        if not rejected and self.broken:
            return "false accept"
        if rejected and not self.broken:
            return "false reject"
        if self.rewritten_words and "tasks" not in rejected:
            return None if "written-once" in rejected else "written-once"
        for rule in ("tasks", "deadlock", "stream", "written-once"):
            if (rule in self.broken) != (rule in rejected):
                return rule
            if rule in self.broken and rule != "stream":
                return None
        if self.broken.isdisjoint({"coverage", "race"}) != rejected.isdisjoint({"coverage", "race"}):
            return "race"
        return None


@dataclass(frozen=True)
class Region:
    """Elements of which the same is to be said at one position: the buffer's kind and the tasks that access them."""

    kind: str
    kept: bool  # certainly written by earlier steps
    readers: Tasks
    streamers: Tasks  # for which the ring reads them
    writers: Tasks
    repeaters: Tasks  # that write them more than once

    @property
    def tagged(self) -> bool:
        return self.kind.endswith("tagged")


@dataclass(frozen=True)
class Search:
    """What a finished search said: the broken rules, sets by task or by position, and how many states it visited."""

    broken: set[str]
    facts: dict[int, dict[str, int]]
    states: int

    @staticmethod
    def read(status: int, said: str) -> "Search":
        """Raises UndecidedError for a search that was cut off, and AssertionError for an answer that is no answer."""
        if "-DMEMLIM" in said or "out of memory" in said:
            raise UndecidedError("too many states")
        visited = re.search(r"^\s*(\d+) states, stored$", said, re.MULTILINE)
        errors = re.search(r"errors: (\d+)$", said, re.MULTILINE)
        assert status == 0 and visited and errors, said
        assert "not completed" not in said and "too small" not in said, said
        broken = {RULES[text] for text in re.findall(r"^pan:\d+: (.*) \(at depth \d+\)$", said, re.MULTILINE)}
        assert (int(errors[1]) > 0) == bool(broken), said
        facts = {
            int(number): {name: int(members) for name, members in re.findall(r"(\w+) (-?\d+)", sets)}
            for number, sets in re.findall(r"^(?:task|position) (\d+) (.*)$", said, re.MULTILINE)
        }
        assert facts, said
        return Search(broken, facts, int(visited[1]))


def spin_version() -> str | None:
    """What `spin -V` says, or None if there is no Spin or no C compiler for its searches."""
    if not shutil.which("spin") or not shutil.which("gcc"):
        return None
    return subprocess.run(["spin", "-V"], capture_output=True, text=True, check=True).stdout.strip()


class Spin:
    """Decides kernels; keeps the compiled models in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._compiled: dict[tuple[str, ...], Path] = {}

    def decide(self, kernel: Kernel) -> Verdict:
        """Lets waits observe all that they may, or the least if that has too many states. Raises UndecidedError."""
        try:
            return self.verdict(kernel)
        except UndecidedError:
            return self.verdict(kernel, least=True)

    def verdict(self, kernel: Kernel, least: bool = False) -> Verdict:
        """Searches all executions at every position. Raises UndecidedError."""
        tasks = [(f, i) for f, family in enumerate(kernel.families) for i in range(family.extent)]
        broken: set[str] = set()
        rewritten_words = False
        searches: dict[str, Search] = {}  # most kernels do the same at several positions
        kept, states = self._kept(kernel, tasks)
        for position, history in enumerate(kept):
            regions = find_regions(kernel, tasks, position, history)
            table = step_table(kernel, tasks, regions)
            if table not in searches:
                searches[table] = self._search("step.pml", step_sizes(kernel), table, least)
            search = searches[table]
            broken |= search.broken
            rewritten_words |= any(r.tagged and (len(r.writers) > 1 or r.repeaters) for r in regions)
            if "deadlock" not in search.broken and races(regions, search):
                broken.add("race")
        states += sum(search.states for search in searches.values())
        return Verdict(frozenset(broken), states, len(searches), rewritten_words, least)

    def _kept(self, kernel: Kernel, tasks: Sequence[tuple[int, int]]) -> tuple[list[frozenset[Element]], int]:
        """By position: the state elements that earlier steps have written for certain; and the states visited."""
        positions = range(kernel.max_seq - kernel.tokens + 1)
        when: dict[Element, set[int]] = defaultdict(set)
        for position in positions:
            for element in accesses(kernel, tasks, position)["writes"]:
                if kernel.buffers[element[0]][0] == "state":
                    when[element].add(position)
        alike = sorted({tuple(sorted(written)) for written in when.values()})
        if not alike:
            return [frozenset()] * len(positions), 0
        stores = [mask(n for n, written in enumerate(alike) if position in written) for position in positions]
        table = numbers([kernel.tokens, len(positions), *stores])
        search = self._search("history.pml", {"POSITIONS": at_least(16, len(positions))}, table)
        return [
            frozenset(e for e, written in when.items() if facts["kept"] >> alike.index(tuple(sorted(written))) & 1)
            for _, facts in sorted(search.facts.items())
        ], search.states

    def _search(self, model: str, sizes: dict[str, int], table: str, least: bool = False) -> Search:
        pan = self._compile(model, [f"-D{name}={size}" for name, size in sizes.items()] + ["-DLEAST"] * least)
        # go on after an error; no list of lines that were not reached; 2**16 slots in the hash table to begin with
        command = [pan, "-c0", "-n", "-w16"]
        try:
            said = subprocess.run(
                command, input=table, capture_output=True, text=True, timeout=SECONDS, cwd=pan.parent, check=False
            )
        except subprocess.TimeoutExpired:
            raise UndecidedError(f"more than {SECONDS} s") from None
        return Search.read(said.returncode, said.stdout + said.stderr)

    def _compile(self, model: str, macros: list[str]) -> Path:
        key = (model, *macros)
        if key not in self._compiled:
            folder = self.folder / f"search-{len(self._compiled)}"
            folder.mkdir(parents=True)
            source = Path(__file__).with_name(model)
            subprocess.run(["spin", "-a", *macros, source], cwd=folder, check=True, capture_output=True)
            # NOREDUCE: a partial order reduction would not know of the facts that C code collects
            memory = MEGABYTES_LEAST if "-DLEAST" in macros else MEGABYTES
            options = ["-O1", "-w", "-DSAFETY", "-DNOREDUCE", f"-DMEMLIM={memory}", "-DVECTORSZ=8192", *macros]
            subprocess.run(["gcc", *options, "-o", "pan", "pan.c"], cwd=folder, check=True, capture_output=True)
            self._compiled[key] = folder / "pan"
        return self._compiled[key]


def accesses(kernel: Kernel, tasks: Sequence[tuple[int, int]], position: int) -> dict[str, dict[Element, list[int]]]:
    """Which tasks read themselves ("reads"), read by the ring ("tiles") and write ("writes") each element in a step at
    `position`, once for every box that contains it."""
    found: dict[str, dict[Element, list[int]]] = {how: defaultdict(list) for how in ("reads", "tiles", "writes")}
    for task, (f, i) in enumerate(tasks):
        family = kernel.families[f]
        for box in family.reads:
            for element in box.elements(i, position):
                found["tiles" if box.streamed else "reads"][element].append(task)
        for element in (e for box in family.writes for e in box.elements(i, position)):
            found["writes"][element].append(task)
    return found


def find_regions(
    kernel: Kernel, tasks: Sequence[tuple[int, int]], position: int, kept: frozenset[Element]
) -> list[Region]:
    """All elements that are accessed or have to be. Raises UndecidedError."""
    found = accesses(kernel, tasks, position)
    readers, tiles, writers = found["reads"], found["tiles"], found["writes"]
    elements = {*readers, *tiles, *writers}
    for name, (kind, shape) in kernel.buffers.items():
        if kind == "output":
            elements |= {(name, index) for index in itertools.product(*map(range, shape))}
    regions: dict[Region, None] = {}
    for element in sorted(elements):
        wrote = writers.get(element, [])
        regions[
            Region(
                kernel.buffers[element[0]][0],
                element in kept,
                frozenset(readers.get(element, [])),
                frozenset(tiles.get(element, [])),
                frozenset(wrote),
                frozenset(task for task in wrote if wrote.count(task) > 1),
            )
        ] = None
    if max(len(regions), len(tasks)) > MAX_SET:
        raise UndecidedError(f"{len(tasks)} tasks, {len(regions)} regions")
    return list(regions)


def races(regions: Sequence[Region], search: Search) -> bool:
    """Whether two accesses of an element, one of them a write, are not ordered the same way by all executions.

    Two writes: one sees the other. A write and a read: the read sees the write, or completes before it. A write and a
    read by the ring: the latter comes first. (The ring waits for nothing, so the write never does.) Elements
    that are written once need no comparison of writes, and tagged words look after themselves.
    """

    def holds(relation: str, earlier: int, later: int) -> bool:
        return bool(search.facts[later][relation] >> earlier & 1)

    for region in regions:
        if region.tagged:
            continue
        if region.kind == "state":
            pairs = itertools.combinations(region.writers, 2)
            if region.repeaters or any(not holds("seen", a, b) and not holds("seen", b, a) for a, b in pairs):
                return True
        for write, read in itertools.product(region.writers, region.readers):
            if write != read and not holds("seen", write, read) and not holds("preceding", read, write):
                return True
        for write, read in itertools.product(region.writers, region.streamers):
            if not holds("loaded", read, write):
                return True
    return False


def step_table(kernel: Kernel, tasks: Sequence[tuple[int, int]], regions: Sequence[Region]) -> str:
    """What step.pml reads."""
    number = {task: n for n, task in enumerate(tasks)}
    used = counters(kernel)
    table: list[int] = [len(kernel.queues)]
    for queue, fetches in zip(kernel.queues, kernel.fetches, strict=True):
        table.append(len(queue))
        for event in queue:
            match event:
                case ("run", f, i):
                    table += [0, number[f, i], 0]
                case ("wait", counter, _):
                    table += [1, used.index(counter), kernel.threshold(event)]
                case ("signal", counter):
                    table += [2, used.index(counter), 0]
        table += [len(fetches), *(number[tile] for tile in fetches)]
    table.append(len(used))
    for n, counter in enumerate(used):
        waits = [kernel.threshold(e) for queue in kernel.queues for e in queue if e[0] == "wait" and e[1] == counter]
        table += [sum(map(kernel.total, used[:n])), max(1, min(waits)) if waits else 0]
    table.append(len(tasks))
    for task, (f, _) in enumerate(tasks):
        table += [
            kernel.families[f].streams,
            mask(n for n, region in enumerate(regions) if task in region.readers and region.tagged),
            mask(n for n, region in enumerate(regions) if task in region.readers and not region.tagged),
            mask(n for n, region in enumerate(regions) if task in region.streamers),
            mask(n for n, region in enumerate(regions) if task in region.writers),
            mask(n for n, region in enumerate(regions) if task in region.repeaters),
            any(task in r.writers and len(r.readers | r.writers) > 1 and not r.tagged for r in regions),
        ]
    table += [
        mask(n for n, region in enumerate(regions) if region.kind == "state"),
        mask(n for n, region in enumerate(regions) if region.kind == "output"),
        mask(n for n, region in enumerate(regions) if region.kept),
    ]
    return numbers(table)


def step_sizes(kernel: Kernel) -> dict[str, int]:
    """Sizes of the arrays of step.pml, rounded up so that a few compiled models are enough for all kernels."""
    used = counters(kernel)
    return {
        "SMS": at_least(4, len(kernel.queues)),
        "EVENTS": at_least(32, max(map(len, [*kernel.queues, *kernel.fetches]))),
        "TASKS": MAX_SET,
        "COUNTERS": at_least(8, len(used)),
        "SIGNALS": at_least(16, sum(map(kernel.total, used))),
    }


def at_least(size: int, needed: int) -> int:
    """`size`, doubled until it is enough."""
    while size < needed:
        size *= 2
    return size


def counters(kernel: Kernel) -> list[int]:
    """Those that some event uses."""
    return sorted({event[1] for queue in kernel.queues for event in queue if event[0] != "run"})


def mask(members: Iterable[int]) -> int:
    """A set as an int with these bits."""
    return sum(1 << member for member in set(members))


def numbers(table: Iterable[int]) -> str:
    return " ".join(str(int(number)) for number in table) + "\n"
