"""The standard streams of the command line tools: closed ones, and those that cannot say everything."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TextIO

from ..amk_ir.errors import UsageError


def prepare_streams() -> None:
    """Called first. A closed stderr is as good as /dev/null; a closed stdout is refused, as there is nobody to answer.

    Characters that stdout's encoding lacks are replaced: a model may write any.
    """
    if _stream("stderr") is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the end of the process)
    if _stream("stdout") is None:
        raise UsageError("stdout is closed; send it to a file or to /dev/null")
    _reconfigure(errors="replace")


def write_utf8() -> None:
    """Makes stdout UTF-8, as .mlir files are, whatever the terminal has."""
    _reconfigure(encoding="utf-8")


def require_stdin(reader: str) -> TextIO:
    """stdin, which `reader` wants to read; UsageError if it is closed."""
    stream = _stream("stdin")
    if stream is None:
        raise UsageError(f"{reader}: stdin is closed; give a file or a pipe")
    return stream


def _stream(name: str) -> TextIO | None:
    return getattr(sys, name)  # None if its descriptor was closed before Python started: typeshed does not say so


def _reconfigure(encoding: str | None = None, errors: str | None = None) -> None:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding=encoding, errors=errors)
