"""Small kernels about streams of state, written by hand: rows of a cache come through the ring, and one is replaced."""

from dataclasses import replace

from .random_kernels import cell, row, whole
from .small_kernels import Box, Event, Family, Kernel

EARLIER = Box("s", (((0, 0, 0), (0, 1)),), streamed=True)
"""The rows of earlier steps."""
OWN = replace(row(1), streamed=True)
"""The row of this step."""

FAMILIES = {
    "add": Family(1, [], [row(1)], False),
    "use": Family(1, [EARLIER], [whole("o")], True),
    "use and tell": Family(1, [EARLIER], [whole("o"), cell("t", 0)], True),
    "use and replace": Family(1, [EARLIER], [whole("o"), cell("s", 0)], True),
    "use own": Family(1, [EARLIER, OWN], [whole("o")], True),
    "hear": Family(1, [cell("t", 0)], [cell("t", 1)], False),
    "hear too": Family(1, [cell("t", 0)], [cell("t", 2)], False),
    "hear and replace": Family(1, [cell("t", 0)], [cell("s", 0)], False),
    "replace": Family(1, [], [cell("s", 0)], False),
}


def kernel(*queues: str) -> Kernel:
    """A queue has the names of families, "+c" for a signal and "c:n" for a wait for n signals of counter c."""
    words = [[w for part in q.split(",") if (w := part.strip())] for q in queues]
    names = [name for name in FAMILIES if any(name in q for q in words)]

    def event(word: str) -> Event:
        if word in FAMILIES:
            return "run", names.index(word), 0
        if word.startswith("+"):
            return "signal", int(word[1:])
        counter, threshold = word.split(":")
        return "wait", int(counter), int(threshold)

    tiles = [[(names.index(w), 0) for w in q if w in FAMILIES and FAMILIES[w].streams] for q in words]
    return Kernel(1, [FAMILIES[name] for name in names], 2, [[event(w) for w in q] for q in words], tiles)


QUESTIONS: list[tuple[str, str, Kernel]] = [
    ("a row is added", "", kernel("add", "use")),
    ("a row is replaced after its tile was used", "", kernel("add, use, replace")),
    ("a row is replaced on another SM, which waits", "", kernel("add, use, +0", "0:1, replace")),
    ("a row is replaced on another SM, told by a word", "", kernel("use and tell", "add, hear and replace")),
    ("a row is replaced after either of two relays", "", kernel("use, +0", "0:1, +1", "0:1, +1", "add, 1:1, replace")),
    (
        "a row is replaced after either of two that hear by a word",
        "",
        kernel("use and tell", "hear, +1", "hear too, +1", "add, 1:1, replace"),
    ),
    ("a row is replaced by the task that streams it", "", kernel("add, use and replace")),
    ("a row is replaced before its tile is used", "race", kernel("add, replace, use")),
    ("a row is replaced on another SM, for which the task waits", "race", kernel("0:1, use", "add, replace, +0")),
    ("a row is replaced on another SM at any time", "race", kernel("use", "add, replace")),
    ("a row is replaced after the signal before the task", "race", kernel("add, +0, use", "0:1, replace")),
    (
        "a row is replaced after either of two relays, of which one does not wait",
        "race",
        kernel("use, +0", "0:1, +1", "+1", "add, 1:1, replace"),
    ),
    ("a row is streamed, then added", "coverage", kernel("use own, add")),
    ("a row is added, then streamed", "race", kernel("add, use own")),
    ("rows are streamed that nobody adds", "coverage", kernel("use")),
]
"""What, the rule that is broken ("" if none is), and the kernel."""
