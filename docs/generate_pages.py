"""Writes docs/dialects/*.md and docs/passes.md from docstrings and definitions: `python docs/generate_pages.py`.

tests/unit/test_docs.py checks that the committed pages are what this writes.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

from xdsl.ir import Dialect, Operation
from xdsl.irdl import IRDLOperation, OpDef

from amk.dialects import graph, queue, task
from amk.tools.registry import get_all_passes

DOCS = Path(__file__).parent
DIALECTS: dict[str, tuple[Dialect, str]] = {
    "graph": (graph.Graph, graph.__doc__ or ""),
    "task": (task.Task, task.__doc__ or ""),
    "queue": (queue.Queue, queue.__doc__ or ""),
}


PASSES_INTRODUCTION = """# Passes

`amk-opt FILE.mlir -p "PASS{option=value},PASS,..."` applies them in order and verifies the IR after each. Composite
pipelines are passes themselves: `graph-to-task`, `task-to-queue`, and `graph-to-queue`, which is both. The verifier is a
pass of its own at their end: `graph-to-queue{target=sm_90a},verify-schedule`.
"""


def pages() -> dict[str, str]:
    """All generated pages by their path below docs/."""
    return {f"dialects/{name}.md": dialect_page(name) for name in DIALECTS} | {"passes.md": passes_page()}


def passes_page() -> str:
    """The Markdown page of all passes."""
    lines = [PASSES_INTRODUCTION]
    for name, get in sorted(get_all_passes().items()):
        cls = get()
        lines += [f"## `{name}`", "", _body(cls.__doc__ or ""), ""]
        options = [f"`{f.name.replace('_', '-')}` = {_default(f.default)}" for f in dataclasses.fields(cls)]
        if options:
            lines += [f"Options and defaults: {', '.join(options)}.", ""]
    return "\n".join(lines)


def _default(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def dialect_page(name: str) -> str:
    """The Markdown page of a dialect."""
    dialect, introduction = DIALECTS[name]
    lines = [f"# The `{name}` dialect", "", _body(introduction), ""]
    lines += ["| op | |", "|---|---|"]
    lines += [f"| [`{op.name}`](#{_anchor(op)}) | {_body(op.__doc__ or '').splitlines()[0]} |" for op in _ops(dialect)]
    for op in _ops(dialect):
        lines += ["", f"## `{op.name}`", "", _body(op.__doc__ or "")]
        assert issubclass(op, IRDLOperation)
        lines += _members(op.get_irdl_definition())
    return "\n".join(lines) + "\n"


def _ops(dialect: Dialect) -> list[type[Operation]]:
    return sorted(dialect.operations, key=lambda op: op.name)


def _anchor(op: type[Operation]) -> str:
    return op.name.replace(".", "")


def _body(docstring: str) -> str:
    return inspect.cleandoc(docstring).strip()


def _members(definition: OpDef) -> list[str]:
    kinds = {
        "operands": [name for name, _ in definition.operands],
        "results": [name for name, _ in definition.results],
        "properties": [*definition.properties],
        "regions": [name for name, _ in definition.regions],
    }
    rows = [f"- {kind}: {', '.join(f'`{n}`' for n in names)}" for kind, names in kinds.items() if names]
    return ["", *rows] if rows else []


def main() -> None:
    for path, text in pages().items():
        (DOCS / path).parent.mkdir(exist_ok=True)
        (DOCS / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
