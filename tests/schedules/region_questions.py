"""Which elements overlap: kernels with a question about regions, positions or domains each.

Tasks of one SM run in the order in which they are written; SMs wait for nobody. All buffers are there in every kernel.
"""

import itertools
import re
from dataclasses import dataclass

MAX_SEQ = 16
KINDS = {"a": "scratch", "g": "scratch", "s": "state", "out": "output", "t": "scratch tagged"}
SHAPES = {"a": (17,), "g": (4, 6), "s": (17,), "out": (10,), "t": (17,)}


@dataclass(frozen=True)
class Task:
    """reads, writes: accesses as in IR, without the `@`. domain: `i = 2, j = 3`."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    domain: str = ""

    @property
    def extents(self) -> tuple[int, ...]:
        return tuple(int(n) for n in re.findall(r"= (\d+)", self.domain))

    def text(self, name: str) -> str:
        lines = [f"    %r{n} = task.load @{r} : tensor<{_tile(r)}xf32>" for n, r in enumerate(self.reads)]
        # a family has to store something: what writes nothing else writes a word of its own
        indices = re.findall(r"(\w+) =", self.domain)
        own = f"own_{name}[{', '.join(['0 : 1', *(f'{index} : 1' for index in indices)])}]"
        for n, w in enumerate(self.writes or (own,)):
            tile = _tile(w)
            source = ", ".join(f"0 : {size}" for size in tile.split("x"))
            lines.append(f"    %v{n} = task.load @in{tile.count('x') + 1}[{source}] : tensor<{tile}xf32>")
            lines.append(f"    task.store %v{n}, @{w} : tensor<{tile}xf32>")
        return "\n".join([f"  task.family @{name} ({self.domain}) {{", *lines, "  }"])

    def runs(self, name: str) -> list[str]:
        tasks = itertools.product(*map(range, self.extents))
        return [f"    queue.run @{name}[{', '.join(map(str, index))}]" for index in tasks]


def _tile(access: str) -> str:
    """`4x?` of `a[i*4 : 4, 0 : pos + 1]`."""
    sizes = [dim.split(" : ")[1].split(" to ")[0] for dim in access.partition("[")[2].rstrip("]").split(", ")]
    return "x".join(size if size.isdigit() else "?" for size in sizes)


def kernel_text(sms: list[list[Task]], tokens: int = 1) -> str:
    """A kernel with the given tasks on each SM."""
    lines = [f'queue.kernel @k target "reference" sms {len(sms)} max_seq {MAX_SEQ} tokens {tokens} {{']
    for name, shape in SHAPES.items():
        lines.append(f"  task.buffer @{name} {KINDS[name]} : tensor<{'x'.join(map(str, shape))}xf32>")
    lines += ["  task.buffer @in1 input : tensor<32xf32>", "  task.buffer @in2 input : tensor<8x8xf32>"]
    lines.append("  task.buffer @in3 input : tensor<1x1x1xf32>")
    names = {(sm, n): f"f{sm}_{n}" for sm, tasks in enumerate(sms) for n in range(len(tasks))}
    for (sm, n), name in names.items():
        if not sms[sm][n].writes:
            shape = "x".join(map(str, (1, *sms[sm][n].extents)))
            lines.append(f"  task.buffer @own_{name} scratch : tensor<{shape}xf32>")
    lines += [sms[sm][n].text(name) for (sm, n), name in names.items()]
    for sm, tasks in enumerate(sms):
        lines.append(f"  queue.program sms {sm} to {sm + 1} stream {{}} body {{")
        lines += [run for n, task in enumerate(tasks) for run in task.runs(names[sm, n])]
        lines.append("  }")
    return "\n".join([*lines, "}"])


OUT = Task((), ("out[0 : 10]",))
ROW, ROWS = Task((), ("s[pos : 1]",)), Task(("s[0 : pos + 1]",))
GRID = Task((), ("g[i*2 : 2, j*2 : 2]",), "i = 2, j = 3")


@dataclass(frozen=True)
class Question:
    """rule: that is broken, None if the kernel is safe."""

    what: str
    rule: str | None
    sms: list[list[Task]]
    tokens: int = 1


QUESTIONS = [
    Question("tiles side by side", None, [[Task((), ("a[0 : 8]",)), Task((), ("a[8 : 8]",)), OUT]]),
    Question("tiles that share an element", "written-once", [[Task((), ("a[0 : 8]",)), Task((), ("a[7 : 8]",)), OUT]]),
    Question("a tile beside what is read", None, [[Task((), ("a[3 : 4]",)), Task(("a[3 : 4]",)), OUT]]),
    Question("an element beyond the tile is read", "coverage", [[Task((), ("a[3 : 4]",)), Task(("a[3 : 5]",)), OUT]]),
    Question("an element before the tile is read", "coverage", [[Task((), ("a[3 : 4]",)), Task(("a[2 : 4]",)), OUT]]),
    Question("a tile cut by its limit", None, [[Task((), ("out[i*4 : 4 to 10]",), "i = 3")]]),
    Question("what a limit cuts off is not written", "coverage", [[Task((), ("out[i*4 : 4 to 9]",), "i = 3")]]),
    Question(
        "what a limit cuts off is not written twice",
        None,
        [[Task((), ("a[0 : 8 to 6]",)), Task((), ("a[6 : 4]",)), OUT]],
    ),
    Question("the last element of an output is missing", "coverage", [[Task((), ("out[0 : 9]",))]]),
    Question("the first element of an output is missing", "coverage", [[Task((), ("out[1 : 9]",))]]),
    Question(
        "a word written twice at the last position", "written-once", [[Task((), ("a[pos : 1]", "a[15 : 1]")), OUT]]
    ),
    Question("a word written twice at one position", "written-once", [[Task((), ("a[pos : 1]", "a[7 : 1]")), OUT]]),
    Question(
        "a word written twice at the first position", "written-once", [[Task((), ("a[pos : 1]", "a[0 : 1]")), OUT]]
    ),
    Question("a word written twice at no position", None, [[Task((), ("a[pos : 1]", "a[16 : 1]")), OUT]]),
    Question(
        "a word not written at the last position", "coverage", [[Task((), ("a[pos : 2]",)), Task(("a[15 : 1]",)), OUT]]
    ),
    Question(
        "a race at the last position", "race", [[Task((), ("a[pos : 1]", "a[16 : 1]"))], [Task(("a[16 : 1]",)), OUT]]
    ),
    Question("a grid of tiles, read whole", None, [[GRID, Task(("g[0 : 4, 0 : 6]",)), OUT]]),
    Question(
        "a tile of a grid is missing",
        "coverage",
        [[Task((), ("g[i*2 : 2, j*2 : 2]",), "i = 2, j = 2"), Task(("g[0 : 4, 0 : 6]",)), OUT]],
    ),
    Question(
        "tiles of a grid overlap in one dimension only",
        None,
        [[Task((), ("g[0 : 4, 0 : 3]",)), Task((), ("g[0 : 4, 3 : 3]",)), Task(("g[0 : 4, 1 : 4]",)), OUT]],
    ),
    Question(
        "a read crosses a grid the other way",
        "coverage",
        [[Task((), ("g[0 : 2, 0 : 6]",)), Task(("g[0 : 4, 1 : 1]",)), OUT]],
    ),
    Question(
        "tasks of two indices read each other's tiles",
        "coverage",
        [[Task((), ("g[j : 1, i : 1]",), "i = 2, j = 3"), Task(("g[i : 1, j : 1]",), (), "i = 2, j = 3"), OUT]],
    ),
    Question("rows of a cache, read up to this one", None, [[ROW, ROWS, OUT]]),
    Question("a row more than is written", "coverage", [[ROW, Task(("s[0 : pos + 2]",)), OUT]]),
    Question("the row of the next step", "coverage", [[ROW, Task(("s[pos + 1 : 1]",)), OUT]]),
    Question("two rows a step", None, [[Task((), ("s[pos : 2]",)), Task(("s[0 : pos + 2]",)), OUT]], 2),
    Question("one row of a step of two", "coverage", [[ROW, ROWS, OUT]], 2),
    Question(
        "row 0 and all up to this one, before the row of this one",
        "coverage",
        [[Task((), ("s[0 : 1]",)), ROWS, ROW, OUT]],
    ),
    Question("rows of earlier steps, before the row of this one", "coverage", [[ROWS, ROW, OUT]]),
    Question(
        "a row ahead, and the first one in every step", None, [[Task((), ("s[pos + 1 : 1]", "s[0 : 1]")), ROWS, OUT]]
    ),
    Question("a row, written and read without an order", "race", [[ROW], [ROWS, OUT]]),
    Question(
        "state written twice without an order", "race", [[Task((), ("s[3 : 2]",))], [Task((), ("s[4 : 2]",)), OUT]]
    ),
    Question("state written side by side", None, [[Task((), ("s[3 : 2]",))], [Task((), ("s[5 : 2]",)), OUT]]),
    Question("a task writes state twice", "race", [[Task((), ("s[3 : 2]", "s[4 : 2]")), OUT]]),
    Question("a tag that moves with the position", None, [[Task((), ("t[pos : 1]",))], [Task(("t[pos : 1]",)), OUT]]),
    Question("a tag that stays", "deadlock", [[Task((), ("t[pos : 1]",))], [Task(("t[0 : 1]",)), OUT]]),
    Question(
        "a tag that is missing at the end",
        "deadlock",
        [[Task((), ("t[pos : 1]", "t[16 : 1]"))], [Task(("t[pos : 2]",)), OUT]],
    ),
    Question(
        "a tag of two writers",
        None,
        [[Task((), ("t[0 : 1]",))], [Task((), ("t[1 : 1]",))], [Task(("t[0 : 2]",)), OUT]],
    ),
    Question(
        "words behind tags of two writers, one of them later",
        "deadlock",
        [[Task((), ("t[0 : 1]",))], [Task(("t[0 : 2]",)), Task((), ("t[1 : 1]",)), OUT]],
    ),
    Question(
        "words that begin alike, the longer ones later",
        "deadlock",
        [[Task((), ("t[0 : 1]",))], [Task(("t[0 : 1]",))], [Task(("t[0 : 2]",)), Task((), ("t[1 : 1]",)), OUT]],
    ),
    Question(
        "words that begin alike, the shorter ones first",
        None,
        [[Task(("t[0 : 2]",)), OUT], [Task((), ("t[0 : 1]",)), Task(("t[0 : 1]",)), Task((), ("t[1 : 1]",))]],
    ),
]
