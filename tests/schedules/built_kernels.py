"""Small kernels as the arrays that the verifier works on, without text for every kernel.

Kernels that share their families share the IR of them, parsed once; events become arrays directly. That a kernel's text
unrolls to the same arrays is a test of its own (tests/oracle/test_verifier_enumeration.py).
"""

from dataclasses import replace

import numpy as np

from amk.dialects.schedule import EventKind, Events, Schedule

from .small_kernels import Event, Kernel, parse

_KINDS = {"run": EventKind.RUN, "wait": EventKind.WAIT, "signal": EventKind.SIGNAL}


class Builder:
    """Remembers the IR of the families that it saw last."""

    def __init__(self) -> None:
        self._of: Kernel | None = None
        self._template: Schedule | None = None

    def schedule(self, kernel: Kernel) -> Schedule:
        """What `Schedule.from_kernel` makes of the kernel's text; its `kernel` has the same tasks and buffers, no events."""
        if self._of is None or self._template is None or not _same_tasks(self._of, kernel):
            none = [[] for _ in kernel.queues]
            empty = Kernel(kernel.tokens, kernel.families, kernel.counters, none, none, kernel.buffers, kernel.max_seq)
            self._of, self._template = kernel, Schedule.from_kernel(parse(empty.text()))
        template = self._template
        totals = [0] * kernel.counters
        for queue in kernel.queues:
            for event in queue:
                if event[0] == "signal":
                    totals[event[1]] += 1
        body: list[tuple[int, int, int, int]] = []
        stream: list[tuple[int, int, int, int]] = []
        ops = 0
        programs = tuple(template.kernel.programs)
        for queue, fetches in zip(kernel.queues, kernel.fetches, strict=True):
            for event in queue:
                body.append((_KINDS[event[0]], event[1], _argument(event, totals), ops))
                ops += 1
            for family, index in fetches:
                stream.append((EventKind.RUN, family, index, ops))
                ops += 1
        return replace(
            template,
            signals=np.array(totals, np.int32),
            ops=programs[:1] * ops,
            body=_events(body, [len(q) for q in kernel.queues]),
            stream=_events(stream, [len(f) for f in kernel.fetches]),
        )


def _same_tasks(a: Kernel, b: Kernel) -> bool:
    return (
        a.families is b.families
        and (a.tokens, a.counters, len(a.queues), a.max_seq) == (b.tokens, b.counters, len(b.queues), b.max_seq)
        and a.buffers is b.buffers
    )


def _argument(event: Event, totals: list[int]) -> int:
    if event[0] == "run":
        return event[2]
    if event[0] == "signal":
        return 0
    return totals[event[1]] if event[2] is None else event[2]


def _events(rows: list[tuple[int, int, int, int]], lengths: list[int]) -> Events:
    columns = np.array(rows, np.int32).reshape(-1, 4).T
    kind, ref, arg, op = (np.ascontiguousarray(c) for c in columns)
    return Events(kind, ref, arg, op, np.cumsum([0, *lengths]).astype(np.int32))
