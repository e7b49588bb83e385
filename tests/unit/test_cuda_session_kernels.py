"""The kernels of one session: compiled together, checked against each other, loaded side by side. No GPU."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from amk.amk_ir.errors import CompileError, ScheduleError, UsageError
from amk.amk_ir.targets import Target, get_target
from amk.backends.cuda import backend as backend_module
from amk.backends.cuda.backend import CudaBackend, SessionKernels
from amk.backends.cuda.compile import CompiledKernel, compile_together
from amk.backends.cuda.nvrtc import Cubin, Resources
from amk.frontends.import_model import ImportedModel, import_model
from amk.passes.verify_schedule import VerifiedKernel
from amk.tools.tuned import Choice

TARGET = get_target("sm_90a")
CHOICE = Choice({}, 5)


@pytest.fixture
def model(tiny_model: Path) -> ImportedModel:
    return import_model(tiny_model, weight_dtype="bf16", kv_dtype="bf16")


def no_cubin(source: str, target: Target, kernel: str) -> Cubin:
    return Cubin(source.encode(), Resources(100, 0, 0, 0, 0), "log")


def kernels(model: ImportedModel, token_loop: bool = False) -> SessionKernels:
    step, chunk, far = CHOICE.plan(model, TARGET), CHOICE.plan_chunk(model, TARGET, 4), CHOICE.plan_far(model, TARGET)
    return CudaBackend(compiler=no_cubin, token_loop=token_loop).compile_session(step, chunk, far)


def test_each_is_compiled_as_it_is_alone(model: ImportedModel):
    together = kernels(model, token_loop=True)
    assert together.chunk is not None and together.far is not None
    backend = CudaBackend(compiler=no_cubin, token_loop=True)
    step = backend.compile(together.step[0])
    assert together.step[1] == step
    assert together.chunk[1] == backend.compile_beside(together.chunk[0], step.plan)
    assert together.far[1] == backend.compile_beside(together.far[0], step.plan, True)
    assert [pair[1].plan.token_loop is None for pair in (together.step, together.chunk, together.far)] == [
        False,
        True,
        False,
    ]


def test_they_are_compiled_at_the_same_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    meeting = threading.Barrier(2, timeout=30)

    def job() -> CompiledKernel:
        meeting.wait()  # broken if the other one is only started after this one
        return cast(CompiledKernel, object())

    assert len(compile_together([job, job])) == 2


def test_the_first_failure_is_the_one_that_is_told(monkeypatch: pytest.MonkeyPatch):
    ended: list[int] = []

    def job(number: int) -> Callable[[], CompiledKernel]:
        def run() -> CompiledKernel:
            ended.append(number)
            if number:
                raise CompileError(f"kernel {number}")
            return cast(CompiledKernel, object())

        return run

    with pytest.raises(CompileError, match="kernel 1"):
        compile_together([job(0), job(1), job(2)])
    assert sorted(ended) == [0, 1, 2]


def test_kernels_that_differ_in_layout_are_refused(model: ImportedModel):
    step = CHOICE.plan(model, TARGET)
    other = Choice({"rows": 16}, 5).plan_far(model, TARGET)
    with pytest.raises(CompileError, match="stored otherwise"):
        CudaBackend(compiler=no_cubin).compile_session(step, None, other)


def test_kernels_of_another_kind_are_refused(model: ImportedModel):
    step, chunk = CHOICE.plan(model, TARGET), CHOICE.plan_chunk(model, TARGET, 4)
    backend = CudaBackend(compiler=no_cubin)
    with pytest.raises(UsageError, match="several tokens a step without outputs"):
        backend.compile_session(step, step)
    with pytest.raises(UsageError, match="4 tokens"):
        backend.compile_session(step, None, chunk)
    with pytest.raises(UsageError, match="4 tokens"):
        backend.compile_session(chunk)
    with pytest.raises(ScheduleError, match="only verified kernels"):
        backend.compile_session(cast(VerifiedKernel, step.kernel), chunk)
    whole = kernels(model)
    assert whole.chunk is not None
    longer = replace(whole.chunk[1], plan=replace(whole.chunk[1].plan, max_seq=7))
    with pytest.raises(CompileError, match="differ in max_seq: 7 and 64"):
        replace(whole, chunk=(whole.chunk[0], longer)).check()


class FakeKernel:
    """What `CudaBackend` makes of a cubin on a GPU."""

    alive: list["FakeKernel"]
    refuse = ""

    def __init__(self, plan: Any, image: bytes, weights: Iterator[np.ndarray], entry: str, **options: Any):
        self.plan, self.image = plan, image
        self.beside = options.get("beside")
        self.weight_bytes = sum(piece.nbytes for piece in weights)
        if plan.name == self.refuse or (self.refuse == "chunk" and plan.tokens > 1):
            raise CompileError("refused")
        self.alive.append(self)

    def close(self) -> None:
        self.alive.remove(self)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> type[FakeKernel]:
    monkeypatch.setattr(backend_module, "LoadedKernel", FakeKernel)
    FakeKernel.alive = []
    monkeypatch.setattr(FakeKernel, "refuse", "")
    return FakeKernel


def test_they_are_loaded_beside_the_first(model: ImportedModel, gpu: type[FakeKernel]):
    given = kernels(model)
    pieces = [np.zeros(10, np.uint8), np.zeros(5, np.uint8)]
    executable = CudaBackend().load_session(given, pieces, 16)
    step, chunk, far = (cast(Any, k) for k in (executable.loaded, executable.chunk_kernel, executable.far_kernel))
    assert (step.weight_bytes, chunk.weight_bytes, far.weight_bytes) == (15, 0, 0)
    assert (step.beside, chunk.beside, far.beside) == (None, step, step)
    for loaded, pair in ((step, given.step), (chunk, given.chunk), (far, given.far)):
        assert pair is not None
        assert loaded.image == pair[1].image
    assert (executable.chunk, executable.far_from) == (4, 16)
    executable.close()
    assert not gpu.alive


def test_nothing_is_left_when_one_does_not_load(model: ImportedModel, gpu: type[FakeKernel]):
    gpu.refuse = "chunk"
    with pytest.raises(CompileError, match="refused"):
        CudaBackend().load_session(kernels(model), [], 16)
    assert not gpu.alive
