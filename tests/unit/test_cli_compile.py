"""amk compile as a program. NVRTC runs without a GPU, so nothing here needs one."""

import json
import shutil
from pathlib import Path

import pytest

FILES = {"manifest.json", "plan.mlir", "kernel.cu", "kernel.cubin", "kernel.log", "weights.bin"}


def one_line(stderr: str, *parts: str) -> None:
    """`stderr` is one line of amk that contains all `parts`."""
    assert stderr.startswith("amk: error: "), stderr
    assert stderr.count("\n") == 1, stderr
    for part in parts:
        assert part in stderr


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_compile(tool, tiny_model: Path, tmp_path: Path):
    """The folder is whole, a second compile is the same from the cache, and amk-opt reads the plan."""
    out = tmp_path / "tiny.amk"
    first = tool("amk", "compile", tiny_model, "--target", "sm_90a", "-o", out)
    assert (first.returncode, first.stderr) == (0, "")
    assert names(out) == FILES
    assert names(tmp_path) == {"tiny.amk"}
    again = tool("amk", "compile", tiny_model, "--target", "sm_90a", "-o", tmp_path / "again.amk")
    assert "kernel from the cache" in again.stdout
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "again.amk" / name).read_bytes(), name
    assert tool("amk-opt", out / "plan.mlir", "-p", "verify-schedule").stdout.strip() == (
        (out / "plan.mlir").read_text().strip()
    )

    # a third one into the same folder finds it all there
    before = (out / "weights.bin").stat().st_ino
    assert tool("amk", "compile", tiny_model, "-o", out).returncode == 0
    assert (out / "weights.bin").stat().st_ino == before

    # and a damaged one is not taken for it
    (out / "weights.bin").write_bytes(b"")
    run = tool("amk", "compile", tiny_model, "-o", out)
    assert run.returncode == 2
    one_line(run.stderr, "weights.bin: was changed or damaged")


def test_options(tool, tiny_model: Path, tmp_path: Path):
    out = tmp_path / "tiny.amk"
    args = ["--target", "sm_80", "--sms", "5", "--max-seq", "16", "--no-weights", "-o", out]
    assert tool("amk", "compile", tiny_model, *args).returncode == 0
    assert names(out) == FILES - {"weights.bin"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["target"], manifest["sms"], manifest["max_seq"]) == ("sm_80", 5, 16)


@pytest.mark.parametrize(
    ("target", "parts"),
    [("sm_1", ["unknown target 'sm_1'", "sm_90a"]), ("reference", ["target 'reference' is not a GPU"])],
)
def test_bad_targets(tool, tiny_model: Path, tmp_path: Path, target: str, parts: list[str]):
    run = tool("amk", "compile", tiny_model, "--target", target, "-o", tmp_path / "out")
    assert run.returncode == 2
    one_line(run.stderr, *parts)
    assert not names(tmp_path)


def test_too_many_sms(tool, tiny_model: Path, tmp_path: Path):
    run = tool("amk", "compile", tiny_model, "--sms", "10000", "-o", tmp_path / "out")
    assert run.returncode == 2
    one_line(run.stderr, "sms: sm_90a has 132 SMs, found 10000")
    assert not names(tmp_path)


def test_other_folders_are_not_overwritten(tool, tiny_model: Path, tmp_path: Path):
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    before = names(copy)
    run = tool("amk", "compile", copy, "-o", copy)
    assert run.returncode == 2
    one_line(run.stderr, "exists and is not a compiled model")
    assert names(copy) == before


def test_no_place_for_the_cache(tool, tiny_model: Path, tmp_path: Path):
    """A file where the cache folder should be."""
    (tmp_path / "file").touch()
    run = tool(
        "amk", "compile", tiny_model, "-o", tmp_path / "out", env={"AMK_CACHE_DIR": str(tmp_path / "file" / "x")}
    )
    assert run.returncode == 2
    one_line(run.stderr, "cannot write", "AMK_CACHE_DIR")
    assert names(tmp_path) == {"file"}


def test_no_nvrtc(tool, tiny_model: Path, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['cuda.bindings.nvrtc'] = None\n")
    run = tool("amk", "compile", tiny_model, "-o", tmp_path / "out", env={"PYTHONPATH": str(tmp_path)})
    assert run.returncode == 2
    one_line(run.stderr, "NVRTC", "pip install")


def test_no_gpu(tool, tiny_model: Path):
    """Hidden from the driver, where there is one."""
    run = tool("amk", "generate", tiny_model, "--backend", "cuda", "--prompt", "x", env={"CUDA_VISIBLE_DEVICES": "-1"})
    assert run.returncode == 2
    one_line(run.stderr, "use the reference backend")


def test_running_a_compiled_model_needs_its_weights(tool, tiny_model: Path, tmp_path: Path):
    out = tmp_path / "tiny.amk"
    assert tool("amk", "compile", tiny_model, "--no-weights", "-o", out).returncode == 0
    run = tool("amk", "generate", tiny_model, "--backend", "cuda", "--compiled", out, "--prompt", "x")
    assert run.returncode == 2
    one_line(run.stderr, "--no-weights")
