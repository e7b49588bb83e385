"""Several steps in one launch: emulated against one step a launch, and what is refused."""

import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_models import CONFIGS, SMOLLM2, RandomWeights, llama_config, verified
from cuda_targets import CUDA_TARGETS

from amk.amk_ir.errors import CompileError, DeviceError, StuckWaitError, UsageError
from amk.amk_ir.targets import TARGETS
from amk.backends.cuda.backend import CudaBackend, CudaExecutable
from amk.backends.cuda.driver import LoadedKernel
from amk.backends.cuda.emit import DroppedSignal, emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.cuda.parameters import MAX_STOPS, Launch
from amk.backends.cuda.sent_tokens import count_sent, sent_token
from amk.backends.cuda.stuck import RECORD_WORDS, stuck_error
from amk.backends.cuda.tracing import read_rows
from amk.backends.reference.backend import ReferenceBackend
from amk.dialects.queue import KernelOp

emulated_only = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


SMALL = llama_config(32, 48, 1, 2, 1, 16, 100, 32, tied=False)


def small(sms: int = 3, tokens: int = 1) -> KernelOp:
    """A kernel with counters for all hand-offs."""
    return verified(SMALL, sms=sms, tokens=tokens, handoff="counter").kernel


def emulate(kernel: KernelOp, folder: Path, drop: DroppedSignal | None = None, limit: float = 60.0) -> EmulatedKernel:
    folder.mkdir(exist_ok=True)
    emitted = emit_kernel(kernel, drop, token_loop=True)
    return EmulatedKernel(emitted, packed_weights(emitted.plan, RandomWeights(kernel)), folder, limit)


def ids(token: int) -> dict[str, np.ndarray]:
    return {"token": np.array([token], np.int32)}


def one_by_one(kernel: EmulatedKernel, token: int, pos: int, count: int) -> list[int]:
    found = [token]
    for n in range(count):
        found.append(int(kernel.step(ids(found[-1]), pos + n)["next_token"][0]))
    return found[1:]


@emulated_only
@pytest.mark.parametrize(
    ("name", "handoff", "target"),
    [
        *((name, handoff, "sm_90a") for name in ("mha", "odd") for handoff in ("auto", "counter")),
        ("mha", "auto", "sm_80"),  # a ring that all lanes of the producer warp fill
    ],
)
def test_the_same_tokens_as_one_step_a_launch(name: str, handoff: str, target: str, tmp_path: Path) -> None:
    """Launches of any length, one after the other, leave the same tokens, logits and cache.

    The last one writes position 16, before which the ring has no rows to stream: the next steps stream what it wrote.
    """
    kernel = verified(CONFIGS[name], target, sms=3, handoff=handoff).kernel
    single = emulate(kernel, tmp_path / "single")
    expected = one_by_one(single, 5, 0, 19)
    several = emulate(kernel, tmp_path / "several")
    tokens = [5]
    starts = (0, 1, 5, 7, 8, 19)
    for first, last in pairwise(starts):
        if last - first == 1:
            tokens += one_by_one(several, tokens[-1], first, 1)
        else:
            tokens += several.steps(ids(tokens[-1]), first, last - first, seed=first)
    assert tokens[1:] == expected
    assert several.epoch == single.epoch == 19
    for name in ("b_logits", "b_k_cache", "b_v_cache"):
        assert np.array_equal(several.arrays[name], single.arrays[name]), name


@emulated_only
@pytest.mark.parametrize("seed", range(3))
def test_a_stop_token_ends_the_launch(seed: int, tmp_path: Path) -> None:
    """Nothing of a further step is done, and the next launch goes on from there."""
    kernel = verified(CONFIGS["mha"], sms=4).kernel
    expected = one_by_one(emulate(kernel, tmp_path / "single"), 7, 0, 6)
    stop = expected[3]
    first = expected.index(stop)
    several = emulate(kernel, tmp_path / "several")
    assert several.steps(ids(7), 0, 6, [299, stop, 0 if stop else 1], seed) == expected[: first + 1]
    assert several.epoch == first + 1
    assert several.arrays["arrivals"].view(np.uint32)[0] == 4 * (first + 1)
    storage = next(b for b in several.plan.buffers if b.name == "k_cache")
    assert storage.cache is not None
    cache = storage.cache.rows(several.arrays["b_k_cache"].view(np.uint16)).reshape(2, 64, -1)
    assert cache[:, : first + 1].any(axis=-1).all()
    assert not cache[:, first + 1 :].any()
    assert several.steps(ids(expected[first]), first + 1, 5 - first, (), seed) == expected[first + 1 :]


@emulated_only
def test_rows_of_the_launch_itself_are_streamed(tmp_path: Path) -> None:
    """Steps beyond position 16 take whole groups of cached rows from the ring, which steps of the same launch wrote."""
    kernel = small()
    expected = one_by_one(emulate(kernel, tmp_path / "single"), 7, 0, 31)
    several = emulate(kernel, tmp_path / "several")
    assert several.steps(ids(7), 0, 31) == expected
    assert len(set(expected)) > 3


@emulated_only
def test_a_stop_after_the_last_step(tmp_path: Path) -> None:
    kernel = verified(CONFIGS["mha"], sms=2).kernel
    several = emulate(kernel, tmp_path)
    tokens = several.steps(ids(7), 0, 3)
    again = emulate(kernel, tmp_path / "again")
    stop = next(t for t in tokens if tokens.index(t) == len(tokens) - 1)
    assert again.steps(ids(7), 0, 3, [stop]) == tokens


@emulated_only
def test_more_sms_than_tasks(tmp_path: Path) -> None:
    """An SM without any task takes part in the ends of steps only."""
    kernel = small(20)
    expected = one_by_one(emulate(kernel, tmp_path / "single"), 3, 0, 4)
    assert emulate(kernel, tmp_path / "several").steps(ids(3), 0, 4) == expected


@emulated_only
@pytest.mark.parametrize("handoff", ["auto", "counter"])
def test_a_missing_signal_in_a_later_step_is_reported(handoff: str, tmp_path: Path) -> None:
    """The error names the step; tokens of steps that ended came before it, and none after."""
    kernel = verified(llama_config(), sms=3, handoff=handoff).kernel
    counter = next(iter(kernel.counters))
    emulated = emulate(kernel, tmp_path / "broken", DroppedSignal(counter, 1, step=2), limit=0.5)
    with pytest.raises(StuckWaitError, match=rf"at position 6 .*@{counter}\[.*expected 3 signals in this step, seen 2"):
        emulated.steps(ids(1), 4, 6)
    assert count_sent(emulated.sent, 6, 1) == 2
    assert [sent_token(emulated.sent, n, 1) for n in range(2)] == one_by_one(
        emulate(kernel, tmp_path / "whole"), 1, 4, 2
    )


def test_an_end_of_a_step_that_is_not_reached_is_named() -> None:
    plan = emit_kernel(small(), token_loop=True).plan
    number = next(i for i, o in enumerate(plan.operations) if o.text == "the end of a step")
    records = np.zeros((plan.grid, 2, RECORD_WORDS), np.uint32)
    records[0, 0] = [1, number, 5, 0, 9, 8, 17, 0, 2]
    text = str(stuck_error(plan, records, epoch=5, pos=10, limit_s=2.0))
    assert "stopped at position 12" in text
    assert "SM 0 waited at 'the end of a step' until all SMs had ended the step, which 1 had not" in text


def test_the_earliest_step_is_the_cause() -> None:
    plan = emit_kernel(small(), token_loop=True).plan
    operation = next(i for i, o in enumerate(plan.operations) if o.text.startswith("queue.wait"))
    records = np.zeros((plan.grid, 2, RECORD_WORDS), np.uint32)
    total = plan.counter_total(0)
    records[0, 0] = [1, operation, 1, 0, 8 * total, 7 * total, 2, 0, 3]
    records[1, 0] = [1, operation, 1, 0, 7 * total, 6 * total + 1, 9, 0, 2]
    text = str(stuck_error(plan, records, epoch=5, pos=0, limit_s=2.0))
    assert "stopped at position 2" in text
    assert "SM 1 waited" in text
    assert f"expected {total} signals in this step, seen 1" in text


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (Launch(0, 1, 0), "one step or more, found 0"),
        (Launch(30, 1, 3), "3 steps can start at positions 0 to 29, found 30"),
        (Launch(-1, 1), "1 steps can start at positions 0 to 31, found -1"),
        (Launch(0, 1, 2, tuple(range(MAX_STOPS + 1))), "at most 32 stop tokens, found 33"),
    ],
)
def test_launches_that_are_refused(launch: Launch, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        launch.check(emit_kernel(small(), token_loop=True).plan)


def test_a_kernel_without_the_loop_runs_one_step_a_launch() -> None:
    plan = emit_kernel(small()).plan
    Launch(31, 1).check(plan)
    with pytest.raises(UsageError, match="runs one step a launch"):
        Launch(0, 1, 2).check(plan)


def test_steps_of_several_tokens_have_no_loop() -> None:
    with pytest.raises(CompileError, match="found 4 tokens a step, 1 inputs and 1 i32 outputs"):
        emit_kernel(small(tokens=4), token_loop=True)


def test_a_kernel_without_the_option_is_as_before() -> None:
    source = emit_kernel(small()).source
    assert "token_loop.cuh" not in source
    assert "while (true)" not in source.partition('extern "C"')[2]


@pytest.mark.parametrize("target", CUDA_TARGETS)
def test_it_compiles_for_all_targets(target: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    backend = CudaBackend(token_loop=True)
    compiled = backend.compile(verified(SMOLLM2, target, sms=TARGETS[target].num_sms))
    assert compiled.plan.token_loop is not None
    assert compiled.resources.spill_stores == 0


def test_the_reference_runs_the_same_steps() -> None:
    kernel = verified(CONFIGS["mha"], sms=3)
    weights = RandomWeights(kernel.kernel)
    single, several = (ReferenceBackend().load(kernel, weights) for _ in range(2))
    token, expected = 5, []
    for pos in range(8):
        token = single.step(token, pos)[0]
        expected.append(token)
    assert list(several.steps(5, 0, 8)) == expected
    assert list(several.steps(expected[2], 3, 5, {expected[5]})) == expected[3 : expected.index(expected[5], 3) + 1]


@emulated_only
def test_a_traced_kernel_runs_several_steps(tmp_path: Path) -> None:
    """The timestamps go on through all steps of a launch."""
    kernel = small()
    plain = emulate(kernel, tmp_path / "plain").steps(ids(3), 0, 3)
    emitted = emit_kernel(kernel, trace="phases", token_loop=True)
    (folder := tmp_path / "traced").mkdir()
    traced = EmulatedKernel(emitted, packed_weights(emitted.plan, RandomWeights(kernel)), folder)
    counts: list[int] = []
    for steps in (1, 3):
        if steps == 1:
            traced.step(ids(3), 0)
        else:
            assert traced.steps(ids(3), 0, steps) == plain
        rows = read_rows(traced.arrays["trace"], traced.plan.grid, traced.trace_events)
        counts.append(sum(len(row.consumers.codes) for row in rows))
    assert counts[1] > 2.5 * counts[0]


class FakeDriver:
    """The driver calls that waiting for a launch makes; the launch ends after `polls` looks at it."""

    class CUresult:
        CUDA_ERROR_NOT_READY = 600

    def __init__(self, polls: int, result: int = 0):
        self.polls, self.result = polls, result

    def cuCtxSetCurrent(self, context: object) -> tuple[int]:
        return (0,)

    def cuStreamQuery(self, stream: int) -> tuple[int]:
        self.polls -= 1
        return (600 if self.polls >= 0 else self.result,)


class Launched(LoadedKernel):
    """A kernel whose launch has sent the tokens `sent` so far, after an earlier launch."""

    def __init__(self, driver: FakeDriver, launch: Launch, sent: list[int]):
        self.plan = emit_kernel(small(), token_loop=True).plan
        self._driver, self._context, self._running = driver, 1, launch
        words = [(launch.epoch + n) << 32 | token for n, token in enumerate(sent)]
        earlier = [(launch.epoch - 1) << 32 | 9] * (launch.steps - len(sent))
        self._sent = np.array([*words, *earlier], np.uint64)
        self.finished = 0

    def finish(self) -> dict[str, np.ndarray]:
        self.finished += 1
        return {}


@pytest.mark.parametrize(("launch", "sent"), [(Launch(0, 7, 3), [5, 6, 7]), (Launch(0, 7, 4, (6,)), [5, 6])])
def test_tokens_end_with_the_launch(launch: Launch, sent: list[int]) -> None:
    """With its last step, or a stop token: what follows that in memory is of an earlier launch."""
    loaded = Launched(FakeDriver(0), launch, sent)
    assert list(loaded.tokens()) == sent
    assert loaded.finished == 1


def test_a_launch_that_ends_too_early_is_an_error() -> None:
    driver = FakeDriver(3)
    tokens = Launched(driver, Launch(0, 7, 4), [5, 6]).tokens()
    assert [next(tokens), next(tokens)] == [5, 6]
    with pytest.raises(DeviceError, match="@model ended after 2 of 4 steps"):
        next(tokens)
    assert driver.polls < 0


def test_a_launch_that_fails_is_an_error() -> None:
    tokens = Launched(FakeDriver(1, 700), Launch(0, 7, 4), []).tokens()
    with pytest.raises(DeviceError, match="700 while running kernel @model"):
        next(tokens)


def test_tokens_need_a_launch_of_several_steps() -> None:
    with pytest.raises(UsageError, match="more than one step"):
        next(Launched(FakeDriver(0), Launch(0, 7, 1), []).tokens())


class FakeKernel:
    """What `CudaExecutable` calls of a loaded kernel; `launches`: (position, steps) of each."""

    def __init__(self) -> None:
        self.plan = emit_kernel(small(), token_loop=True).plan
        self.launches: list[tuple[int, int]] = []
        self.is_running = False

    def write(self, name: str, values: np.ndarray) -> None:
        pass

    def launch(self, pos: int, steps: int = 1, stops: Sequence[int] = ()) -> None:
        self.launches.append((pos, steps))

    def tokens(self) -> Iterator[int]:
        assert self.launches[-1][1] > 1
        yield from range(self.launches[-1][1])

    def step(self, inputs: dict[str, np.ndarray], pos: int) -> dict[str, np.ndarray]:
        self.launch(pos)
        return {"logits": np.zeros(100, np.float32), "next_token": np.array([3], np.int32)}


@pytest.mark.parametrize(
    ("pos", "count", "near", "far"),
    [(0, 4, [(0, 4)], []), (6, 4, [(6, 2)], []), (7, 4, [(7, 1)], []), (8, 4, [], [(8, 4)]), (9, 1, [], [(9, 1)])],
)
def test_a_launch_ends_where_another_kernel_begins(
    pos: int, count: int, near: list[tuple[int, int]], far: list[tuple[int, int]]
) -> None:
    executable = CudaExecutable(cast(LoadedKernel, first := FakeKernel()))
    executable.far_kernel, executable.far_from = cast(LoadedKernel, second := FakeKernel()), 8
    executable._filled = pos
    made = list(executable.steps(5, pos, count))
    assert (first.launches, second.launches) == (near, far)
    assert len(made) == sum(steps for _, steps in (*near, *far))
