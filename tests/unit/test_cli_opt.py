"""amk-opt as a program: what it says on bad input, with which status, how fast it starts."""

import time
from pathlib import Path

import pytest

GOOD = "builtin.module {\n}\n"
PRINTED = GOOD + "\n"  # xDSL ends each module with an empty line


def one_line(stderr: str, *parts: str) -> None:
    """`stderr` is one line that contains all `parts`."""
    assert stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    for part in parts:
        assert part in stderr


def test_starts_fast(tool):
    """Half a second is the aim on an idle machine; a busy one gets twice that."""
    tool("amk-opt", "--version")  # byte code is compiled once
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        assert tool("amk-opt", stdin=GOOD).stdout == PRINTED
        best = min(best, time.perf_counter() - start)
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
def test_malformed_text(tool, tmp_path: Path, text: str, parts: list[str]):
    file = tmp_path / "bad.mlir"
    file.write_text(text)
    run = tool("amk-opt", file, "-o", tmp_path / "out.mlir")
    assert run.returncode == 2
    one_line(run.stderr, "amk-opt: error: ", *parts)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.mlir"]


def test_not_text(tool, tmp_path: Path):
    file = tmp_path / "bad.mlir"
    file.write_bytes(b"\xff\xfe\x00\x80")
    run = tool("amk-opt", file)
    assert run.returncode == 2
    one_line(run.stderr, "not UTF-8")


def test_a_failing_verifier(tool):
    run = tool("amk-opt", stdin='%0 = "arith.addi"() : () -> i32')
    assert run.returncode == 2
    one_line(run.stderr, "amk-opt: error: ")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["no/such.mlir"], ["no/such.mlir: No such file"]),
        (["-p", "no-such-pass"], ["-p", "no-such-pass"]),
        (["-p", "canonicalize{"], ["-p", "Expected argument name"]),
        (["-p", "tile-tasks{no-such-option=1}"], ["-p", "no_such_option"]),
        (["-o", "no/such/out.mlir"], ["no/such/out.mlir: cannot write: No such file or directory"]),
    ],
)
def test_bad_arguments(tool, args: list[str], parts: list[str]):
    run = tool("amk-opt", *args, stdin=GOOD)
    assert run.returncode == 2
    one_line(run.stderr, *parts)


def test_unknown_target(tool):
    run = tool("amk-opt", "-t", "no-such-target", stdin=GOOD)
    assert run.returncode == 2
    assert "cuda-source" in run.stderr
    assert "Traceback" not in run.stderr


def test_unknown_extension(tool, tmp_path: Path):
    file = tmp_path / "model.txt"
    file.write_text(GOOD)
    run = tool("amk-opt", file)
    assert run.returncode == 2
    one_line(run.stderr, "model.txt", "expected .mlir")
    assert tool("amk-opt", "-f", "mlir", file).stdout == PRINTED


def test_split_input(tool):
    run = tool("amk-opt", "--split-input-file", stdin=f"{GOOD}// -----\n{GOOD}")
    assert run.stdout == f"{PRINTED}// -----\n{PRINTED}"


def test_verify_diagnostics(tool):
    run = tool("amk-opt", "--verify-diagnostics", stdin='%0 = "arith.addi"() : () -> i32')
    assert run.returncode == 0
    assert "expected" in run.stdout.lower()


def test_debug_shows_the_traceback(tool):
    run = tool("amk-opt", stdin="nonsense", env={"AMK_DEBUG": "1"})
    assert run.returncode == 1
    assert "Traceback" in run.stderr


def test_output_replaces_whole(tool, tmp_path: Path):
    """A failing run leaves the former output as it was."""
    out = tmp_path / "out.mlir"
    assert tool("amk-opt", "-o", out, stdin=GOOD).returncode == 0
    assert out.read_text() == PRINTED
    assert tool("amk-opt", "-o", out, stdin="nonsense").returncode == 2
    assert out.read_text() == PRINTED
    assert [p.name for p in tmp_path.iterdir()] == ["out.mlir"]
