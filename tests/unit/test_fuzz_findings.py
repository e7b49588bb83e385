"""Inputs that once crashed, hung or filled the memory, reduced, and some seconds of new ones in every run.

tests/fuzz/__init__.py says what a finding is. Every input here is refused in one line, or accepted.
"""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from cpu_time import cpu_seconds
from fuzz.execute import Ending, run_tool

TESTS = Path(__file__).parents[1]

SMALL = """queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<2xf32>
  task.buffer @out output : tensor<2xf32>
  task.family @a (t = 2) {
    %v = task.load @in[0 : 1] : tensor<1xf32>
    task.store %v, @out[t : 1] : tensor<1xf32>
  }
  queue.counter @c[1]
  queue.program sms 0 to 2 stream {} body {
    task.for i = 0 to 1 { queue.signal @c[0] queue.wait @c[0] >= 1 }
    queue.run @a[] on cyclic 0
  }
}
"""


def run(*command: str | Path) -> Ending:
    """A tool in this process; FILE.mlir arguments are read. It must not crash."""
    args = [str(c) for c in command]
    text = next((Path(a).read_bytes() for a in args if a.endswith(".mlir") and Path(a).is_file()), b"")
    end = run_tool(args, text)
    assert end.problem == "", end.problem
    return end


def run_process(tool: str, *args: str | Path, mebibytes: int = 2048) -> "subprocess.CompletedProcess[str]":
    """A tool with little memory (its libraries take half a gibibyte of addresses), stopped if it hangs."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))

    return subprocess.run(
        [str(Path(sys.executable).with_name(tool)), *map(str, args)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=200,
        check=False,
        preexec_fn=limit,
    )


def refused(result: "Ending | subprocess.CompletedProcess[str]", *parts: str) -> None:
    """The answer is one line on stderr that contains all parts, and status 2."""
    status, text = (result.status, result.error) if isinstance(result, Ending) else (result.returncode, result.stderr)
    assert status == 2, text[-2000:]
    assert text.count("\n") == 1, text[-2000:]
    assert "internal error" not in text
    for part in parts:
        assert part in text, text[-2000:]


@pytest.fixture
def mlir(tmp_path: Path):
    """Writes a file."""

    def write(text: str | bytes) -> Path:
        file = tmp_path / "input.mlir"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    return write


# ---- few words that stand for much ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("@c[1]", "@c[1000000000000]", ["the size of a counter must be at most 4194304"]),
        ("0 to 1 {", "0 to 1000000000 {", ["at most 8388608 events, found at least 4000000002"]),
        ("0 to 1 {", "0 to 1000000 {", ["at most 262144 ops", "found at least 3000001"]),
        ("0 to 1 {", "0 to 9223372036854775808 {", ["a loop's bound must be at most 2147483647"]),
        ("0 to 1 {", "-9223372036854775809 to 1 {", ["a loop's bound must be at least -2147483647"]),
        (">= 1 ", ">= 10000000000 ", ["a wait is for at most 8388608 signals"]),
        ("max_seq 4", "max_seq 9223372036854775808", ["max_seq must be at most 2147483647"]),
        ("tokens 1", "tokens -9223372036854775809", ["tokens must be at least -2147483647"]),
        ("sms 2", "sms 18446744073709551617", ["sms must be at most 1024"]),
        ("sms 0 to 2", "sms 0 to 18446744073709551618", ["an SM must be at most 1024"]),
        ("t = 2", f"t = {'9' * 900}", ["dimension 0 of @out[t : 1] covers"]),
        ("t = 2", f"t = {'9' * 5000}", ["an integer has at most 1000 digits, found 5000"]),
        ("(t = 2)", "(t = 2, u = 65536, v = 65536)", ["a family has at most 2147483647 tasks"]),
        ("@in input : tensor<2xf32>", f"@in input : tensor<{'1x' * 33}f32>", ["a tensor has at most 32 dimensions"]),
    ],
)
def test_sizes(mlir, old: str, new: str, parts: list[str]):
    assert old in SMALL
    refused(run("amk", "verify", mlir(SMALL.replace(old, new, 1))), *parts)


def test_a_loop_in_loops(mlir):
    """The product of the trip counts has more digits than Python prints."""
    loops = "".join(f"task.for n{i} = 0 to 2147483647 {{ " for i in range(480)) + "queue.signal @c[0] " + "} " * 480
    text = SMALL.replace("queue.run", f"{loops}\n    queue.run")
    result = run("amk", "verify", mlir(text))
    assert result.status == 2
    assert "at least 9223372036854775808" in result.error or "nested too deeply" in result.error


def test_a_long_loop(mlir):
    """What is allowed is decided, in seconds."""
    result = run("amk", "verify", mlir(SMALL.replace("0 to 1 {", "0 to 60000 {")))
    assert result.status == 0, result.error
    assert "240,002 events" in result.output


def test_more_clocks_than_fit(mlir):
    """Each of a million waits would keep what its SM has seen of 1024 others: rejected as undecided, not out of memory."""
    many = SMALL.replace("sms 2", "sms 1024").replace("0 to 2 stream", "0 to 1024 stream")
    end = run("amk", "verify", mlir(many.replace("0 to 1 {", "0 to 600 {")))
    assert end.status == 2
    assert "undecided: 1228802 events on 1024 SMs wait too often" in end.output


def test_an_offset_of_any_size(mlir):
    result = run("amk", "verify", mlir(SMALL.replace("cyclic 0", f"cyclic {'9' * 30}")))
    assert result.status == 0, result.error


def test_expanding_too_much(mlir):
    large = SMALL.replace("tensor<2xf32>", "tensor<500000xf32>").replace("t = 2", "t = 500000")
    refused(run("amk-opt", mlir(large), "-p", "expand-queues"), "500004 events, at most 262144 are spelled out")


def test_replaying_more_than_there_is(mlir, tmp_path: Path):
    """The output takes 8 GiB; nobody wrote most of it."""
    file = mlir(SMALL.replace("@out output : tensor<2xf32>", "@out output : tensor<2147483647xf32>"))
    witness = tmp_path / "witness.json"
    assert run("amk", "verify", file, "--witness", witness).status == 2
    refused(run_process("amk", "replay", file, witness), "GiB", "this process can have")


def test_searching_more_words_than_fit(mlir, tmp_path: Path):
    """A deadlock of 51 GiB of tagged words: rejected, without a witness."""
    many = SMALL.replace(
        "  queue.counter", "  task.buffer @t scratch tagged : tensor<82928x82928xf32>\n  queue.counter"
    )
    file = mlir(many.replace("task.load @in[0 : 1] : tensor<1xf32>", "task.load @t[0, 0 : 1] : tensor<1xf32>"))
    end = run("amk", "verify", file, "--witness", tmp_path / "witness.json")
    assert end.status == 2
    assert "deadlock" in end.output
    assert "too large to search" in end.output


def test_a_gather_from_a_scalar(mlir):
    refused(
        run(
            "amk-opt",
            mlir(
                """task.program @p max_seq 4 tokens 1 {
  task.buffer @t input : tensor<1xi32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<f32>
  task.buffer @o output : tensor<1xf32>
  task.family @a () {
    %i = task.load @t[0 : 1] : tensor<1xi32>
    %v = task.gather %i, @w[] : (tensor<1xi32>) -> tensor<1xf32>
    task.store %v, @o[0 : 1] : tensor<1xf32>
  }
  task.order { task.call @a[] }
}
"""
            ),
        ),
        "a gather takes rows of a buffer of rank 1 or more",
    )


def test_an_operand_named_like_an_argument_of_its_region(mlir):
    """The layers' operand %b is not their argument %b."""
    text = """graph.model @m max_seq 8 {
  graph.weight @embed from #amk.checkpoint<"embed"> : tensor<5x4xf32>
  graph.step (%token : tensor<1xi32>, %pos : index) {
    %x = graph.embedding %token, @embed : (tensor<1xi32>) -> tensor<1x4xf32>
    %y, %z = graph.layers 3 (%a = %b, %b = %x) : tensor<1x4xf32>, tensor<1x4xf32> {
      graph.yield %b, %a : tensor<1x4xf32>, tensor<1x4xf32>
    }
    %s = graph.add %y, %z : tensor<1x4xf32>
    %l = graph.linear %s, @embed : (tensor<1x4xf32>) -> tensor<1x5xf32>
    %next = graph.argmax %l : tensor<1x5xf32> -> tensor<1xi32>
    graph.return %l, %next : tensor<1x5xf32>, tensor<1xi32>
  }
}
"""
    refused(run("amk-opt", mlir(text)), "values used but not defined: [%b]")
    assert run("amk-opt", mlir(text.replace("%a = %b", "%a = %x"))).status == 0


# ---- generic syntax: properties that nobody has checked yet ----------------------------------------------------------


def _generic(tmp_path: Path) -> str:
    file = tmp_path / "seed.mlir"
    file.write_text(SMALL)
    return run("amk-opt", file, "--print-op-generic").output


PROPERTIES = ("sym_name", "max_seq", "tokens", "domain", "type", "kind", "size", "first", "index", "start", "stop")


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_that_others_look_at(tmp_path: Path, mlir, name: str):
    """One missing, or of the wrong kind, on each op in turn: ops inside and beside it are verified before it."""
    text = _generic(tmp_path)
    places = list(re.finditer(rf'(?<=[{{,]) ?{name} = (?:[^<>,{{}}"]|"[^"]*"|<[^<>]*>)*,?', text))
    assert places
    for match in places:
        for new in ("", f" {name} = 1.5 : f32,", f" {name} = @x,"):
            damaged = (text[: match.start()] + new + text[match.end() :]).replace(",}>", "}>").replace("<{}> ", "")
            file = mlir(damaged)
            for command in (["amk-opt", str(file)], ["amk", "verify", str(file)]):
                assert run(*command).status == 2, damaged


# ---- deep, long, not text ------------------------------------------------------------------------------------------

DEEP = 100_000


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("builtin.module {\n" * DEEP, ["nested too deeply"]),
        ("builtin.module attributes {a = " + "[" * DEEP, ["nested too deeply"]),
        ("builtin.module attributes {a = " + "{a = " * DEEP, ["nested too deeply"]),
        ("builtin.module attributes {a = " + "tensor<2x" * DEEP, ["nested too deeply"]),
        ("builtin.module attributes {a = dense<" + "[" * DEEP, ["nested too deeply"]),
        ("builtin.module attributes {a = affine_map<(d0) -> (" + "(" * DEEP, ["nested too deeply"]),
        ("builtin.module attributes {a = #amk.linear<" + "-" * DEEP + "1>} {}", ["nested too deeply"]),
        ("(" * DEEP, [":1:1: "]),
        ("builtin.module attributes {a = 1 : i" + "9" * 5000 + "} {}", ["type expected"]),
        ('%0 = "test.op"() : () -> i32 "test.op"(%0#' + "9" * 5000 + ") : (i32) -> ()", ["SSA value tuple index"]),
        ("builtin.module attributes {a = 0x" + "f" * 5000 + " : index} {}", ["at most 1000 digits"]),
        ("builtin.module attributes {a = \u246040 : index} {}", ["digits are 0 to 9, found '\u246040'"]),
        ("builtin.module attributes {a = \u0664 : index} {}", ["digits are 0 to 9, found '\u0664'"]),
        ("builtin.module attributes {a = \u0664.5 : f32} {}", ["digits are 0 to 9, found '\u0664.5'"]),
        ("builtin.module attributes {a = dense<1> : tensor<1000000000xi32>}", ["dense literal has at most 1048576"]),
        ("a" * 1_000_000, ["is not registered"]),
        ("", ["Could not parse entire input"]),
        ("\ufeffbuiltin.module {}", [":1:1: "]),
        (b"builtin.module {}\xff", ["not UTF-8 text"]),
        ("builtin.module {}".encode("utf-16"), ["not UTF-8 text"]),
        ("builtin.module {}\0", [":1:18: "]),
    ],
    ids=lambda value: repr(value[:50]) if isinstance(value, str | bytes) else None,
)
def test_texts(mlir, text: str | bytes, parts: list[str]):
    start = cpu_seconds()
    refused(run_process("amk-opt", mlir(text)), *parts)
    assert cpu_seconds() - start < 60


@pytest.mark.parametrize("text", [SMALL, "builtin.module {\n" * DEEP, SMALL.encode("utf-16"), ""])
def test_what_verify_refuses_amk_opt_refuses(mlir, text: str | bytes):
    file = mlir(text)
    assert (run("amk", "verify", file).status == 2) == (run("amk-opt", file).status == 2)


def test_line_ends_of_windows(mlir):
    assert "safe" in run("amk", "verify", mlir(SMALL.replace("\n", "\r\n"))).output


def test_a_name_of_a_million_letters(mlir):
    name = "a" * 1_000_000
    result = run("amk-opt", mlir(f"task.program @{name} max_seq 4 tokens 1 {{ task.order {{}} }}"))
    assert result.status == 0
    assert name in result.output


def test_an_index_expression_of_many_terms(mlir):
    """Once quadratic: minutes for this one."""
    terms = " + ".join(f"i{n}" for n in range(20_000))
    start = cpu_seconds()
    assert run("amk-opt", mlir(f"builtin.module attributes {{a = #amk.linear<{terms}>}} {{}}")).status == 0
    assert cpu_seconds() - start < 60


@pytest.mark.parametrize("piece", ["a", " ", "(", "// x\n", "\xff\x00", '"'], ids=repr)
def test_100_megabytes(mlir, piece: str):
    file = mlir(piece.encode("latin-1") * (100_000_000 // len(piece)))
    try:
        result = run_process("amk-opt", file)
        assert result.returncode == 2
        assert "input.mlir:" in result.stderr[:500]
        assert "internal error" not in result.stderr[:500]
    finally:
        file.unlink()


@pytest.mark.parametrize("command", [["amk-opt"], ["amk", "verify"], ["amk", "replay"], ["amk", "info"]])
def test_a_folder(tmp_path: Path, command: list[str]):
    folder = tmp_path / "folder.mlir"
    folder.mkdir()
    refused(run(*command, folder, *([folder] if "replay" in command else [])), "folder.mlir")


@pytest.mark.parametrize("command", [["info"], ["import", "-o", "out.mlir"], ["compile", "-o", "out"]])
def test_mlir_where_a_model_is_expected(mlir, command: list[str]):
    refused(run("amk", *command, mlir(SMALL)), "input.mlir")


@pytest.mark.parametrize("name", ["modèle", "\u183bk", "模型", "a b", "say \\22hi\\22"])
@pytest.mark.parametrize("form", [[], ["--print-op-generic"]])
def test_names_that_are_not_ascii(mlir, tmp_path: Path, name: str, form: list[str]):
    """xDSL prints the bytes of such a string as escapes, and took what it printed for an attribute of bytes."""
    again = tmp_path / "printed.mlir"
    first = run("amk-opt", mlir(f'task.program @"{name}" max_seq 4 tokens 1 {{ task.order {{}} }}'), *form)
    assert first.status == 0, first.error
    again.write_text(first.output, encoding="utf-8")
    assert run("amk-opt", again, *form).output == first.output


# ---- the patterns of xDSL that AMK replaces --------------------------------------------------------------------------


def test_the_pattern_of_spaces():
    """AMK's pattern finds the same spaces and comments as xDSL's, in linear space. If xDSL has another: is it needed?"""
    import inspect

    from xdsl.utils import mlir_lexer

    from amk.runtime import xdsl_fixes

    theirs = r"((//[^\n]*(\n)?)|(\s+))*"
    assert f'r"{theirs}"' in inspect.getsource(mlir_lexer)
    assert getattr(mlir_lexer.MLIRLexer, xdsl_fixes.SPACE_NAME).pattern == xdsl_fixes.SPACE_PATTERN
    for text in ("", " ", "a", "// a", "// a\n b", " \n\t// a\r\n//\n// é\n\n x", "/ /", "//", "\u2003 "):
        ours, other = (re.match(p, text, re.ASCII) for p in (xdsl_fixes.SPACE_PATTERN, theirs))
        assert ours is not None and other is not None and ours[0] == other[0], text


# ---- new inputs in every run -----------------------------------------------------------------------------------------


def test_fresh_inputs(tmp_path: Path):
    """Ten seconds of the fuzzer with a new seed. On a failure: `python tests/fuzz/worker.py --seed SEED`."""
    found = tmp_path / "findings"
    worker = [sys.executable, str(TESTS / "fuzz" / "worker.py"), "--seconds", "10", "--findings", str(found)]
    result = subprocess.run(worker, capture_output=True, text=True, timeout=300, check=False, env={**os.environ})
    report = json.loads(result.stdout) if result.returncode in (0, 1) else {"findings": [result.stderr]}
    kept = "\n".join(p.read_text(encoding="utf-8") for p in sorted(found.glob("*.txt"))) if found.exists() else ""
    assert report["findings"] == [], f"seed {report.get('seed')}\n{kept}"
    assert report["executions"] > 50
    assert any(status.endswith(": 0") for status in report["statuses"])


def test_the_recorded_run_left_nothing_open():
    recorded = json.loads((TESTS.parent / "benchmarks" / "results" / "fuzz_tools.json").read_text())["results"]
    assert recorded["open_findings"] == []
    assert recorded["executions"] > 5_000
