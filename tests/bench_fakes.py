"""Engines, devices and workshops without a GPU: logits from a seed, times from a model of them, in microseconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amk.amk_ir.errors import AmkError
from amk.amk_ir.targets import Target, get_target
from amk.tools.bench.engine import KernelFacts
from amk.tools.tune.space import Candidate

FACTS = KernelFacts("digest", 132, 544, 10, 16384, 1000, 1200)


class FakeEngine:
    """Logits are a function of the token and the position, shifted by `offset` times a fixed direction.

    us: of a step at a position; noise: deviation of single times, as a part of them. unsteady: every step has other bits.
    error: raised by steps and timings from the call number `fails_after` on.
    """

    facts = FACTS

    def __init__(
        self,
        us: Callable[[int], float] = lambda pos: 100 + pos / 100,
        *,
        vocab: int = 50,
        noise: float = 0.0,
        offset: float = 0.0,
        unsteady: bool = False,
        error: AmkError | None = None,
        fails_after: int = 0,
        randomness: random.Random | None = None,
        source: Any = None,
    ):
        self.us, self.vocab, self.noise, self.offset, self.unsteady = us, vocab, noise, offset, unsteady
        self.error, self.calls_left = error, fails_after
        self.random = randomness or random.Random(0)
        self.source = source
        self.steps = 0
        self.launches = 0
        self.closed = False

    def _call(self) -> None:
        assert not self.closed, "used after close"
        if self.error is not None:
            if self.calls_left <= 0:
                raise self.error
            self.calls_left -= 1

    def step(self, token: int, pos: int) -> tuple[int, NDArray[np.float32]]:
        self._call()
        self.steps += 1
        if self.source is not None:
            return self.source.step(token, pos)
        logits = np.random.default_rng([token, pos]).standard_normal(self.vocab).astype(np.float32)
        direction = np.random.default_rng(7).standard_normal(self.vocab).astype(np.float32)
        logits = logits + np.float32(self.offset + (1e-6 * self.steps if self.unsteady else 0)) * direction
        return int(logits.argmax()), logits

    def time_steps(self, pos: int, repeats: int) -> list[float]:
        self._call()
        self.launches += repeats
        return [self.us(pos) * (1 + self.noise * self.random.gauss(0, 1)) for _ in range(repeats)]

    def reset(self) -> None:
        self._call()

    def close(self) -> None:
        self.closed = True
        if self.source is not None:
            self.source.close()


@dataclass
class FakeDevice:
    """used: what `used_bytes` says, call by call; the last one from then on."""

    name: str = "NVIDIA H100 80GB HBM3"
    target: Target = field(default_factory=lambda: get_target("sm_90a"))
    used: list[int] = field(default_factory=lambda: [1000])

    def used_bytes(self) -> int:
        return self.used.pop(0) if len(self.used) > 1 else self.used[0]

    def read_peak(self) -> float:
        return 3e12


class FakeWorkshop:
    """us: of a step, by candidate and position. plans: digest of a candidate, or what its lowering raises. loads: keyword
    arguments of its engine, or what loading it raises. place: by how much the engine loaded as number 0, 1, ... is slower
    for where it lies."""

    def __init__(
        self,
        us: Callable[[Candidate, int], float],
        *,
        noise: float = 0.0,
        plans: Callable[[Candidate], str | Exception] = str,
        loads: Callable[[Candidate], Mapping[str, Any] | Exception] = lambda _: {},
        place: Callable[[int], float] = lambda _: 1.0,
    ):
        self.us, self.noise, self.plans, self.loads, self.place = us, noise, plans, loads, place
        self.random = random.Random(0)
        self.engines: list[FakeEngine] = []
        self.planned: list[str] = []

    def plan(self, candidate: Candidate) -> str:
        self.planned.append(str(candidate))
        found = self.plans(candidate)
        if isinstance(found, Exception):
            raise found
        return found

    def load(self, candidate: Candidate) -> FakeEngine:
        assert str(candidate) in self.planned, "only what was verified is loaded"
        assert sum(not engine.closed for engine in self.engines) <= 1, "two at a time"
        found = self.loads(candidate)
        if isinstance(found, Exception):
            raise found
        factor = self.place(len(self.engines))
        engine = FakeEngine(
            lambda pos: factor * self.us(candidate, pos), noise=self.noise, randomness=self.random, **found
        )
        self.engines.append(engine)
        return engine
