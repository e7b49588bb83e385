"""amk verify and amk replay from the command line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from decoder_kernels import decoder
from rejected_kernels import CASES, TINY, changed


def one_line(stderr: str, *parts: str) -> None:
    assert stderr.startswith("amk: error: "), stderr
    assert stderr.count("\n") == 1, stderr
    for part in parts:
        assert part in stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    for name, text in {**CASES, "safe": decoder(TINY)}.items():
        (folder / f"{name}.mlir").write_text(text)
    return folder


def test_safe(tool, files: Path, tmp_path: Path):
    run = tool("amk", "verify", files / "safe.mlir", "--witness", tmp_path / "w.json")
    assert (run.returncode, run.stderr) == (0, "")
    assert re.fullmatch(r".*safe.mlir: schedule @decoder is safe on sm_90a: \d+ tasks, \d+ events, 2 SMs; decided in \d+\.\d\d s\n", run.stdout)  # fmt: skip
    assert not (tmp_path / "w.json").exists()


SCHEMA = {"amk_verify": int, "file": str, "accepted": bool, "error": (str, type(None)), "kernels": list}
KERNEL = {"kernel": str, "digest": str, "target": str, "accepted": bool, "seconds": float, "counts": dict, "diagnostics": list, "redundant": (dict, type(None)), "fix": (dict, type(None))}  # fmt: skip
FIX = {"safe": bool, "counters": int, "signals": int, "waits": int, "added": list, "refused": (str, type(None))}
DIAGNOSTIC = {"rule": str, "message": str, "execution": str, "remedy": str, "occurrences": int, "ops": list, "sms": list, "tasks": list, "regions": list, "text": str, "witness": (dict, type(None)), "no_witness": (str, type(None))}  # fmt: skip
COUNTS = {"sms", "tasks", "waits", "signals", "events", "fetches", "counters"}


def checked(data: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    assert list(data) == list(schema)
    for name, kind in schema.items():
        assert isinstance(data[name], kind), name
    return data


@pytest.mark.parametrize("case", ["safe", "race", "resources", "tasks_doubled", "bounds"])
def test_json(tool_here, files: Path, case: str):
    """The documented schema: its names, their order and types."""
    run = tool_here("amk", "verify", files / f"{case}.mlir", "--json", "--redundant")
    report = checked(json.loads(run.stdout), SCHEMA)
    assert report["amk_verify"] == 1
    assert run.returncode == (0 if report["accepted"] else 2)
    assert report["accepted"] == (case == "safe")
    assert (report["error"] is not None) == (case == "bounds")
    for entry in report["kernels"]:
        kernel = checked(entry, KERNEL)
        assert set(kernel["counts"]) == COUNTS
        assert kernel["accepted"] == (not kernel["diagnostics"])
        assert (kernel["redundant"] is not None) == kernel["accepted"]
        for diagnostic in kernel["diagnostics"]:
            checked(diagnostic, DIAGNOSTIC)
            assert (diagnostic["witness"] is None) == (diagnostic["no_witness"] is not None)
            if diagnostic["witness"] is not None:
                assert diagnostic["witness"]["digest"] == kernel["digest"]


@pytest.mark.parametrize("name", ["nowhere.mlir", "."])
def test_json_of_what_cannot_be_read(tool_here, tmp_path: Path, name: str):
    run = tool_here("amk", "verify", tmp_path / name, "--json")
    report = checked(json.loads(run.stdout), SCHEMA)
    assert run.returncode == 2
    assert not report["accepted"]
    assert report["error"].startswith(str(tmp_path / name))


def test_the_schema_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "verify.md").read_text()
    for name in {*SCHEMA, *KERNEL, *DIAGNOSTIC, *COUNTS, *FIX}:
        assert f"`{name}`" in text, name


def test_the_example_is_real(tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """docs/verify.md shows what the tools print."""
    page = (Path(__file__).parents[2] / "docs" / "verify.md").read_text()
    blocks = re.findall(r"```(?:mlir)?\n(.*?)```", page, re.DOTALL)
    (tmp_path / "small.mlir").write_text(blocks[0])
    monkeypatch.chdir(tmp_path)
    shown = ""
    for command in ("amk verify small.mlir --witness bad.json", "amk replay small.mlir bad.json"):
        shown += f"$ {command}\n{tool(*command.split()).stdout}"
    assert shown == blocks[1]


def test_another_target(tool_here, files: Path, tmp_path: Path):
    """The grid fits, the ring does not; a witness is of the kernel as the file has it."""
    run = tool_here("amk", "verify", files / "safe.mlir", "--target", "sm_86")
    assert run.returncode == 2
    assert "a block of target sm_86 has" in run.stdout
    witness = tmp_path / "w.json"
    assert tool_here("amk", "verify", files / "race.mlir", "--target", "sm_90a", "--witness", witness).returncode == 2
    assert tool_here("amk", "replay", files / "race.mlir", witness).returncode == 0
    run = tool_here("amk", "verify", files / "safe.mlir", "--target", "sm_1")
    assert run.returncode == 2
    one_line(run.stderr, "--target", "sm_1")


def test_redundant_waits(tool_here, tmp_path: Path):
    file = tmp_path / "kernel.mlir"
    wait = "queue.wait @a_done[layer] all\n"
    file.write_text(changed(wait, f"{wait} queue.wait @qkv_done[layer] all\n"))
    run = tool_here("amk", "verify", file, "--redundant")
    assert run.returncode == 0
    assert "1 of 8 waits could be left out, each alone\n  `queue.wait @qkv_done[layer] all`: 2 events" in run.stdout
    run = tool_here("amk", "verify", file, "--redundant", "--tries", "1")
    assert "7 waits were not tried (--tries 8)" in run.stdout


# ---- --fix --------------------------------------------------------------------------------------------------------


def test_the_example_of_a_fix_is_real(tool, tool_here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = (Path(__file__).parents[2] / "docs" / "verify.md").read_text()
    blocks = re.findall(r"```(?:mlir)?\n(.*?)```", page, re.DOTALL)
    command = "amk verify small.mlir --fix fixed.mlir"
    (shown,) = [block for block in blocks if block.startswith(f"$ {command}\n")]
    (tmp_path / "small.mlir").write_text(blocks[0])
    monkeypatch.chdir(tmp_path)
    run = tool(*command.split())
    assert (run.returncode, run.stderr) == (0, "")
    assert shown == f"$ {command}\n{run.stdout}"
    assert tool_here("amk", "verify", "fixed.mlir").returncode == 0
    assert tool_here("amk", "verify", "small.mlir").returncode == 2, "the file itself stays as it is"


def test_fix_of_what_is_safe(tool_here, files: Path, tmp_path: Path):
    first, second = tmp_path / "first.mlir", tmp_path / "second.mlir"
    run = tool_here("amk", "verify", files / "safe.mlir", "--fix", first)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith("\nfixed: nothing to add\n")
    assert tool_here("amk", "verify", first, "--fix", second).returncode == 0
    assert first.read_text() == second.read_text()


def test_what_cannot_be_fixed_is_not_written(tool_here, files: Path, tmp_path: Path):
    """Neither it nor a kernel beside it that can."""
    out, both = tmp_path / "out.mlir", tmp_path / "both.mlir"
    both.write_text(f"{CASES['race_of_state']}\n{CASES['deadlock'].replace('@small', '@other')}")
    for file in (files / "deadlock.mlir", both):
        run = tool_here("amk", "verify", file, "--fix", out)
        assert (run.returncode, run.stderr) == (2, "")
        assert ": waits mend races, not deadlock\n" in run.stdout
        assert "not fixed: insert-missing-sync: kernel @" in run.stdout
        assert not out.exists()
    assert "fixed: added" in run.stdout


@pytest.mark.parametrize("case", ["race_of_state", "race_behind_a_tag", "deadlock", "safe"])
def test_json_of_a_fix(tool_here, files: Path, tmp_path: Path, case: str):
    run = tool_here("amk", "verify", files / f"{case}.mlir", "--json", "--fix", tmp_path / "out.mlir")
    report = checked(json.loads(run.stdout), SCHEMA)
    (kernel,) = report["kernels"]
    fix = checked(checked(kernel, KERNEL)["fix"], FIX)
    assert report["accepted"] == (case == "safe"), "of the file, not of what was made of it"
    assert fix["safe"] == (case != "deadlock") == (run.returncode == 0) == (fix["refused"] is None)
    assert len(fix["added"]) == fix["counters"] + fix["signals"] + fix["waits"]
    assert bool(fix["added"]) == case.startswith("race")


def test_fix_that_cannot_be_written(tool_here, files: Path):
    run = tool_here("amk", "verify", files / "race_of_state.mlir", "--fix", "no/such/out.mlir")
    assert run.returncode == 2
    one_line(run.stderr, "no/such/out.mlir: cannot write")


def test_fix_for_another_target(tool_here, files: Path, tmp_path: Path):
    """What does not fit the other target is not a matter of waits; the file names its own target still."""
    out = tmp_path / "out.mlir"
    assert tool_here("amk", "verify", files / "safe.mlir", "--target", "sm_86", "--fix", out).returncode == 2
    assert not out.exists()
    assert tool_here("amk", "verify", files / "race_of_state.mlir", "--target", "sm_90a", "--fix", out).returncode == 0
    assert 'target "reference"' in out.read_text()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("nonsense", ":1:"),
        ("builtin.module {\n}", "no queue.kernel"),
        ("", ":1:1:"),
        ("builtin.module {" * 5000, "bad.mlir"),
        (CASES["race"].replace("queue.wait @c[0] all", "queue.wait @c[0] >= 0"), "needs at least one signal"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "replay"])
def test_malformed_kernels(tool_here, files: Path, tmp_path: Path, command: str, text: str, part: str):
    bad, witness = tmp_path / "bad.mlir", tmp_path / "w.json"
    bad.write_text(text)
    tool_here("amk", "verify", files / "race.mlir", "--witness", witness)
    run = tool_here("amk", command, bad, *([witness] if command == "replay" else []))
    assert run.returncode == 2
    one_line(run.stderr, part)


@pytest.mark.parametrize("command", ["verify", "replay"])
def test_no_such_file(tool_here, command: str):
    run = tool_here("amk", command, "no/such.mlir", *(["no/such.json"] if command == "replay" else []))
    assert run.returncode == 2
    one_line(run.stderr, "no/such", "No such file")


def test_a_witness_that_cannot_be_written(tool_here, files: Path):
    run = tool_here("amk", "verify", files / "race.mlir", "--witness", "no/such/w.json")
    assert run.returncode == 2
    one_line(run.stderr, "no/such/w.json: cannot write")


@pytest.fixture
def witness(tool_here, files: Path, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "good.json"
    tool_here("amk", "verify", files / "race.mlir", "--witness", file)
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "{}", '"amk_witness"', "[" * 100000, "\x00", '{"amk_witness": 1}', '{"amk_witness": 2}'],
    ids=range(10),
)
def test_not_a_witness(tool_here, files: Path, tmp_path: Path, text: str):
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    run = tool_here("amk", "replay", files / "race.mlir", bad)
    assert run.returncode == 2
    one_line(run.stderr, "bad.json", "witness")


def test_malformed_fields(witness: dict[str, Any]):
    """Every field missing, and of every wrong type, is refused with its name; no value of the right type crashes."""
    from amk.amk_ir.errors import UsageError
    from amk.passes.verifier import Witness

    for name in witness:
        for value in (
            None,
            -2,
            1.5,
            True,
            "nonsense",
            [],
            [1],
            [[1]],
            [[-1, 1]],
            [[[0, 1 << 40]]],
            [[["a", 1]]],
            {},
            [{}],
        ):
            data = {**witness, name: value}
            try:
                Witness.from_text(json.dumps(data))
            except UsageError:
                continue
            assert type(value) in (str, list), (name, value)
        with pytest.raises(UsageError):
            Witness.from_text(json.dumps({k: v for k, v in witness.items() if k != name}))


def test_not_utf8(tool_here, files: Path, tmp_path: Path):
    bad = tmp_path / "bad.json"
    bad.write_bytes(b"\xff\xfe\x00\x80")
    run = tool_here("amk", "replay", files / "race.mlir", bad)
    assert run.returncode == 2
    one_line(run.stderr, "bad.json", "not UTF-8")


def test_a_witness_of_another_kernel(tool_here, files: Path, tmp_path: Path, witness: dict[str, Any]):
    file = tmp_path / "w.json"
    file.write_text(json.dumps(witness))
    run = tool_here("amk", "replay", files / "safe.mlir", file)
    assert run.returncode == 2
    one_line(run.stderr, "another schedule: @small", "found @decoder")


def test_what_does_not_happen(tool_here, files: Path, tmp_path: Path, witness: dict[str, Any]):
    file = tmp_path / "w.json"
    file.write_text(json.dumps({**witness, "orders": [[[1, 1], [0, 1]]]}))
    run = tool_here("amk", "replay", files / "race.mlir", file, "--trace", "--seed", "3")
    assert (run.returncode, run.stderr) == (2, "")
    assert "\nnot reproduced: " in run.stdout


def test_replay_with_the_weights_of_a_model(tool_here, tiny_model: Path, tmp_path: Path):
    graph, kernel, witness = (tmp_path / n for n in ("graph.mlir", "kernel.mlir", "w.json"))
    assert tool_here("amk", "import", tiny_model, "-o", graph).returncode == 0
    tool_here("amk-opt", graph, "-p", "graph-to-queue{target=reference sms=3 handoff=counter}", "-o", kernel)
    text = kernel.read_text()
    wait = re.findall(r"^ *queue.wait .*\n", text, re.MULTILINE)[1]
    kernel.write_text(text.replace(wait, "", 1))
    assert tool_here("amk", "verify", kernel, "--witness", witness).returncode == 2
    run = tool_here("amk", "replay", kernel, witness, "--model", tiny_model)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\nreproduced: " in run.stdout
