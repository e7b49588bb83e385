"""amk verify and amk replay as programs; what they say of each rule, word for word.

`AMK_UPDATE_GOLDEN=1 pytest tests/unit/test_cli_verify.py` writes the files of golden/verify/ anew; look at the difference.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from decoder_kernels import Shape, decoder

GOLDEN = Path(__file__).parent / "golden" / "verify"
UPDATE = os.environ.get("AMK_UPDATE_GOLDEN") == "1"

TINY = Shape(layers=1, hidden=16, heads=2, kv_heads=1, head_dim=8, mlp=16, vocab=16, sms=2, max_seq=4)


def small(bodies: list[str], *, state: str = "state", families: str = "") -> str:
    """Two SMs: @put writes @a, @get reads it; @tell and @hear hand over a tagged word."""
    programs = "".join(
        f"  queue.program sms {sm} to {sm + 1} stream {{}} body {{\n    {body}\n  }}\n"
        for sm, body in enumerate(bodies)
    )
    return f"""queue.kernel @small target "reference" sms {len(bodies)} max_seq 4 tokens 1 {{
  task.buffer @in input : tensor<2xf32>
  task.buffer @a {state} : tensor<2xf32>
  task.buffer @word scratch tagged : tensor<1xf32>
  task.buffer @out output : tensor<2xf32>
  task.family @put () {{
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @a[0 : 2] : tensor<2xf32>
  }}
  task.family @get () {{
    %v = task.load @a[0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }}
  task.family @tell () {{
    %v = task.load @in[0 : 1] : tensor<1xf32>
    task.store %v, @word[0 : 1] : tensor<1xf32>
  }}
  task.family @hear () {{
    %w = task.load @word[0 : 1] : tensor<1xf32>
    %v = task.load @a[0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }}
{families}  queue.counter @c[2]
{programs}}}
"""


def only(text: str, *names: str) -> str:
    """Without the other families of `small`."""
    for name in {"put", "get", "tell", "hear"} - set(names):
        text = re.sub(rf"  task.family @{name} .*?\n  }}\n", "", text, flags=re.DOTALL)
    return text if "tell" in names or "hear" in names else re.sub(r"  task.buffer @word .*\n", "", text)


def changed(old: str, new: str) -> str:
    text = decoder(TINY)
    assert old in text
    return text.replace(old, new)


CASES = {
    "race": only(
        small(["queue.run @put[] queue.signal @c[0]", "queue.run @get[] queue.wait @c[0] all"], state="scratch"), "put", "get"
    ),
    "race_of_state": only(small(["queue.run @put[]", "queue.run @get[]"]), "put", "get"),
    "race_behind_a_tag": only(
        small(["queue.run @put[] queue.run @tell[]", "queue.run @hear[]"], state="scratch"), "put", "tell", "hear"
    ),
    "deadlock": only(
        small(["queue.wait @c[1] all queue.run @put[] queue.signal @c[0]", "queue.wait @c[0] all queue.run @get[] queue.signal @c[1]"]),
        "put",
        "get",
    ),
    "deadlock_of_tags": only(
        small(["queue.run @hear[] queue.run @tell[] queue.run @put[]", ""], state="scratch"), "put", "tell", "hear"
    ),
    "coverage": only(small(["queue.run @get[] queue.run @put[]", ""]), "put", "get"),
    "coverage_of_an_output": changed("task.store %y, @logits[0 : 1, tile*8 : 8]", "task.store %y, @logits[0 : 1, 0 : 8]"),
    "written_once": changed("@m[layer, 0 : 1, tile*4 : 4]", "@m[layer, 0 : 1, tile*3 : 4]"),
    "tasks_missing": only(small(["queue.run @put[]", ""]), "put", "get"),
    "tasks_doubled": only(small(["queue.run @put[] queue.run @get[]", "queue.run @put[]"]), "put", "get"),
    "stream": changed("queue.run @down[layer] on cyclic 0", "queue.run @down[layer] on cyclic 1"),
    "resources": changed("stages = 10, bytes = 16384", "stages = 14, bytes = 16896"),
    "bounds": changed("%r, @kc[layer, pos : 1,", "%r, @kc[layer, pos + 1 : 1,"),
}  # fmt: skip


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


@pytest.mark.parametrize("case", CASES)
def test_golden(tool, files: Path, tmp_path: Path, case: str):
    """What is wrong, how it goes wrong and what to change; and the replay shows it."""
    file, witness = files / f"{case}.mlir", tmp_path / "witness.json"
    run = tool("amk", "verify", file, "--witness", witness)
    assert run.returncode == 2
    text = run.stdout + run.stderr
    if witness.exists():
        replay = tool("amk", "replay", file, witness)
        assert (replay.returncode, replay.stderr) == (0, "")
        text += f"--- replay\n{replay.stdout}"
    text = text.replace(str(file), "kernel.mlir").replace(str(witness), "witness.json")
    text = re.sub(r"-?\d+\.\d+(e-?\d+)?", "#", text)  # values differ between processors
    golden = GOLDEN / f"{case}.txt"
    if UPDATE:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), "AMK_UPDATE_GOLDEN=1 accepts it"


def test_no_golden_file_is_left_over():
    assert {p.stem for p in GOLDEN.iterdir()} == set(CASES)


def test_safe(tool, files: Path, tmp_path: Path):
    run = tool("amk", "verify", files / "safe.mlir", "--witness", tmp_path / "w.json")
    assert (run.returncode, run.stderr) == (0, "")
    assert re.fullmatch(r".*safe.mlir: schedule @decoder is safe on sm_90a: \d+ tasks, \d+ events, 2 SMs; decided in \d+\.\d\d s\n", run.stdout)  # fmt: skip
    assert not (tmp_path / "w.json").exists()


SCHEMA = {"amk_verify": int, "file": str, "accepted": bool, "error": (str, type(None)), "kernels": list}
KERNEL = {"kernel": str, "digest": str, "target": str, "accepted": bool, "seconds": float, "counts": dict, "diagnostics": list, "redundant": (dict, type(None))}  # fmt: skip
DIAGNOSTIC = {"rule": str, "message": str, "execution": str, "remedy": str, "occurrences": int, "ops": list, "sms": list, "tasks": list, "regions": list, "text": str, "witness": (dict, type(None)), "no_witness": (str, type(None))}  # fmt: skip
COUNTS = {"sms", "tasks", "waits", "signals", "events", "fetches", "counters"}


def checked(data: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    assert list(data) == list(schema)
    for name, kind in schema.items():
        assert isinstance(data[name], kind), name
    return data


@pytest.mark.parametrize("case", ["safe", "race", "resources", "tasks_doubled", "bounds"])
def test_json(tool, files: Path, case: str):
    """The documented schema: its names, their order and types."""
    run = tool("amk", "verify", files / f"{case}.mlir", "--json", "--redundant")
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


def test_the_schema_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "verify.md").read_text()
    for name in {*SCHEMA, *KERNEL, *DIAGNOSTIC, *COUNTS}:
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


def test_another_target(tool, files: Path, tmp_path: Path):
    """The grid fits, the ring does not; a witness is of the kernel as the file has it."""
    run = tool("amk", "verify", files / "safe.mlir", "--target", "sm_86")
    assert run.returncode == 2
    assert "a block of target sm_86 has" in run.stdout
    witness = tmp_path / "w.json"
    assert tool("amk", "verify", files / "race.mlir", "--target", "sm_90a", "--witness", witness).returncode == 2
    assert tool("amk", "replay", files / "race.mlir", witness).returncode == 0
    run = tool("amk", "verify", files / "safe.mlir", "--target", "sm_1")
    assert run.returncode == 2
    one_line(run.stderr, "--target", "sm_1")


def test_redundant_waits(tool, tmp_path: Path):
    file = tmp_path / "kernel.mlir"
    wait = "queue.wait @a_done[layer] all\n"
    file.write_text(changed(wait, f"{wait} queue.wait @qkv_done[layer] all\n"))
    run = tool("amk", "verify", file, "--redundant")
    assert run.returncode == 0
    assert "1 of 8 waits could be left out, each alone\n  `queue.wait @qkv_done[layer] all`: 2 events" in run.stdout
    run = tool("amk", "verify", file, "--redundant", "--tries", "1")
    assert "7 waits were not tried (--tries 8)" in run.stdout


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
def test_malformed_kernels(tool, files: Path, tmp_path: Path, command: str, text: str, part: str):
    bad, witness = tmp_path / "bad.mlir", tmp_path / "w.json"
    bad.write_text(text)
    tool("amk", "verify", files / "race.mlir", "--witness", witness)
    run = tool("amk", command, bad, *([witness] if command == "replay" else []))
    assert run.returncode == 2
    one_line(run.stderr, part)


@pytest.mark.parametrize("command", ["verify", "replay"])
def test_no_such_file(tool, command: str):
    run = tool("amk", command, "no/such.mlir", *(["no/such.json"] if command == "replay" else []))
    assert run.returncode == 2
    one_line(run.stderr, "no/such", "No such file")


def test_a_witness_that_cannot_be_written(tool, files: Path):
    run = tool("amk", "verify", files / "race.mlir", "--witness", "no/such/w.json")
    assert run.returncode == 2
    one_line(run.stderr, "no/such/w.json: cannot write")


@pytest.fixture
def witness(tool, files: Path, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "good.json"
    tool("amk", "verify", files / "race.mlir", "--witness", file)
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "{}", '"amk_witness"', "[" * 100000, "\x00", '{"amk_witness": 1}', '{"amk_witness": 2}'],
    ids=range(10),
)
def test_not_a_witness(tool, files: Path, tmp_path: Path, text: str):
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    run = tool("amk", "replay", files / "race.mlir", bad)
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


def test_not_utf8(tool, files: Path, tmp_path: Path):
    bad = tmp_path / "bad.json"
    bad.write_bytes(b"\xff\xfe\x00\x80")
    run = tool("amk", "replay", files / "race.mlir", bad)
    assert run.returncode == 2
    one_line(run.stderr, "bad.json", "not UTF-8")


def test_a_witness_of_another_kernel(tool, files: Path, tmp_path: Path, witness: dict[str, Any]):
    file = tmp_path / "w.json"
    file.write_text(json.dumps(witness))
    run = tool("amk", "replay", files / "safe.mlir", file)
    assert run.returncode == 2
    one_line(run.stderr, "another schedule: @small", "found @decoder")


def test_what_does_not_happen(tool, files: Path, tmp_path: Path, witness: dict[str, Any]):
    file = tmp_path / "w.json"
    file.write_text(json.dumps({**witness, "orders": [[[1, 1], [0, 1]]]}))
    run = tool("amk", "replay", files / "race.mlir", file, "--trace", "--seed", "3")
    assert (run.returncode, run.stderr) == (2, "")
    assert "\nnot reproduced: " in run.stdout


def test_replay_with_the_weights_of_a_model(tool, tiny_model: Path, tmp_path: Path):
    graph, kernel, witness = (tmp_path / n for n in ("graph.mlir", "kernel.mlir", "w.json"))
    assert tool("amk", "import", tiny_model, "-o", graph).returncode == 0
    tool("amk-opt", graph, "-p", "graph-to-queue{target=reference sms=3 handoff=counter}", "-o", kernel)
    text = kernel.read_text()
    wait = re.findall(r"^ *queue.wait .*\n", text, re.MULTILINE)[1]
    kernel.write_text(text.replace(wait, "", 1))
    assert tool("amk", "verify", kernel, "--witness", witness).returncode == 2
    run = tool("amk", "replay", kernel, witness, "--model", tiny_model)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\nreproduced: " in run.stdout
