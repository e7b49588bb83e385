"""`amk-opt`: parses .mlir, runs passes, prints .mlir or another target. xDSL's driver with AMK's error messages."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import IO, NoReturn

from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    ParseError,
    UnregisteredConstructException,
)
from xdsl.xdsl_opt_main import xDSLOptMain

from ..amk_ir.errors import AmkError, UsageError
from ..runtime import xdsl_fixes as xdsl_fixes
from ..runtime.files import write_atomically
from .errors import run_tool
from .registry import get_all_targets
from .streams import require_stdin, write_utf8


class _KeptText(StringIO):
    """Text that is still there after xDSL closed it."""

    def close(self) -> None:
        pass


class AmkOptMain(xDSLOptMain):
    """xDSL's driver; AMK's dialects, passes and targets come in through the Universe entry point."""

    version_format = "amk-opt of AMK 0.1.0, built on xDSL {xdsl_version}"

    def register_all_targets(self) -> None:
        super().register_all_targets()
        self.available_targets.pop("mps", None)  # xDSL has only its name yet
        if importlib.util.find_spec("llvmlite") is None:
            self.available_targets.pop("llvm", None)

    def register_all_arguments(self, arg_parser: argparse.ArgumentParser) -> None:
        def error(message: str) -> NoReturn:
            raise UsageError(f"{message}; see `amk-opt --help`")

        super().register_all_arguments(arg_parser)
        arg_parser.error = error
        for action in vars(arg_parser)["_actions"]:
            if action.dest == "shrink":  # for those who shrink inputs of xDSL; its statuses are not AMK's
                action.help = argparse.SUPPRESS

    def setup_pipeline(self) -> None:
        if self.args.shrink:
            raise UsageError("--shrink is not an option of amk-opt; see `amk-opt --help`")
        try:
            super().setup_pipeline()
        except (ArgSpecParseError, ValueError, TypeError, ImportError) as e:
            raise UsageError(f"-p: {' '.join(str(e).split())}; `amk-opt --help` lists the passes") from e

    def prepare_input(self) -> tuple[list[tuple[IO[bytes], int]], str]:
        if self.args.input_file is None:
            require_stdin("amk-opt")
        try:
            return super().prepare_input()
        except ValueError as e:
            raise UsageError(f"{self.get_input_name()}: {e}; expected .mlir, or the option -f mlir") from e

    def prepare_output(self) -> IO[str]:
        # A file is written when all went well, and then at once: xDSL would truncate it before it parses.
        self._output = _KeptText()
        return sys.stdout if self.args.output_file is None else self._output

    def output_resulting_program(self, prog: ModuleOp) -> str:
        try:
            return super().output_resulting_program(prog)
        except (AmkError, DiagnosticException, RecursionError, MemoryError):
            raise
        except Exception as e:
            name = self.args.target.partition("{")[0]
            if name == "mlir" or name in get_all_targets():
                raise
            # xDSL's own: packages that are not installed, and ops that they cannot print, in all kinds of exceptions
            message = " ".join(str(e).split()) or type(e).__name__
            raise UsageError(f"-t {name}: xDSL cannot print this module as {name}: {message}") from e

    def run(self) -> None:
        try:
            super().run()
        except ParseError as e:
            raise UsageError(f"{e.span.get_location()}: {' '.join(e.msg.split())}") from e
        except (DiagnosticException, UnregisteredConstructException) as e:
            raise UsageError(f"{self.get_input_name()}: {e}") from e
        except UnicodeDecodeError as e:
            raise UsageError(f"{self.get_input_name()}: not UTF-8 text ({e.reason})") from e
        if self.args.output_file is not None:
            write_atomically(Path(self.args.output_file), self._output.getvalue().encode())


def main(args: Sequence[str] | None = None) -> None:
    """The entry point of the script `amk-opt`."""
    sys.exit(run_tool("amk-opt", lambda: _run(args)))


def _run(args: Sequence[str] | None) -> None:
    write_utf8()
    try:
        driver = AmkOptMain("AMK's modular optimizer driver", args)
    except ArgSpecParseError as e:
        raise UsageError(f"-t: {' '.join(str(e).split())}; see `amk-opt --help`") from e
    driver.run()
