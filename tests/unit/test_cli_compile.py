"""amk compile from the command line. NVRTC runs without a GPU, so nothing here needs one."""

import json
import shutil
from pathlib import Path

import pytest

from amk.amk_ir.errors import ArtifactError
from amk.tools import api, compile_model
from amk.tools.commands import compile as compile_command

FILES = {"manifest.json", "plan.mlir", "kernel.cu", "kernel.cubin", "kernel.log", "weights.bin"}


def one_line(stderr: str, *parts: str) -> None:
    """`stderr` is one line of amk that contains all `parts`."""
    assert stderr.startswith("amk: error: "), stderr
    assert stderr.count("\n") == 1, stderr
    for part in parts:
        assert part in stderr


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_compile(tool, tool_here, tiny_model: Path, tmp_path: Path):
    """The folder is whole, a second compile is the same from the cache, and amk-opt reads the plan."""
    out = tmp_path / "tiny.amk"
    first = tool("amk", "compile", tiny_model, "--target", "sm_90a", "-o", out)
    assert (first.returncode, first.stderr) == (0, "")
    assert names(out) == FILES
    assert names(tmp_path) == {"tiny.amk"}
    again = tool_here("amk", "compile", tiny_model, "--target", "sm_90a", "-o", tmp_path / "again.amk")
    assert "kernels from the cache" in again.stdout
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "again.amk" / name).read_bytes(), name
    assert tool_here("amk-opt", out / "plan.mlir", "-p", "verify-schedule").stdout.strip() == (
        (out / "plan.mlir").read_text().strip()
    )

    # a third one into the same folder finds it all there
    before = (out / "weights.bin").stat().st_ino
    assert tool_here("amk", "compile", tiny_model, "-o", out).returncode == 0
    assert (out / "weights.bin").stat().st_ino == before

    # and a damaged one is not taken for it, but replaced
    for damage in ("weights.bin", "manifest.json"):
        (out / damage).write_bytes(b"")
        assert tool_here("amk", "compile", tiny_model, "-o", out).returncode == 0
        for name in FILES:
            assert (out / name).read_bytes() == (tmp_path / "again.amk" / name).read_bytes(), name

    # unless there is something in it that AMK did not write
    (out / "weights.bin").write_bytes(b"")
    (out / "notes.txt").touch()
    run = tool_here("amk", "compile", tiny_model, "-o", out)
    assert run.returncode == 2
    one_line(run.stderr, "files that are not of a compiled model, such as notes.txt; it is not overwritten")
    assert names(out) == FILES | {"notes.txt"}


def test_options(tool_here, tiny_model: Path, tmp_path: Path):
    out = tmp_path / "tiny.amk"
    args = ["--target", "sm_80", "--sms", "5", "--max-seq", "16", "--no-weights", "-o", out]
    assert tool_here("amk", "compile", tiny_model, *args).returncode == 0
    assert names(out) == FILES - {"weights.bin"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["target"], manifest["sms"], manifest["max_seq"]) == ("sm_80", 5, 16)


@pytest.mark.parametrize(
    ("target", "parts"),
    [("sm_1", ["unknown target 'sm_1'", "sm_90a"]), ("reference", ["target 'reference' is not a GPU"])],
)
def test_bad_targets(tool_here, tiny_model: Path, tmp_path: Path, target: str, parts: list[str]):
    run = tool_here("amk", "compile", tiny_model, "--target", target, "-o", tmp_path / "out")
    assert run.returncode == 2
    one_line(run.stderr, *parts)
    assert not names(tmp_path)


def test_too_many_sms(tool_here, tiny_model: Path, tmp_path: Path):
    run = tool_here("amk", "compile", tiny_model, "--sms", "10000", "-o", tmp_path / "out")
    assert run.returncode == 2
    one_line(run.stderr, "sms: sm_90a has 132 SMs, found 10000")
    assert not names(tmp_path)


@pytest.mark.parametrize("command", [("compile", "-o", "out"), ("generate", "--backend", "cuda", "--prompt", "x")])
def test_too_many_tokens_at_once(tool_here, command: tuple[str, ...]):
    """Said before the model is looked for."""
    run = tool_here("amk", command[0], "no-such-model", "--chunk", "9", *command[1:])
    assert run.returncode == 2
    one_line(run.stderr, "chunk: a kernel for GPUs takes at most 8 tokens at once, found --chunk 9")


def test_other_folders_are_not_overwritten(tool_here, tiny_model: Path, tmp_path: Path):
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    before = names(copy)
    run = tool_here("amk", "compile", copy, "-o", copy)
    assert run.returncode == 2
    one_line(run.stderr, "exists and is not a compiled model")
    assert names(copy) == before


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("model", "exists and is not a compiled model; it is not overwritten: choose another name"),
        ("file", "exists and is not a compiled model; it is not overwritten: choose another name"),
        ("file/out", "file/out: cannot write: Not a directory"),
        ("file/deep/out", "file/deep/out: cannot write: Not a directory"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_compiled(
    tool_here, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, part: str
):
    """Not even the model is looked at."""

    def imported(*_: object) -> None:
        raise AssertionError("the model was imported")

    (tmp_path / "file").touch()
    copy_of(tiny_model, tmp_path / "model")
    monkeypatch.setattr(compile_command, "_import", imported)
    run = tool_here("amk", "compile", tiny_model, "-o", tmp_path / place)
    assert (run.returncode, run.stdout) == (2, "")
    one_line(run.stderr, part)
    assert names(tmp_path) == {"file", "model"}


def test_nothing_is_compiled_for_a_folder_that_is_not_overwritten(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nor by the Python API."""
    monkeypatch.setattr(compile_model, "_find_or_build", None)
    (tmp_path / "precious").touch()
    with pytest.raises(ArtifactError, match="exists and is not a compiled model"):
        api.compile(tiny_model, "sm_90a", tmp_path)


def test_no_place_for_the_cache(tool, tiny_model: Path, tmp_path: Path):
    """A file where the cache folder should be: one line says so, and what was compiled is there."""
    (tmp_path / "file").touch()
    cache = str(tmp_path / "file" / "x")
    run = tool("amk", "compile", tiny_model, "-o", tmp_path / "out", env={"AMK_CACHE_DIR": cache})
    assert run.returncode == 0
    assert run.stderr.startswith(f"amk: {cache}: the compile cache cannot be written to (Not a directory)")
    assert run.stderr.count("\n") == 1
    assert names(tmp_path) == {"file", "out"}
    assert names(tmp_path / "out") == FILES


def test_no_nvrtc(tool, tiny_model: Path, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['cuda.bindings.nvrtc'] = None\n")
    run = tool("amk", "compile", tiny_model, "-o", tmp_path / "out", env={"PYTHONPATH": str(tmp_path)})
    assert run.returncode == 2
    one_line(run.stderr, "NVRTC", 'pip install "cuda-bindings>=13,<14" "nvidia-cuda-nvrtc>=13,<14"', "'.[cuda]'")


def test_no_gpu(tool, tiny_model: Path):
    """Hidden from the driver, where there is one."""
    run = tool("amk", "generate", tiny_model, "--backend", "cuda", "--prompt", "x", env={"CUDA_VISIBLE_DEVICES": "-1"})
    assert run.returncode == 2
    one_line(run.stderr, "use the reference backend")


def test_running_a_compiled_model_needs_its_weights(tool_here, tiny_model: Path, tmp_path: Path):
    out = tmp_path / "tiny.amk"
    assert tool_here("amk", "compile", tiny_model, "--no-weights", "-o", out).returncode == 0
    run = tool_here("amk", "generate", tiny_model, "--backend", "cuda", "--compiled", out, "--prompt", "x")
    assert run.returncode == 2
    one_line(run.stderr, "--no-weights")


def copy_of(model: Path, to: Path) -> Path:
    shutil.copytree(model, to)
    return to


def test_only_the_model_that_was_compiled_is_run(tiny_model: Path, tmp_path: Path):
    """The graph and the content of the weights decide, not names, places and times of files."""
    from amk.frontends.import_model import ImportedModel, import_model
    from amk.runtime.artifacts import read_artifact
    from amk.tools.api import compile
    from amk.tools.compiled import load_compiled
    from amk.tools.compiled_folder import check_model

    def imported(folder: Path) -> ImportedModel:
        return import_model(folder, weight_dtype="bf16", kv_dtype="bf16")

    out = tmp_path / "out.amk"
    compile(tiny_model, "sm_90a", out)
    manifest = read_artifact(out).manifest
    check_model(out, manifest, imported(tiny_model))
    check_model(out, manifest, imported(copy_of(tiny_model, tmp_path / "copy")))

    with pytest.raises(ArtifactError, match="graph"):
        check_model(out, manifest, import_model(tiny_model, weight_dtype="f32", kv_dtype="bf16"))

    other = copy_of(tiny_model, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 5000.0}))
    with pytest.raises(ArtifactError, match=r"out.amk: was compiled from tiny, not from other \(the graphs differ\)"):
        check_model(out, manifest, imported(other))

    tuned = copy_of(tiny_model, tmp_path / "tuned")
    weights = tuned / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"other weights than those in .*tuned/model.safetensors"):
        check_model(out, manifest, imported(tuned))
    with pytest.raises(ArtifactError, match="other weights"):
        load_compiled(out, model=imported(tuned))


def test_generate_with_another_compiled_model(tool, tool_here, tiny_model: Path, tmp_path: Path):
    """The model is imported with what was chosen when it was compiled, and compared before a GPU is asked for."""
    out = tmp_path / "out.amk"
    args = ["--kv", "f32", "--max-seq", "16", "-o", out]
    assert tool_here("amk", "compile", tiny_model, *args).returncode == 0

    def generate(model: Path, run_it=tool_here) -> str:
        args = ["--backend", "cuda", "--compiled", out, "--prompt", "x"]
        run = run_it("amk", "generate", model, *args, env={"CUDA_VISIBLE_DEVICES": "-1"})
        assert (run.returncode, run.stdout) == (2, "")
        return run.stderr

    one_line(generate(tiny_model, tool), "use the reference backend")
    other = copy_of(tiny_model, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-6}))
    one_line(generate(other), "was compiled from tiny, not from other (the graphs differ)")
    (other / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8}))
    one_line(generate(other), "was compiled from another model than", "max_seq: expected 1 to 8")
    one_line(generate(tmp_path / "none"), "none: no such file or directory")
