"""How the next token is chosen from the logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..amk_ir.errors import UsageError
from .backend import Logits


@dataclass(frozen=True)
class Sampling:
    """Greedy unless `temperature` is above 0; then a token is drawn, and equal seeds draw equal tokens.

    top_k: only the so many best tokens (0: all). top_p: only the best tokens whose probabilities together reach it,
    always at least one (1: all). seed: None draws differently every time.

    Raises UsageError for values that make no sense.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise UsageError(f"temperature: expected a finite number of at least 0, found {self.temperature}")
        if self.top_k < 0:
            raise UsageError(f"top-k: expected 0 (off) or more, found {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p: expected a number above 0 and at most 1, found {self.top_p}")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed: expected 0 or more, found {self.seed}")

    @property
    def greedy(self) -> bool:
        """Whether the best token is taken."""
        return self.temperature == 0


class Sampler:
    """Draws tokens as a `Sampling` says; keeps the random state of one sequence."""

    def __init__(self, sampling: Sampling):
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)

    def choose(self, best: int, logits: Logits) -> int:
        """The next token. `best` is the argmax of `logits` ([vocab_size]), which the kernel has computed already."""
        if self.sampling.greedy:
            return best
        tokens, probabilities = candidates(logits, self.sampling)
        return int(self._random.choice(tokens, p=probabilities))


def candidates(logits: Logits, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may be drawn, best first, and their probabilities (float64, sum 1).

    Ties are broken towards the lower token id, as argmax does.
    """
    order = np.argsort(-logits, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    scores = logits[order].astype(np.float64)
    # Subtracting first keeps a tiny temperature from making infinities that have no difference.
    with np.errstate(over="ignore"):
        weights = np.exp((scores - scores[0]) / sampling.temperature)
    probabilities = weights / weights.sum()
    if sampling.top_p < 1:
        # the tokens before which the sum has not yet reached top_p
        kept = int(np.searchsorted(np.cumsum(probabilities), sampling.top_p, side="left")) + 1
        order, probabilities = order[:kept], probabilities[:kept] / probabilities[:kept].sum()
    return order, probabilities
