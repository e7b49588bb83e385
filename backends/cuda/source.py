"""Writes C++ text: lines, indentation, nested blocks."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager


class SourceWriter:
    """Collects indented lines."""

    def __init__(self, depth: int = 0) -> None:
        self._lines: list[str] = []
        self._depth = depth

    def line(self, text: str = "") -> None:
        """One line, or several separated by newlines, at the present indentation."""
        for part in text.split("\n"):
            self._lines.append("    " * self._depth + part if part else "")

    def lines(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.line(text)

    @contextmanager
    def block(self, head: str, end: str = "}") -> Generator[None]:
        """`head {`, an indented part, `}`."""
        self.line(f"{head} {{" if head else "{")
        self._depth += 1
        yield
        self._depth -= 1
        self.line(end)

    def unrolled(self, count: int) -> None:
        """Asks for full unrolling of the next loop."""
        if count > 1:
            self.line("#pragma unroll")

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"
