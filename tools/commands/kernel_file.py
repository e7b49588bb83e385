"""Kernels in .mlir files, as `verify` and `replay` read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...amk_ir.errors import UsageError

if TYPE_CHECKING:
    from ...dialects.queue import KernelOp


def _reason(text: str) -> str:
    """One line of an error that xDSL puts below the operation, inside the text of the whole module."""
    lines = [line.strip() for line in text.splitlines()]
    for at, line in enumerate(lines):
        if line.startswith("^^^") and 0 < at < len(lines) - 1:
            return f"{lines[at + 1].removeprefix('| ')}, in `{lines[at - 1]}`"
    return " ".join(text.split())


def read_kernels(path: Path) -> list[KernelOp]:
    """All kernels of a file, which are valid IR: no access leaves its buffer at any position.

    Raises:
        UsageError: not MLIR, not valid, or no `queue.kernel`.
        OSError: no such file.
    """
    from xdsl.parser import Parser
    from xdsl.utils.exceptions import DiagnosticException, ParseError, UnregisteredConstructException

    from ...dialects.queue import KernelOp
    from ...runtime.compile import new_context

    try:
        module = Parser(new_context(), path.read_text(encoding="utf-8"), str(path)).parse_module()
        module.verify()
    except ParseError as e:
        raise UsageError(f"{e.span.get_location()}: {' '.join(e.msg.split())}") from e
    except UnicodeDecodeError as e:
        raise UsageError(f"{path}: not UTF-8 text ({e.reason})") from e
    except RecursionError as e:
        raise UsageError(f"{path}: nested too deeply") from e
    except (DiagnosticException, UnregisteredConstructException) as e:
        raise UsageError(f"{path}: {_reason(str(e))}") from e
    kernels = [op for op in module.walk() if isinstance(op, KernelOp)]
    if not kernels:
        raise UsageError(f"{path}: no queue.kernel in it; amk-opt -p graph-to-queue makes one of a graph.model")
    return kernels
