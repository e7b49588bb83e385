"""Which of two kernels is faster, where single times scatter by one or two percent.

Both are loaded at once and timed in turns, so that whatever changes slowly (clocks, temperature, other users) meets both.
A round is a block of launches of each, and which one begins alternates; its ratio is that of the medians of the blocks,
for several contexts their geometric mean. A candidate wins if it is faster in all rounds but one at most (with nine
rounds and equal kernels: by chance in 2% of the races), and by at least `least_gain` in the median round. It has lost as
soon as the first rounds show no gain.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..bench.engine import Engine

_WARM_UP = 2


@dataclass(frozen=True)
class Rules:
    """rounds: of a race. launches: of a block. first_rounds: after which a race without a gain ends. least_gain: part of
    the time that a winner saves at least."""

    rounds: int = 9
    launches: int = 15
    first_rounds: int = 3
    least_gain: float = 0.005


@dataclass(frozen=True)
class Outcome:
    """ratios: candidate / incumbent of each round. incumbent_us, candidate_us: medians over all blocks, a context each."""

    ratios: tuple[float, ...]
    incumbent_us: tuple[float, ...]
    candidate_us: tuple[float, ...]
    is_won: bool

    @property
    def ratio(self) -> float:
        """Of the median round."""
        return statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and third, of the ratios."""
        if len(self.ratios) == 1:
            return self.ratio, self.ratio
        first, _, third = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return first, third


def race(incumbent: Engine, candidate: Engine, contexts: Sequence[int], rules: Rules) -> Outcome:
    """Times both at each of `contexts`. Raises what their steps raise."""
    ratios: list[float] = []
    ours: list[list[float]] = [[] for _ in contexts]
    theirs: list[list[float]] = [[] for _ in contexts]
    for number in range(rules.rounds):
        logs: list[float] = []
        for index, context in enumerate(contexts):
            pair = [(incumbent, ours[index]), (candidate, theirs[index])]
            for engine, times in pair if number % 2 == 0 else reversed(pair):
                times.append(_block(engine, context, rules.launches))
            logs.append(math.log(theirs[index][-1] / ours[index][-1]))
        ratios.append(math.exp(statistics.fmean(logs)))
        if number + 1 == rules.first_rounds and min(ratios) > 1 - rules.least_gain:
            break
    is_won = (
        len(ratios) == rules.rounds
        and statistics.median(ratios) <= 1 - rules.least_gain
        and sum(ratio < 1 for ratio in ratios) >= rules.rounds - 1
    )
    return Outcome(
        tuple(ratios),
        tuple(statistics.median(times) for times in ours),
        tuple(statistics.median(times) for times in theirs),
        is_won,
    )


def _block(engine: Engine, context: int, launches: int) -> float:
    """Microseconds of the median launch."""
    return statistics.median(engine.time_steps(context, _WARM_UP + launches)[_WARM_UP:])
