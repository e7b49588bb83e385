"""amk-opt from the command line: what it says on bad input, with which status, how fast it starts."""

from pathlib import Path

import pytest
from cpu_time import cpu_seconds

GOOD = "builtin.module {\n}\n"
PRINTED = GOOD + "\n"  # xDSL ends each module with an empty line


def one_line(stderr: str, *parts: str) -> None:
    """`stderr` is one line that contains all `parts`."""
    assert stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    for part in parts:
        assert part in stderr


def test_starts_fast(tool):
    """Half a second is the aim; a slow machine gets twice that."""
    tool("amk-opt", "--version")  # byte code is compiled once
    best = float("inf")
    for _ in range(3):
        start = cpu_seconds()
        assert tool("amk-opt", stdin=GOOD).stdout == PRINTED
        best = min(best, cpu_seconds() - start)
    assert best < 1.0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("builtin.module {\n  nonsense\n}", [":3:", "nonsense"]),
        ("builtin.module {", ["bad.mlir:1:"]),
        ('"no.such"() : () -> ()', ["bad.mlir:1:", "no.such"]),
        ("graph.model @x max_seq 0 {\n}", ["bad.mlir: "]),
    ],
)
def test_malformed_text(tool_here, tmp_path: Path, text: str, parts: list[str]):
    file = tmp_path / "bad.mlir"
    file.write_text(text)
    run = tool_here("amk-opt", file, "-o", tmp_path / "out.mlir")
    assert run.returncode == 2
    one_line(run.stderr, "amk-opt: error: ", *parts)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.mlir"]


def within_seconds(seconds: float, tool, *args: str | Path) -> str:
    """What amk-opt says on stderr; status 2, and not much later, in CPU time."""
    start = cpu_seconds()
    run = tool("amk-opt", *args)
    assert run.returncode == 2
    assert cpu_seconds() - start < seconds
    return run.stderr


def test_a_string_that_does_not_end(tool, tmp_path: Path):
    """xDSL's pattern takes exponential time; see runtime/xdsl_fixes.py."""
    file = tmp_path / "bad.mlir"
    file.write_text('builtin.module attributes {a = "' + "x" * 2000)
    one_line(within_seconds(10, tool, file), "bad.mlir:1:", "before closing string literal")


def test_the_string_pattern():
    """AMK's pattern is that of xDSL in linear time. If xDSL has another one: is AMK's still needed?"""
    import inspect
    import re

    from xdsl.utils import mlir_lexer

    from amk.runtime import xdsl_fixes

    theirs = r"""r'"(?:[^"\\\n\v\f]+|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*"'"""
    assert theirs in inspect.getsource(mlir_lexer)
    used = getattr(mlir_lexer.MLIRLexer, xdsl_fixes.PATTERN_NAME)
    assert used.pattern == xdsl_fixes.STRING_PATTERN
    for text in ('""', '"a"b"', r'"\"\n\t\\"', r'"\0aé"', r'"\x"', '"\n"', r'"a\"', '"a'):
        found, expected = used.match(text), re.match(theirs[2:-1], text)
        assert (found and found[0]) == (expected and expected[0]), text


@pytest.mark.parametrize(
    "text",
    [
        "builtin.module {\n" * 3000 + "}\n" * 3000,
        "builtin.module attributes {a = " + "[" * 5000 + "]" * 5000 + "} {}",
    ],
)
def test_deeply_nested(tool, tmp_path: Path, text: str):
    file = tmp_path / "bad.mlir"
    file.write_text(text)
    one_line(within_seconds(30, tool, file), "nested too deeply")


def test_too_many_sms(tool, tmp_path: Path):
    file = tmp_path / "bad.mlir"
    file.write_text(
        'queue.kernel @k target "reference" sms 100000000 max_seq 8 tokens 1 {\n'
        "  queue.program sms 0 to 100000000 stream {} body {}\n}\n"
    )
    one_line(within_seconds(10, tool, file, "-p", "verify-schedule"), "sms must be at most 1024, found 100000000")


@pytest.mark.parametrize("target", ["riscv-asm", "x86-asm"])
def test_what_a_target_of_xdsl_cannot_print(tool_here, target: str):
    run = tool_here("amk-opt", "-t", target, stdin="%0 = arith.constant 1 : i32")
    assert run.returncode == 2
    one_line(run.stderr, f"-t {target}: xDSL cannot print this module")


def test_not_text(tool_here, tmp_path: Path):
    file = tmp_path / "bad.mlir"
    file.write_bytes(b"\xff\xfe\x00\x80")
    run = tool_here("amk-opt", file)
    assert run.returncode == 2
    one_line(run.stderr, "not UTF-8")


def test_a_failing_verifier(tool_here):
    run = tool_here("amk-opt", stdin='%0 = "arith.addi"() : () -> i32')
    assert run.returncode == 2
    one_line(run.stderr, "amk-opt: error: ")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["no/such.mlir"], ["no/such.mlir: No such file"]),
        (["-p", "no-such-pass"], ["-p", "no-such-pass"]),
        (["-p", "canonicalize{"], ["-p", "Expected argument name"]),
        (["-p", "tile-tasks{no-such-option=1}"], ["-p", "no_such_option"]),
        (["-t", "mlir{"], ["-t", "Expected argument name"]),
        (["-t", "mps"], ["invalid choice: 'mps'", "see `amk-opt --help`"]),
        (["--no-such-option"], ["unrecognized arguments", "see `amk-opt --help`"]),
        (["--shrink"], ["--shrink is not an option of amk-opt"]),
        (["-p", "graph-to-queue{target=reference sms=100000}"], ["at most 1024 SMs, found 100000"]),
        (["-p", "place-tasks{target=sm_90a sms=1000000000}"], ["at most 132 SMs, found 1000000000"]),
        (["-o", "no/such/out.mlir"], ["no/such/out.mlir: cannot write: No such file or directory"]),
    ],
)
def test_bad_arguments(tool_here, args: list[str], parts: list[str]):
    run = tool_here("amk-opt", *args, stdin=GOOD)
    assert run.returncode == 2
    one_line(run.stderr, *parts)


def test_unknown_target(tool_here):
    run = tool_here("amk-opt", "-t", "no-such-target", stdin=GOOD)
    assert run.returncode == 2
    assert "cuda-source" in run.stderr
    assert "Traceback" not in run.stderr


def test_unknown_extension(tool_here, tmp_path: Path):
    file = tmp_path / "model.txt"
    file.write_text(GOOD)
    run = tool_here("amk-opt", file)
    assert run.returncode == 2
    one_line(run.stderr, "model.txt", "expected .mlir")
    assert tool_here("amk-opt", "-f", "mlir", file).stdout == PRINTED


def test_split_input(tool):
    run = tool("amk-opt", "--split-input-file", stdin=f"{GOOD}// -----\n{GOOD}")
    assert run.stdout == f"{PRINTED}// -----\n{PRINTED}"


def test_verify_diagnostics(tool_here):
    run = tool_here("amk-opt", "--verify-diagnostics", stdin='%0 = "arith.addi"() : () -> i32')
    assert run.returncode == 0
    assert "expected" in run.stdout.lower()


def test_debug_shows_the_traceback(tool):
    run = tool("amk-opt", stdin="nonsense", env={"AMK_DEBUG": "1"})
    assert run.returncode == 1
    assert "Traceback" in run.stderr


def test_output_replaces_whole(tool_here, tmp_path: Path):
    """A failing run leaves the former output as it was."""
    out = tmp_path / "out.mlir"
    assert tool_here("amk-opt", "-o", out, stdin=GOOD).returncode == 0
    assert out.read_text() == PRINTED
    assert tool_here("amk-opt", "-o", out, stdin="nonsense").returncode == 2
    assert out.read_text() == PRINTED
    assert [p.name for p in tmp_path.iterdir()] == ["out.mlir"]
