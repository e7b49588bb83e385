"""Compiled folders with all kernels of a session: what is in them, what is refused, and what is run of them. No GPU."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import amk
from amk.amk_ir.errors import ArtifactError, DeviceError, ScheduleError, UsageError
from amk.amk_ir.targets import Target
from amk.backends.cuda.nvrtc import Cubin, parse_resources
from amk.frontends.import_model import ImportedModel, import_model
from amk.runtime.artifacts import Artifact, read_artifact
from amk.runtime.cache import digest
from amk.tools import cached_compiler
from amk.tools import compiled as compiled_module
from amk.tools.cached_compiler import CachedCompiler
from amk.tools.compiled import load_compiled
from amk.tools.compiled_folder import SessionShape, read_compiled, shape_of
from amk.tools.session_kernels import restore

KERNEL = {"plan.mlir", "kernel.cu", "kernel.cubin", "kernel.log"}


@pytest.fixture
def model(tiny_model: Path) -> ImportedModel:
    return import_model(tiny_model, weight_dtype="bf16", kv_dtype="bf16")


LOG = """ptxas info    : Compiling entry function '{kernel}' for 'sm_90a'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers
"""


@pytest.fixture(scope="module")
def fake_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def replace_nvrtc(monkeypatch: pytest.MonkeyPatch, fake_cache: Path) -> None:
    """What is decided here does not depend on the machine code, which takes seconds to make: `test_as_programs` does."""

    def compile_cubin(source: str, target: Target, kernel: str) -> Cubin:
        log = LOG.format(kernel=kernel)
        return Cubin(digest(source.encode()).encode(), parse_resources(log, kernel), log)

    monkeypatch.setattr(cached_compiler, "compile_cubin", compile_cubin)
    monkeypatch.setenv("AMK_CACHE_DIR", str(fake_cache))


@pytest.fixture
def no_nvrtc(monkeypatch: pytest.MonkeyPatch, fake_cache: Path) -> None:
    replace_nvrtc(monkeypatch, fake_cache)


@pytest.fixture(scope="module")
def compiled(tiny_model: Path, fake_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all three kernels, which stays as it is."""
    model = import_model(tiny_model, weight_dtype="bf16", kv_dtype="bf16")
    with pytest.MonkeyPatch.context() as monkeypatch:
        replace_nvrtc(monkeypatch, fake_cache)
        folder = tmp_path_factory.mktemp("compiled") / "tiny.amk"
        return amk.compile(model, "sm_90a", folder, sms=5, chunk=4, far_from=32).artifact.folder


@pytest.fixture
def artifact(no_nvrtc: None, compiled: Path, tmp_path: Path) -> Artifact:
    """A copy of it that a test may change."""
    return read_artifact(shutil.copytree(compiled, tmp_path / "tiny.amk"))


def kernels_of(artifact: Artifact):
    return restore(artifact.read, shape_of(artifact.folder, artifact.manifest), str(artifact.folder), CachedCompiler())


def replace_file(artifact: Artifact, name: str, content: bytes) -> None:
    """Another content of a file, with its digest: what a person could do, and a damaged disk could not."""
    artifact.path(name).write_bytes(content)
    change_manifest(artifact, lambda m: m["files"].update({name: {"bytes": len(content), "sha256": digest(content)}}))


def change_manifest(artifact: Artifact, change: Callable[[dict[str, Any]], object]) -> None:
    path = artifact.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_it_holds_all_kernels(artifact: Artifact):
    names = {path.name for path in artifact.folder.iterdir()}
    assert names == {
        "manifest.json",
        "weights.bin",
        *KERNEL,
        *(f"far.{name}" for name in KERNEL),
        *(f"chunk.{name}" for name in KERNEL),
    }
    assert [artifact.manifest[name] for name in ("chunk", "far_from", "token_loop")] == [4, 32, False]
    assert {role: kernel["tokens"] for role, kernel in artifact.manifest["kernels"].items()} == {
        "step": 1,
        "far": 1,
        "chunk": 4,
    }
    assert read_compiled(artifact.folder).shape == SessionShape(chunk=4, far_from=32)


def test_they_are_those_of_a_session(artifact: Artifact, model: ImportedModel):
    """Read back, each has the digest of the kernel that a session lowers, and they share weights and cache."""
    from amk.amk_ir.targets import get_target
    from amk.tools.tuned import Choice

    target, choice = get_target("sm_90a"), Choice({}, 5)
    kernels = kernels_of(artifact)
    assert kernels.far is not None and kernels.chunk is not None
    for pair, kernel in (
        (kernels.step, choice.plan(model, target)),
        (kernels.far, choice.plan_far(model, target)),
        (kernels.chunk, choice.plan_chunk(model, target, 4)),
    ):
        assert pair[0].digest == kernel.digest == pair[1].digest
    assert kernels.far[1].plan.streams == kernels.step[1].plan.streams
    assert artifact.path("weights.bin").stat().st_size == kernels.step[1].plan.weight_bytes
    assert kernels.far[1].image == artifact.read("far.kernel.cubin") != artifact.read("kernel.cubin")


def test_kernels_that_nobody_asked_for_are_not_there(no_nvrtc: None, model: ImportedModel, tmp_path: Path):
    """max_seq is 64, which the default position of the far kernel is beyond."""
    plain = amk.compile(model, "sm_90a", tmp_path / "plain.amk", sms=5).artifact
    assert set(plain.manifest["kernels"]) == {"step"}
    assert (plain.manifest["chunk"], plain.manifest["far_from"]) == (1, None)
    late = amk.compile(model, "sm_90a", tmp_path / "late.amk", sms=5, far_from=64).artifact
    assert late.manifest["far_from"] is None
    assert late.manifest["files"] == plain.manifest["files"]


def test_another_choice_is_another_folder(artifact: Artifact, model: ImportedModel):
    """The position is not in the kernels, so nothing is compiled for it, but it is in the manifest; kernels that are no
    longer wanted go."""
    again = amk.compile(model, "sm_90a", artifact.folder, sms=5, chunk=4, far_from=16)
    assert again.from_cache
    assert read_artifact(artifact.folder).manifest["far_from"] == 16
    amk.compile(model, "sm_90a", artifact.folder, sms=5)
    assert {p.name for p in artifact.folder.iterdir()} == {"manifest.json", "weights.bin", *KERNEL}


def test_from_the_cache_no_pass_is_run(artifact: Artifact, model: ImportedModel, tmp_path: Path, monkeypatch: Any):
    from amk.runtime import compile as compile_module

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("lowered again")

    monkeypatch.setattr(compile_module, "plan", refuse)
    monkeypatch.setattr("amk.tools.tuned.plan", refuse)
    again = amk.compile(model, "sm_90a", tmp_path / "again.amk", sms=5, chunk=4, far_from=32)
    assert again.from_cache
    for name in artifact.manifest["files"]:
        assert again.artifact.read(name) == artifact.read(name), name
    assert again.artifact.manifest == artifact.manifest


class Loaded:
    """Takes the place of the driver: what would have been loaded."""

    def __init__(self):
        self.given: list[Any] = []

    def load_session(self, kernels: Any, weights: Any, far_from: int) -> "Loaded":
        size = sum(len(piece) for piece in weights)
        self.given = [kernels, size, far_from]
        return self


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    from amk.backends.cuda import backend

    loaded = Loaded()
    monkeypatch.setattr(backend.CudaBackend, "load_session", lambda _, *args: loaded.load_session(*args))
    return loaded


@pytest.mark.parametrize(
    ("chunk", "far_from", "tokens", "position"), [(None, None, 4, 32), (1, None, None, 32), (4, 7, 4, 7)]
)
def test_what_a_session_uses(
    artifact: Artifact,
    model: ImportedModel,
    gpu: Loaded,
    chunk: int | None,
    far_from: int | None,
    tokens: int | None,
    position: int,
):
    session = amk.open_compiled(artifact.folder, model, chunk=chunk, far_from=far_from)
    kernels, size, found = gpu.given
    assert session.max_seq == 64
    assert size == artifact.manifest["weights"]["bytes"]
    assert (None if kernels.chunk is None else kernels.chunk[1].plan.tokens, found) == (tokens, position)
    assert kernels.far is not None


def test_what_the_folder_has_no_kernel_for(artifact: Artifact, model: ImportedModel, tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"tiny.amk: was compiled with --chunk 4; compile it with --chunk 8"):
        amk.open_compiled(artifact.folder, chunk=8)
    with pytest.raises(ArtifactError, match="one step a launch; compile it with --token-loop"):
        amk.open_compiled(artifact.folder, steps_per_launch=2)
    plain = amk.compile(model, "sm_90a", tmp_path / "plain.amk", sms=5).artifact
    with pytest.raises(ArtifactError, match="without --chunk; compile it with --chunk 4"):
        amk.open_compiled(plain.folder, chunk=4)
    with pytest.raises(ArtifactError, match="without a kernel for long contexts; compile it with --far-from 9"):
        amk.open_compiled(plain.folder, far_from=9)
    with pytest.raises(UsageError, match="at most 8 tokens at once, found --chunk 9"):
        amk.compile(model, "sm_90a", tmp_path / "out", chunk=9)
    for wrong in ({"chunk": 0}, {"far_from": 0}):
        with pytest.raises(UsageError, match="expected .* found 0"):
            amk.open_compiled(plain.folder, **wrong)
        with pytest.raises(UsageError, match="expected .* found 0"):
            amk.compile(model, "sm_90a", tmp_path / "never.amk", **wrong)
    assert not (tmp_path / "never.amk").exists()


def test_a_folder_of_an_older_layout(artifact: Artifact, model: ImportedModel):
    change_manifest(artifact, lambda m: m.update(format=1))
    with pytest.raises(ArtifactError, match="expected manifest format 2, found 1; compile it again"):
        amk.open_compiled(artifact.folder)
    amk.compile(model, "sm_90a", artifact.folder, sms=5, chunk=4, far_from=32)
    assert read_artifact(artifact.folder).manifest == artifact.manifest


@pytest.mark.parametrize("name", ["kernel.cubin", "far.kernel.cubin", "chunk.kernel.cubin"])
def test_a_truncated_cubin(artifact: Artifact, name: str):
    content = artifact.read(name)
    artifact.path(name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=rf"{name}: was changed or damaged"):
        amk.open_compiled(artifact.folder)


@pytest.mark.parametrize("name", ["far.plan.mlir", "chunk.kernel.cu", "kernel.log"])
def test_a_missing_file(artifact: Artifact, name: str):
    artifact.path(name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name}: cannot be read: No such file"):
        amk.open_compiled(artifact.folder)
    change_manifest(artifact, lambda m: m["files"].pop(name))
    with pytest.raises(ArtifactError, match=rf"has no {name}, part of kernel (step|far|chunk)"):
        amk.open_compiled(artifact.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["kernels"].pop("far"), "expected the kernels step, far, chunk, its manifest names step, chunk"),
        (lambda m: m.pop("kernels"), "lacks token_loop, chunk, far_from or kernels"),
        (lambda m: m.update(chunk=0), "lacks token_loop, chunk, far_from or kernels"),
        (lambda m: m.update(chunk=2), "expected a kernel of 2 tokens in chunk.plan.mlir, found 4"),
        (lambda m: m.update(token_loop=True), "kernel.cu is not the source of plan.mlir"),
        (lambda m: m.update(amk="other"), "another version of AMK"),
    ],
)
def test_a_manifest_that_says_something_else(
    artifact: Artifact, gpu: Loaded, change: Callable[[dict[str, Any]], object], message: str
):
    change_manifest(artifact, change)
    with pytest.raises(ArtifactError, match=message):
        amk.open_compiled(artifact.folder)
    assert not gpu.given


def test_a_kernel_of_other_options(artifact: Artifact, model: ImportedModel, gpu: Loaded, tmp_path: Path):
    """Its weights are packed otherwise, and its digests are right."""
    other = amk.compile(model, "sm_90a", tmp_path / "other.amk", options={"rows": 16}, sms=5, far_from=32).artifact
    for name in sorted(KERNEL):
        replace_file(artifact, f"far.{name}", other.read(f"far.{name}"))
    with pytest.raises(ArtifactError, match="its kernels do not belong together: .*stored otherwise"):
        amk.open_compiled(artifact.folder)
    assert not gpu.given


def test_kernels_that_changed_places(artifact: Artifact, gpu: Loaded):
    for name in sorted(KERNEL):
        replace_file(artifact, f"far.{name}", artifact.read(f"chunk.{name}"))
    with pytest.raises(ArtifactError, match="do not belong together: a session runs kernels with one token"):
        amk.open_compiled(artifact.folder)
    assert not gpu.given


def test_a_manifest_of_other_kernels(artifact: Artifact, gpu: Loaded):
    step = json.loads((artifact.folder / "manifest.json").read_text())["sms"]
    change_manifest(artifact, lambda m: m.update(sms=step + 1))
    with pytest.raises(ArtifactError, match=f"its manifest says sms {step + 1}, its kernels {step}"):
        amk.open_compiled(artifact.folder)
    change_manifest(artifact, lambda m: m.update(sms=step))
    for name in sorted(KERNEL):
        replace_file(artifact, f"far.{name}", artifact.read(name))
    with pytest.raises(ArtifactError, match=r"does not describe far\.plan\.mlir"):
        amk.open_compiled(artifact.folder)
    assert not gpu.given


def test_an_unsafe_plan_beside_the_first(artifact: Artifact, gpu: Loaded):
    plan = artifact.read("far.plan.mlir").decode()
    signal = next(line for line in plan.splitlines() if "queue.signal" in line)
    replace_file(artifact, "far.plan.mlir", plan.replace(signal + "\n", "", 1).encode())
    with pytest.raises(ScheduleError, match="rejected"):
        amk.open_compiled(artifact.folder)
    replace_file(artifact, "far.plan.mlir", b"builtin.module {")
    with pytest.raises(ArtifactError, match=r"far.plan.mlir: is no plan of a kernel"):
        amk.open_compiled(artifact.folder)
    assert not gpu.given


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("chunk.kernel.cu", b"\xff", "tiny.amk/chunk.kernel.cu: is no text"),
        ("kernel.log", b"\xff", "tiny.amk/kernel.log: is no text"),
        ("far.plan.mlir", b"\xff", "tiny.amk/far.plan.mlir: is no plan of a kernel"),
        ("far.plan.mlir", b"builtin.module {}", "tiny.amk/far.plan.mlir: is no plan of a kernel .*found 0"),
        ("weights.bin", b"", r"expected [\d,]+ bytes in weights.bin, found 0"),
        ("weights.bin", bytes(512), r"expected [\d,]+ bytes in weights.bin, found 512"),
    ],
)
def test_content_with_the_right_digest(artifact: Artifact, gpu: Loaded, name: str, content: bytes, message: str):
    replace_file(artifact, name, content)
    with pytest.raises(ArtifactError, match=message):
        amk.open_compiled(artifact.folder)
    assert not gpu.given


def test_a_failed_compile_leaves_the_old_folder(artifact: Artifact, model: ImportedModel, monkeypatch: Any):
    """While the weights are packed: nothing half-written is left."""
    from amk.tools import compile_model as module

    def fail(*_: object):
        yield b"x"
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_packed", fail)
    with pytest.raises(KeyboardInterrupt):
        amk.compile(model, "sm_90a", artifact.folder, sms=4, chunk=4, far_from=32)
    assert read_artifact(artifact.folder) == artifact
    assert list(artifact.folder.parent.iterdir()) == [artifact.folder]


def test_without_a_gpu_all_is_checked_first(artifact: Artifact, model: ImportedModel, monkeypatch: Any):
    def no_gpu(_: int = 0) -> None:
        raise DeviceError("no GPU")

    monkeypatch.setattr("amk.backends.cuda.driver.device_info", no_gpu)
    with pytest.raises(DeviceError, match="no GPU"):
        load_compiled(artifact.folder, model=model)
    assert compiled_module.choose_shape(artifact.folder, SessionShape(True, 4, 32), True, None, 8).far_from == 8


def test_as_programs(tool, tiny_model: Path, tmp_path: Path):
    out = tmp_path / "tiny.amk"
    args = ["--chunk", "4", "--far-from", "32", "--sms", "5", "-o", out]
    run = tool("amk", "compile", tiny_model, *args)
    assert (run.returncode, run.stderr) == (0, "")
    assert "one token from position 32 on" in run.stdout
    assert "4 tokens of a prompt" in run.stdout

    def generate(*more: str) -> str:
        args = ["--backend", "cuda", "--compiled", out, "--prompt", "x", *more]
        run = tool("amk", "generate", tiny_model, *args, env={"CUDA_VISIBLE_DEVICES": "-1"})
        assert (run.returncode, run.stdout) == (2, "")
        return run.stderr

    assert "use the reference backend" in generate("--chunk", "4", "--far-from", "20")
    assert "was compiled with --chunk 4; compile it with --chunk 2" in generate("--chunk", "2")


def test_a_shape_has_no_weights(tool_here, tmp_path: Path):
    run = tool_here("amk", "compile", "llama-3.2-1b", "-o", tmp_path / "out")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "llama-3.2-1b: is a shape, which has no weights; compile it with --no-weights" in run.stderr
    assert not (tmp_path / "out").exists()
