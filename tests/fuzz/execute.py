"""One run of a tool in this process, as its script would run it, and what is to be said of how it ended."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

from xdsl.universe import Universe
from xdsl.utils.exceptions import VerifyException

from amk.amk_ir.errors import AmkError
from amk.tools import amk, amk_opt
from amk.tools.errors import DEBUG_VARIABLE, describe

# What is installed does not change: xDSL looks for it anew in each run, which takes longer than the rest.
Universe.get_multiverse = cache(Universe.get_multiverse)

TOOLS = {"amk": amk.main, "amk-opt": amk_opt.main}

SECONDS = 20
"""Processor time of one run."""

DEEP = 60
"""An input with as many open brackets, or signs in a row, may be refused as nested too deeply."""


class TooSlowError(BaseException):
    """Raised in whatever takes too long; nothing that handles errors catches it."""


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    status: as the process would exit. problem: why it is a finding, with a traceback; empty if it is none. output,
    error: what it printed. invalid: refused because some IR, read or produced, does not verify.
    """

    status: int
    problem: str
    output: str
    error: str
    invalid: bool = False

    @property
    def kind(self) -> str:
        """Findings of one kind are probably one: the exception and the line of AMK (or else of a library) that raised it."""
        first, _, rest = self.problem.partition("\n")
        frames = [line.strip() for line in rest.splitlines() if line.strip().startswith('File "')]
        if "nested too deeply" in first or "processor time" in first:
            return first
        own = [f for f in frames if "/site-packages/" not in f and "/lib/python" not in f and "/tests/fuzz/" not in f]
        place = (own or frames or [""])[-1]
        library = frames[-1] if frames else ""
        return f"{first.partition(':')[0]} | {_short(place)} | {_short(library)}"


def _short(frame: str) -> str:
    parts = frame.split('"')
    return f"{'/'.join(parts[1].split('/')[-2:])}{parts[2].partition(', in')[0]}" if len(parts) > 2 else frame


def run_tool(command: Sequence[str], text: bytes, seconds: float = SECONDS) -> Ending:
    """Runs a command of which the input file holds `text`."""
    out, err = io.StringIO(), io.StringIO()
    status, problem, invalid = 0, "", False
    os.environ[DEBUG_VARIABLE] = "1"  # errors reach us as exceptions
    try:
        with limited(seconds), redirect_stdout(out), redirect_stderr(err):
            TOOLS[command[0]](command[1:])
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 2
        if status not in (0, 2):
            problem = f"exit status {e.code}\n{err.getvalue()}"
    except TooSlowError as e:
        status, problem = 1, f"more than {seconds:g} s of processor time\n{_trace(e)}"
    except MemoryError as e:
        status, problem = 2, f"out of memory: {e}\n{_trace(e)}"
    except (AmkError, OSError, RecursionError) as e:
        status = 2
        problem = _typed_problem(e, text)
        invalid = isinstance(e.__cause__, VerifyException)
        print(f"{command[0]}: error: {describe(e)}", file=err)
    except Exception as e:
        status, problem = 1, f"{type(e).__name__}: {' '.join(str(e).split())[:200]}\n{_trace(e)}"
    finally:
        del os.environ[DEBUG_VARIABLE]
    return Ending(status, problem, out.getvalue(), err.getvalue(), invalid)


def _trace(e: BaseException) -> str:
    """The traceback; of a deep recursion only its ends."""
    lines = "".join(traceback.format_exception(e)).splitlines()
    return "\n".join(lines if len(lines) < 200 else [*lines[:40], "...", *lines[-60:]])


def _typed_problem(e: BaseException, text: bytes) -> str:
    """What is wrong with an error that the tools take for the user's."""
    chain: list[BaseException] = []
    cause: BaseException | None = e
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    message = describe(e)
    if any(isinstance(c, RecursionError) for c in chain) and depth(text) < DEEP:
        return f"nested too deeply, though it is not: {message}\n{_trace(e)}"
    if any(isinstance(c, MemoryError) for c in chain):
        return f"out of memory: {message}\n{_trace(e)}"
    if not message.strip() or "Traceback" in message:
        return f"{type(e).__name__} without a message\n{_trace(e)}"
    return ""


def depth(text: bytes) -> int:
    """How deeply brackets are nested, or how many brackets or signs stand in a row."""
    now = most = row = 0
    for byte in text:
        if byte in b"([{<":
            now += 1
            most = max(most, now)
        elif byte in b")]}>":
            now = max(0, now - 1)
        row = row + 1 if byte in b"([{<-!" else 0 if byte not in b" \n" else row
        most = max(most, row)
    return most


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooSlowError after `seconds` of processor time."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def limit_address_space(mebibytes: int) -> None:
    """No more than so much beyond what the process has now."""
    import resource

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (mebibytes << 20), now + (mebibytes << 20)))


def fuzz_one(command: Sequence[str], file: Path, text: bytes) -> Ending:
    """Runs a command on `text`, and looks at its result once more: what passes produce is valid, what is printed parses."""
    file.write_bytes(text)
    end = run_tool(command, text)
    if end.problem or command[0] != "amk-opt":
        return end
    if end.invalid and "-p" in command and run_tool(["amk-opt", str(file)], text).status == 0:
        return Ending(2, f"invalid IR from {command[command.index('-p') + 1]}\n{end.error}", "", end.error)
    if end.status == 0 and "-t" not in command:
        again = file.with_name("printed.mlir")
        printed = end.output.encode("utf-8", "surrogatepass")
        again.write_bytes(printed)
        more = ["--print-op-generic"] if "--print-op-generic" in command else []
        second = run_tool(["amk-opt", str(again), *more], printed)
        if second.problem:
            return second
        if second.status != 0:
            return Ending(2, f"what was printed is refused: {second.error[:300]}\n{end.output[:3000]}", "", "")
        if second.output != end.output:
            return Ending(2, f"what was printed prints differently\n{_difference(end.output, second.output)}", "", "")
    return end


def _difference(a: str, b: str) -> str:
    import difflib

    return "\n".join(list(difflib.unified_diff(a.splitlines(), b.splitlines(), lineterm="", n=1))[:40])


if sys.platform != "linux":  # /proc, SIGPROF
    raise ImportError("the fuzzers run on Linux")
