"""Progress bars for work that takes over a second, on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


def print_above(line: str) -> None:
    """Prints `line` to stderr, above a bar that may be there."""
    tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)  # not imported: no bar
    if tqdm is None:
        print(line, file=sys.stderr)
    else:
        tqdm.write(line, file=sys.stderr)


class ProgressBar:
    """A `runtime.backend.Progress`: one bar on stderr for each kind of work, gone when it is done.

    Nothing appears when stderr is not a terminal, nor in the first second. Use it as a context manager, so that no
    part of a bar stays behind an error message.
    """

    def __init__(self) -> None:
        self._what: str | None = None
        self._bar = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self.close()
            from tqdm import tqdm

            self._what = what
            self._bar = tqdm(
                total=total,
                desc=what,
                delay=1.0,
                leave=False,
                file=sys.stderr,
                dynamic_ncols=True,  # a bar longer than the line would wrap, and leave rests behind
                disable=None,  # not a terminal
                bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}",
            )
        assert self._bar is not None
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
        self._what, self._bar = None, None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StageLines:
    """A `runtime.backend.Progress` for work of minutes: bars on a terminal, and in a log a line for each stage that says
    when it began, in seconds since the first one. name: what the lines begin with.

    seconds: of each stage until the next one began, or the work ended.
    """

    def __init__(self, name: str) -> None:
        self._name, self._bar = name, ProgressBar()
        self._start = self._began = time.monotonic()
        self._what: str | None = None
        self.seconds: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._end()
            self._what = what
            if not sys.stderr.isatty():
                print(f"{self._name}: {self._began - self._start:.0f} s: {what}", file=sys.stderr)
        self._bar(what, done, total)

    def _end(self) -> None:
        now = time.monotonic()
        if self._what is not None:
            self.seconds[self._what] = self.seconds.get(self._what, 0) + now - self._began
        self._what, self._began = None, now

    def __enter__(self) -> StageLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._bar.close()
