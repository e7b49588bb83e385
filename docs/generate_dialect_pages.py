"""Writes docs/dialects/*.md from the docstrings and definitions of the dialects: `python docs/generate_dialect_pages.py`.

tests/unit/test_docs.py checks that the committed pages are what this writes.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from xdsl.ir import Dialect, Operation
from xdsl.irdl import IRDLOperation, OpDef

from amk.dialects import graph, queue, task

PAGES = Path(__file__).parent / "dialects"
DIALECTS: dict[str, tuple[Dialect, str]] = {
    "graph": (graph.Graph, graph.__doc__ or ""),
    "task": (task.Task, task.__doc__ or ""),
    "queue": (queue.Queue, queue.__doc__ or ""),
}


def page(name: str) -> str:
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
    PAGES.mkdir(exist_ok=True)
    for name in DIALECTS:
        (PAGES / f"{name}.md").write_text(page(name), encoding="utf-8")


if __name__ == "__main__":
    main()
