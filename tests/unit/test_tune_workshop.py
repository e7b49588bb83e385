"""Candidates of `amk tune` up to the GPU: lowered, verified, compiled, and their weights packed once for each layout."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from amk.amk_ir.errors import CompileError
from amk.amk_ir.targets import get_target
from amk.backends.cuda.backend import CudaBackend
from amk.backends.cuda.pack import packed_weights
from amk.backends.cuda.plan import KernelPlan
from amk.runtime.compile import plan
from amk.tools.bench.models import BenchModel, open_model
from amk.tools.cached_compiler import CachedCompiler
from amk.tools.tune import workshop
from amk.tools.tune.space import Candidate
from amk.tools.tune.workshop import CudaWorkshop, PackedWeights

TARGET = get_target("sm_90a")


@pytest.fixture
def model(tiny_model: Path) -> BenchModel:
    return open_model(argparse.Namespace(weights="bf16", kv="bf16"), str(tiny_model), [16])


def kernel_plan(model: BenchModel, **options: int) -> KernelPlan:
    return CudaBackend(compiler=CachedCompiler()).compile(plan(model.model.module, TARGET, 4, options)).plan


def test_weights_are_packed_once_for_each_layout(model: BenchModel):
    weights = PackedWeights(model, room=1 << 30)
    plain, other = kernel_plan(model), kernel_plan(model, rows=16)
    same = kernel_plan(model, in_flight=4)
    for which, packed in ((plain, 1), (same, 1), (other, 2), (plain, 2)):
        found = np.concatenate(list(weights.pieces(which)))
        assert np.array_equal(found, np.concatenate(list(packed_weights(which, model.weights))))
        assert weights.packed == packed


def test_what_has_no_room_is_packed_again(model: BenchModel):
    plain, other = kernel_plan(model), kernel_plan(model, rows=16)
    none = PackedWeights(model, room=plain.weight_bytes - 1)
    assert [sum(piece.nbytes for piece in none.pieces(plain)) for _ in range(2)] == [plain.weight_bytes] * 2
    assert none.packed == 2
    one = PackedWeights(model, room=max(plain.weight_bytes, other.weight_bytes))
    for which in (plain, other, other, plain):
        list(one.pieces(which))
    assert one.packed == 3


def test_weights_that_were_packed_in_part_are_not_kept(model: BenchModel):
    """Such as when the GPU had no room for them."""
    weights, which = PackedWeights(model, room=1 << 30), kernel_plan(model)
    next(weights.pieces(which))
    assert sum(piece.nbytes for piece in weights.pieces(which)) == which.weight_bytes
    assert weights.packed == 2


def test_candidates_are_lowered_and_verified(model: BenchModel):
    shop = CudaWorkshop(model, TARGET, 16)
    digests = [shop.plan(c) for c in (Candidate(), Candidate({"in_flight": 4}), Candidate({}, 66), Candidate())]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]
    with pytest.raises(CompileError, match="with stages=1000: .*do not fit"):
        shop.plan(Candidate({"stages": 1000}))


def test_long_contexts_are_of_another_kernel(model: BenchModel, monkeypatch: pytest.MonkeyPatch):
    """As a session has it: then both decide whether two candidates are the same."""
    monkeypatch.setattr(workshop, "far_position", lambda _: 16)
    near, both = CudaWorkshop(model, TARGET, 15), CudaWorkshop(model, TARGET, 16)
    assert near.plan(Candidate()) == both.plan(Candidate()).split()[0]
    assert len(set(both.plan(Candidate()).split())) == 2
