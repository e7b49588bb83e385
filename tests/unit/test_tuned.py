"""What `amk tune` found is kept by GPU, target and shape, and used unless the user chose otherwise."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from amk.amk_ir.errors import CompileError, StorageError
from amk.amk_ir.targets import get_target
from amk.backends.cuda.backend import CudaBackend
from amk.backends.cuda.nvrtc import Cubin, Resources
from amk.frontends.import_model import ImportedModel, import_model
from amk.runtime.tuned import TunedRecord, TunedStore, tuned_shape
from amk.tools import tuned
from amk.tools.api import compile
from amk.tools.cached_compiler import CachedCompiler
from amk.tools.tune.space import GRID, axes
from amk.tools.tuned import Choice, choose_options

TARGET = get_target("sm_90a")


@pytest.fixture
def model(tiny_model: Path) -> ImportedModel:
    return import_model(tiny_model, weight_dtype="bf16", kv_dtype="bf16")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TunedStore:
    """Where `compile` looks too, on a machine without a GPU."""
    monkeypatch.setattr(tuned, "gpu_name", lambda _: None)
    monkeypatch.setenv("AMK_CACHE_DIR", str(tmp_path / "cache"))
    return TunedStore()


def record(model: ImportedModel, **changes: object) -> TunedRecord:
    found = TunedRecord(
        "NVIDIA H100 80GB HBM3", "sm_90a", 132, tuned_shape(model), {"stages": 5}, None, (16, 128), (2.0, 3.0), (1.5, 2)
    )
    return replace(found, **changes)


def test_what_was_put_is_found(model: ImportedModel, store: TunedStore):
    first = record(model)
    assert store.find(first.gpu, "sm_90a", first.shape) is None
    path = store.put(first)
    assert path.name.startswith("nvidia-h100-80gb-hbm3.sm_90a.")
    assert store.find(first.gpu, "sm_90a", first.shape) == replace(first, path=path)
    assert json.loads(path.read_text())["shape"]["hidden"] == 32, "a person can read it"
    store.put(replace(first, options={"rows": 16}))
    assert [r.options for r in store.find_all("sm_90a", first.shape)] == [{"rows": 16}]
    assert store.find("another", "sm_90a", first.shape) is None
    assert store.find(first.gpu, "sm_80", first.shape) is None


def test_the_shape_decides(tiny_model: Path, model: ImportedModel, store: TunedStore):
    store.put(record(model))
    longer = import_model(tiny_model, weight_dtype="bf16", kv_dtype="bf16", max_seq=16)
    assert list(store.find_all("sm_90a", tuned_shape(longer)))
    other = import_model(tiny_model, weight_dtype="bf16", kv_dtype="f32")
    assert not list(store.find_all("sm_90a", tuned_shape(other)))


@pytest.mark.parametrize(
    "damage",
    [
        {"amk_tuned": 2},
        {"amk": "another"},
        {"options": {"rows": "many"}},
        {"options": {"no_such": 1}},
        {"options": 3},
        {"contexts": [1]},
        {"contexts": ["x", "y"]},
        {"sms": 0},
        {"sms": 1000},
        {"num_sms": None},
        None,
    ],
)
def test_a_damaged_record_is_none(model: ImportedModel, store: TunedStore, damage: dict[str, object] | None):
    path = store.put(record(model))
    path.write_text("{" if damage is None else json.dumps(json.loads(path.read_text()) | damage))
    assert not list(store.find_all("sm_90a", tuned_shape(model)))
    assert choose_options(model, TARGET, store=store) == Choice({})


def test_no_place_for_it(model: ImportedModel, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write.*AMK_CACHE_DIR"):
        TunedStore(tmp_path / "file" / "tuned").check()
    TunedStore(tmp_path / "new" / "tuned").check()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(StorageError, match=r"cannot write.*AMK_CACHE_DIR"):
        TunedStore(tmp_path / "file" / "tuned").put(record(model))


def test_the_user_chooses(model: ImportedModel, store: TunedStore):
    path = store.put(record(model, sms=100))
    found = choose_options(model, TARGET)
    assert (found.options, found.sms) == ({"stages": 5}, 100)
    assert found.record is not None and found.record.path == path
    assert str(found) == "stages=5 sms=100, tuned on NVIDIA H100 80GB HBM3"
    assert choose_options(model, TARGET, options={}) == Choice({})
    assert choose_options(model, TARGET, options={"rows": 16}) == Choice({"rows": 16})
    assert choose_options(model, TARGET, sms=7) == Choice({}, 7)
    assert choose_options(model, get_target("reference")) == Choice({})
    assert choose_options(model, replace(TARGET, num_sms=114)) == Choice({}), "tuned for a grid that does not fit"


def test_the_gpu_at_hand_decides(model: ImportedModel, store: TunedStore, monkeypatch: pytest.MonkeyPatch):
    store.put(record(model))
    store.put(record(model, gpu="NVIDIA H200", options={"rows": 16}))
    monkeypatch.setattr(tuned, "gpu_name", lambda _: "NVIDIA H200")
    assert choose_options(model, TARGET).options == {"rows": 16}
    monkeypatch.setattr(tuned, "gpu_name", lambda _: "NVIDIA GH200")
    assert choose_options(model, TARGET) == Choice({})
    monkeypatch.setattr(tuned, "gpu_name", lambda _: None)
    assert choose_options(model, TARGET) == Choice({}), "of two, nobody knows which"


def test_compile_uses_it(tool, tool_here, tiny_model: Path, model: ImportedModel, store: TunedStore, tmp_path: Path):
    store.put(record(model))
    assert compile(model, "sm_90a", tmp_path / "a").choice.options == {"stages": 5}
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["options"] == {"stages": 5}
    assert "#amk.ring<stages = 5" in (tmp_path / "a" / "plan.mlir").read_text()
    env = {"CUDA_VISIBLE_DEVICES": "-1"}
    run = tool("amk", "compile", tiny_model, "-o", tmp_path / "b", env=env)
    assert "pass options  stages=5, tuned on NVIDIA H100 80GB HBM3" in run.stdout
    run = tool_here("amk", "compile", tiny_model, "--no-tuned", "-o", tmp_path / "b", env=env)
    assert (run.returncode, "pass options" in run.stdout) == (0, False)
    run = tool_here("amk", "compile", tiny_model, "--set", "stages=4", "-o", tmp_path / "b", env=env)
    assert "pass options  stages=4\n" in run.stdout


def test_a_kernel_for_prompts_shares_the_weights(model: ImportedModel):
    """It packs them as the tuned kernel does, and leaves out what concerns one token: its ring has fewer stages."""
    choice = Choice({"rows": 16, "stages": 7, "in_flight": 4}, 5)
    backend = CudaBackend(compiler=CachedCompiler())
    resident = backend.compile(choice.plan(model, TARGET))
    chunk = backend.compile_beside(choice.plan_chunk(model, TARGET, 4), resident.plan)
    assert (chunk.plan.tokens, chunk.plan.grid, chunk.plan.streams) == (4, 5, resident.plan.streams)
    assert chunk.plan.ring.in_flight != 4


def test_whatever_is_tuned_the_kernels_of_a_session_share_the_weights(model: ImportedModel):
    """A value of each option that `amk tune` varies, beside fused attention, which stores weights by KV heads."""
    backend = CudaBackend(compiler=lambda *_: Cubin(b"", Resources(100, 0, 0, 0, 0), ""))
    for axis in axes(TARGET):
        if axis.name != GRID:
            choice = Choice({"fuse_attention": "always", axis.name: axis.values[1]}, 5)
            step, far = choice.plan(model, TARGET), choice.plan_far(model, TARGET)
            backend.compile_session(step, choice.plan_chunk(model, TARGET, 4), far)


def test_options_that_cannot_be_compiled_are_blamed(model: ImportedModel, store: TunedStore, tmp_path: Path):
    path = store.put(record(model, options={"stages": 1000}))
    with pytest.raises(CompileError, match=rf"do not fit.*the options are those of {path}: --no-tuned leaves them out"):
        compile(model, "sm_90a", tmp_path / "out")
    with pytest.raises(CompileError, match="do not fit") as refused:
        compile(model, "sm_90a", tmp_path / "out", options={"stages": 1000})
    assert "--no-tuned" not in str(refused.value)


def test_refused_options(tool_here, tiny_model: Path):
    run = tool_here("amk", "compile", tiny_model, "--set", "rows=x", "-o", "out")
    assert run.returncode == 2
    assert run.stderr == "amk: error: --set: rows: expected an integer, found 'x'\n"
