"""The search of `amk tune`: coordinate descent over the options, every step of it a race that was won.

One option at a time is varied around the best kernel so far; what wins takes its place. It ends when no option brings
anything any more, or when the time is up. Two copies of one kernel differ too, by where their memory lies: a race of the
defaults against themselves comes first, and a winner must save more than that. At the end the winner meets the defaults
once more, and is dropped if it does not win again: of many races, a few are won by luck.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np

from ...amk_ir.errors import AmkError, DeviceError, ExecutionError
from ...runtime.backend import Logits
from ..bench.correctness import REFERENCE_LIMIT, divergence
from ..bench.engine import Engine
from ..bench.measure import token_ids, wanted_positions
from .race import Outcome, Rules, race
from .space import Axis, Candidate

_MARGIN = 1.5
"""How many times the difference of two copies of one kernel a winner saves at least: two copies are a small sample."""

Verdict: TypeAlias = Literal["faster", "slower", "same kernel", "refused", "failed", "wrong"]
"""refused: by a pass, the verifier, the compiler (such as for spills) or for want of memory. failed: it did not run to
its end. wrong: its logits differ from those of the defaults, or from run to run."""


class Workshop(Protocol):
    """Makes engines of candidates."""

    def plan(self, candidate: Candidate) -> str:
        """Lowers and verifies; returns the digest of the schedule. Raises what the passes and the verifier raise."""
        ...

    def load(self, candidate: Candidate) -> Engine:
        """Compiles what was planned and loads it beside other engines. Raises AmkErrors."""
        ...


@dataclass(frozen=True)
class Trial:
    """A candidate that was tried. axis: of the option that it was tried for, with its value before and in it. reason:
    of a verdict without a race. seconds: what it all took."""

    axis: str
    before: object
    after: object
    candidate: Candidate
    verdict: Verdict
    seconds: float
    reason: str = ""
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Found:
    """The end of a search.

    best: the defaults, if nothing beat them. same: the race of the defaults against a copy of themselves, None if the GPU
    had no room for one. default_us, best_us: microseconds of a step at each context. final: the last race, the best
    against the defaults; None if there was none, because nothing won or the GPU had no room. is_complete: no option was
    left to try.
    """

    best: Candidate
    same: Outcome | None
    default_us: tuple[float, ...]
    best_us: tuple[float, ...]
    trials: tuple[Trial, ...]
    final: Outcome | None
    is_complete: bool


@dataclass
class Search:
    """One search. vocab: of the model. budget: seconds. first: a candidate to try before all others, such as one that
    was found earlier. report: told of each trial. keep: told of each winner, with the microseconds of a step of the
    defaults and of the winner at each context. clock: seconds."""

    workshop: Workshop
    axes: Sequence[Axis]
    contexts: tuple[int, ...]
    vocab: int
    budget: float
    rules: Rules = field(default_factory=Rules)
    first: Candidate | None = None
    report: Callable[[Trial], object] | None = None
    keep: Callable[[Candidate, tuple[float, ...], tuple[float, ...]], object] | None = None
    clock: Callable[[], float] = time.monotonic

    def run(self) -> Found:
        """Searches. Raises what the defaults raise: without them there is nothing to compare with."""
        self._start = self.clock()
        self._trials: list[Trial] = []
        self._seen: dict[str, str] = {}  # candidates by the digest of their schedule
        self._ids = token_ids(self.vocab, max(self.contexts) + 1)
        self._best = Candidate()
        self._seen[self.workshop.plan(self._best)] = "the defaults"
        self._engine = self.workshop.load(self._best)
        loaded = self.clock()
        try:
            self._expected = self._logits(self._engine)
            self._default_us = self._times()
            start = self.clock()
            same = self._race_defaults()
            self._last_race = self.clock() - start
            self._slowest = loaded - self._start + self._last_race
            if self.first is not None and self.first != self._best:
                self._try("found before", None, None, self.first)
            is_complete = self._descend()
            final = self._confirm()
            best_us = self._times() if final is None else final.candidate_us
            default_us = self._default_us if final is None else final.incumbent_us
        finally:
            self._engine.close()
        if final is None and self._best.is_default:
            default_us = best_us
        return Found(self._best, same, default_us, best_us, tuple(self._trials), final, is_complete)

    def _race_defaults(self) -> Outcome | None:
        """Two copies of the defaults: from now on, a gain is what exceeds their difference."""
        try:
            engine = self.workshop.load(Candidate())
        except DeviceError:
            return None
        try:
            whole = dataclasses.replace(self.rules, first_rounds=self.rules.rounds)
            outcome = race(self._engine, engine, self.contexts, whole)
        finally:
            engine.close()
        least = max(self.rules.least_gain, _MARGIN * abs(outcome.ratio - 1))
        self.rules = dataclasses.replace(self.rules, least_gain=least)
        return outcome

    def _descend(self) -> bool:
        """Whether it came to an end before the budget did."""
        tried = {str(self._best)}
        while True:
            before = self._best
            for axis in self.axes:
                for value in axis.values:
                    candidate = self._best.replaced(axis.name, value)
                    if str(candidate) in tried:
                        continue
                    if self.clock() - self._start + self._slowest + self._last_race > self.budget:
                        return False
                    tried.add(str(candidate))
                    self._try(axis.name, self._best.value(axis.name), value, candidate)
            if self._best == before:
                return True

    def _try(self, axis: str, before: object, after: object, candidate: Candidate) -> None:
        start = self.clock()
        verdict, reason, outcome = self._verdict(candidate)
        seconds = self.clock() - start
        self._slowest = max(self._slowest, seconds)
        trial = Trial(axis, before, after, candidate, verdict, seconds, reason, outcome)
        self._trials.append(trial)
        if self.report is not None:
            self.report(trial)

    def _verdict(self, candidate: Candidate) -> tuple[Verdict, str, Outcome | None]:
        """Tries a candidate, which is the best one after it if it is faster."""
        try:
            digest = self.workshop.plan(candidate)
        except Exception as e:
            return "refused", _one_line(e), None
        if digest in self._seen:
            return "same kernel", f"as {self._seen[digest]}", None
        self._seen[digest] = str(candidate)
        try:
            engine = self.workshop.load(candidate)
        except Exception as e:
            return "refused", _one_line(e), None
        won = False
        try:
            guarded = _Guarded(engine)
            outcome = race(self._engine, guarded, self.contexts, self.rules)
            if not outcome.is_won:
                return "slower", "", outcome
            if reason := self._disagreement(guarded):
                return "wrong", reason, outcome
            won = True
        except _CandidateFailedError as e:
            return "failed", _one_line(e), None
        finally:
            if not won:
                engine.close()
        self._engine.close()
        self._engine, self._best = engine, candidate
        if self.keep is not None:
            self.keep(candidate, self._default_us, outcome.candidate_us)
        return "faster", "", outcome

    def _disagreement(self, engine: Engine) -> str:
        """How the logits of `engine` differ from those of the defaults, beyond rounding; "" if they do not."""
        try:
            found = self._logits(engine)
        except ExecutionError as e:
            return str(e)
        error = divergence(found, self._expected).relative_error
        if not error <= REFERENCE_LIMIT:
            return f"relative error {error:.1e} against the defaults' logits, at most {REFERENCE_LIMIT:.0e} is rounding"
        return ""

    def _logits(self, engine: Engine) -> Logits:
        """[positions, vocab], of the wanted positions of the text; ExecutionError if a repeated step has other bits."""
        engine.reset()
        wanted = set(wanted_positions(self.contexts))
        rows: list[Logits] = []
        for position, token in enumerate(self._ids):
            logits = engine.step(token, position)[1]
            if position in wanted:
                rows.append(logits)
            if position in self.contexts and engine.step(token, position)[1].tobytes() != logits.tobytes():
                raise ExecutionError(f"the step at position {position} has other logits when it is repeated")
        return np.stack(rows)

    def _confirm(self) -> Outcome | None:
        """The last race; None if there is none, or if it was lost and the best are the defaults from now on."""
        if self._best.is_default:
            return None
        try:
            engine = self.workshop.load(Candidate())
        except DeviceError:
            return None  # somebody else took the room: what was won step by step stays
        try:
            outcome = race(engine, self._engine, self.contexts, self.rules)
            if not outcome.is_won:
                self._best = Candidate()
                engine, self._engine = self._engine, engine
        finally:
            engine.close()
        return outcome if outcome.is_won else None

    def _times(self) -> tuple[float, ...]:
        """Microseconds of the best at each context, without another to compare it with."""
        return tuple(statistics.median(self._engine.time_steps(c, 2 * self.rules.launches)) for c in self.contexts)


class _CandidateFailedError(Exception):
    """A candidate raised an AmkError: unlike one of the incumbent, the search goes on after it."""


class _Guarded:
    """An engine whose errors are those of a candidate."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self.facts = engine.facts

    def step(self, token: int, pos: int) -> tuple[int, Logits]:
        try:
            return self._engine.step(token, pos)
        except AmkError as e:
            raise _CandidateFailedError(str(e)) from e

    def time_steps(self, pos: int, repeats: int) -> list[float]:
        try:
            return self._engine.time_steps(pos, repeats)
        except AmkError as e:
            raise _CandidateFailedError(str(e)) from e

    def reset(self) -> None:
        try:
            self._engine.reset()
        except AmkError as e:
            raise _CandidateFailedError(str(e)) from e

    def close(self) -> None:
        self._engine.close()


def _one_line(error: Exception) -> str:
    """The first line of a message; of one that is not meant for users, with its type: passes may have defects too."""
    text = (str(error).strip().splitlines() or [""])[0]
    expected = isinstance(error, AmkError | _CandidateFailedError)
    return text if expected and text else f"{type(error).__name__}: {text}"
