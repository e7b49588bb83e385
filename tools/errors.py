"""How a command line tool ends: quiet interrupts, one-line errors and warnings, exit codes.

| status | meaning                                                                     |
|--------|-----------------------------------------------------------------------------|
| 0      | done                                                                        |
| 1      | internal error: a defect of AMK                                             |
| 2      | the input, the options or the machine: the message says what, and what to do |
| 130    | interrupted (Ctrl-C)                                                        |
"""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from ..amk_ir.errors import AmkError, AmkWarning, UsageError
from .progress import print_above
from .streams import prepare_streams

DEBUG_VARIABLE = "AMK_DEBUG"
"""Set to 1 to see tracebacks."""


class OneLineParser(argparse.ArgumentParser):
    """A parser of arguments whose errors are of one line, as all others are."""

    # argparse has overloads for types of namespaces of one's own
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As in argparse; but what a subcommand does not know is its own error, not that of the whole program."""
        known, others = super().parse_known_args(args, namespace)
        if others:
            options = [text for text in others if text.startswith("--")]
            close = (
                difflib.get_close_matches(options[0].partition("=")[0], self._option_string_actions, 1)
                if options
                else []
            )
            hint = f"; did you mean {close[0]}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(others)}{hint}")
        return known, others

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def run_tool(name: str, body: Callable[[], int | None], *more: type[BaseException]) -> int:
    """Runs `body` and turns what it raises into a message on stderr and an exit status.

    `more` are further exceptions that are the user's to mend. A body's own status (None: 0) is returned. An AmkWarning is
    printed to stderr as one line.
    """
    try:
        prepare_streams()
        with warnings.catch_warnings():
            _show_warnings(name)
            status = body() or 0
        sys.stdout.flush()  # or a closed pipe shows up only when Python exits
        return status
    except BrokenPipeError:
        _drop_output()  # the reader (head, less) has seen enough
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except (AmkError, OSError, MemoryError, RecursionError, *more) as e:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"{name}: error: {describe(e)}", file=sys.stderr)
        _drop_output()
        return 2
    except Exception as e:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        message = " ".join(str(e).split())
        print(
            f"{name}: internal error: {type(e).__name__}: {message} (set {DEBUG_VARIABLE}=1 to see the traceback)",
            file=sys.stderr,
        )
        return 1


def _show_warnings(name: str) -> None:
    """Prints an AmkWarning as the tools print errors; others as Python does."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, AmkWarning):
            print_above(f"{name}: {' '.join(str(message).split())}")
        else:
            others(message, category, *where)

    warnings.showwarning = show


def _drop_output() -> None:
    """Forgets what is still in stdout's buffer if it cannot be written: Python would try once more at exit."""
    if vars(sys)["stdout"] is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe(error: BaseException) -> str:
    """The message of an error that the user can mend, without Python's decoration."""
    if isinstance(error, MemoryError):
        return f"out of memory{f': {error}' if str(error) else ''}; give a smaller model, grid or max_seq"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply to be read"
    if isinstance(error, OSError) and error.strerror:
        # What writes files names them in a StorageError, which leaves stdout.
        name = error.filename or ("stdout" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None)
        return f"{name}: {error.strerror}" if name else error.strerror
    return str(error) or type(error).__name__
