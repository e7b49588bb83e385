"""`amk-opt`: parses .mlir, runs passes, prints .mlir or another target. xDSL's driver with AMK's error messages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import IO

from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    ParseError,
    UnregisteredConstructException,
)
from xdsl.xdsl_opt_main import xDSLOptMain

from ..amk_ir.errors import UsageError
from ..runtime.files import write_atomically
from .errors import run_tool


class _KeptText(StringIO):
    """Text that is still there after xDSL closed it."""

    def close(self) -> None:
        pass


class AmkOptMain(xDSLOptMain):
    """xDSL's driver; AMK's dialects, passes and targets come in through the Universe entry point."""

    version_format = "amk-opt of AMK 0.1.0, built on xDSL {xdsl_version}"

    def setup_pipeline(self) -> None:
        try:
            super().setup_pipeline()
        except (ArgSpecParseError, ValueError, TypeError) as e:
            raise UsageError(f"-p: {' '.join(str(e).split())}; `amk-opt --help` lists the passes") from e

    def prepare_input(self) -> tuple[list[tuple[IO[bytes], int]], str]:
        try:
            return super().prepare_input()
        except ValueError as e:
            raise UsageError(f"{self.get_input_name()}: {e}; expected .mlir, or the option -f mlir") from e

    def prepare_output(self) -> IO[str]:
        # A file is written when all went well, and then at once: xDSL would truncate it before it parses.
        self._output = _KeptText()
        return sys.stdout if self.args.output_file is None else self._output

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
    sys.exit(
        run_tool(
            "amk-opt",
            lambda: AmkOptMain("AMK's modular optimizer driver", args).run(),
        )
    )
