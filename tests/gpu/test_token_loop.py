"""Several steps in one launch on a GPU: the tokens of one step a launch, as they are made."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cuda_models import CONFIGS, RandomWeights, llama_config, verified

from amk.amk_ir.errors import DeviceError, StuckWaitError, UsageError
from amk.amk_ir.targets import Target
from amk.backends.cuda.backend import CudaBackend, CudaExecutable
from amk.backends.cuda.emit import DroppedSignal

WIDE = llama_config(576, 1536, 4, 9, 3, 64, 4096, 512, tied=False)


def load(config: dict[str, Any], target: Target, sms: int = 8, **options: Any) -> CudaExecutable:
    handoff = options.pop("handoff", "auto")
    kernel = verified(config, target.name, sms=sms, handoff=handoff)
    return CudaBackend(token_loop=True, **options).load(kernel, RandomWeights(kernel.kernel))


def one_by_one(gpu: CudaExecutable, token: int, count: int) -> list[int]:
    gpu.reset()
    tokens = [token]
    for pos in range(count):
        tokens.append(gpu.step(tokens[-1], pos)[0])
    return tokens[1:]


@pytest.mark.parametrize("handoff", ["auto", "counter"])
@pytest.mark.parametrize("name", ["mha", "odd"])
def test_the_same_tokens(name: str, handoff: str, target: Target) -> None:
    gpu = load(CONFIGS[name], target, handoff=handoff)
    expected = one_by_one(gpu, 5, 60)
    for lengths in ((60,), (1, 2, 57), (20, 20, 20)):
        gpu.reset()
        found = [5]
        for length in lengths:
            found += gpu.steps(found[-1], len(found) - 1, length)
        assert found[1:] == expected
    gpu.close()


def test_the_whole_grid_over_many_launches(target: Target) -> None:
    gpu = load(WIDE, target, target.num_sms)
    expected = one_by_one(gpu, 5, 500)
    for _ in range(20):
        gpu.reset()
        assert list(gpu.steps(5, 0, 500)) == expected
    gpu.close()


def test_a_stop_token_ends_the_launch(target: Target) -> None:
    gpu = load(WIDE, target, target.num_sms)
    expected = one_by_one(gpu, 5, 100)
    for n in range(1, 100, 7):
        first = expected.index(expected[n])
        gpu.reset()
        assert list(gpu.steps(5, 0, 100, {expected[n]})) == expected[: first + 1]
        assert list(gpu.steps(expected[first], first + 1, 99 - first)) == expected[first + 1 :]
    gpu.close()


def test_tokens_come_before_the_launch_ends(target: Target) -> None:
    """The first tokens are there while later steps are still run; who goes away does not disturb the next launch."""
    gpu = load(WIDE, target, target.num_sms)
    expected = one_by_one(gpu, 5, 500)
    gpu.reset()
    start = time.perf_counter()
    tokens = gpu.steps(5, 0, 500)
    first = next(tokens)
    first_s = time.perf_counter() - start
    assert [first, *tokens] == expected
    assert first_s < (time.perf_counter() - start) / 4
    gpu.reset()
    assert next(gpu.steps(5, 0, 500)) == expected[0]
    assert gpu.step(expected[0], 1)[0] == expected[1]
    gpu.close()


def test_a_missing_signal_in_a_later_step(target: Target) -> None:
    kernel = verified(CONFIGS["mha"], target.name, sms=8)
    counter = next(iter(kernel.kernel.counters))
    backend = CudaBackend(token_loop=True, time_limit_s=0.3, drop_signal=DroppedSignal(counter, 1, step=3))
    gpu = backend.load(kernel, RandomWeights(kernel.kernel))
    with pytest.raises(StuckWaitError, match=rf"at position 3 .*@{counter}"):
        list(gpu.steps(5, 0, 20))
    with pytest.raises(DeviceError, match="reset"):
        gpu.step(5, 0)
    gpu.reset()
    tokens = gpu.steps(5, 0, 20)
    assert len([next(tokens), next(tokens), next(tokens)]) == 3
    with pytest.raises(StuckWaitError):
        next(tokens)
    gpu.close()


def test_without_the_loop_it_is_refused(target: Target) -> None:
    kernel = verified(CONFIGS["gqa"], target.name, sms=8)
    gpu = CudaBackend().load(kernel, RandomWeights(kernel.kernel))
    with pytest.raises(UsageError, match="one step a launch"):
        gpu.steps(5, 0, 2)
    gpu.close()
