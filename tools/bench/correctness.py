"""How far logits are from others: relative error, KL divergence, worst difference, and what counts as right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.errors import UsageError

REFERENCE_LIMIT = 5e-2
"""Relative error up to which logits agree where no bf16 run of another implementation says how far bf16 is off. torch's
own was measured at 1.6e-2 to 7.7e-2 on the shapes that AMK knows by name."""


@dataclass(frozen=True)
class Divergence:
    """Logits against expected ones, over a number of positions.

    relative_error: the worst |ours - expected| / |expected| of a position (2-norms over the vocabulary). kl_mean,
    kl_worst: KL(expected || ours) of the distributions of the next token, in nats. worst_logit: the greatest difference
    of a logit. same_token: positions with the same best token. All but the last two counts are infinite if a logit is
    not finite.
    """

    relative_error: float
    kl_mean: float
    kl_worst: float
    worst_logit: float
    same_token: int
    positions: int

    @property
    def is_finite(self) -> bool:
        """Whether all logits were."""
        return math.isfinite(self.relative_error)


def divergence(logits: NDArray[Any], expected: NDArray[Any]) -> Divergence:
    """Of float arrays [positions, vocab]; UsageError if their shapes differ."""
    if logits.shape != expected.shape or logits.ndim != 2 or not len(logits):
        raise UsageError(f"logits: expected the shape {expected.shape}, found {logits.shape}")
    same = int((logits.argmax(1) == expected.argmax(1)).sum())
    if not (np.isfinite(logits).all() and np.isfinite(expected).all()):
        return Divergence(math.inf, math.inf, math.inf, math.inf, same, len(logits))
    ours, right = logits.astype(np.float64), expected.astype(np.float64)
    difference = ours - right
    norms = np.linalg.norm(right, axis=1)
    errors = np.linalg.norm(difference, axis=1) / np.where(norms == 0, 1, norms)
    log_p, log_q = _log_softmax(right), _log_softmax(ours)
    kl = np.maximum((np.exp(log_p) * (log_p - log_q)).sum(1), 0)  # below 0 only by rounding
    return Divergence(
        float(errors.max()), float(kl.mean()), float(kl.max()), float(np.abs(difference).max()), same, len(logits)
    )


def _log_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = x - x.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@dataclass(frozen=True)
class Check:
    """A verdict on logits. against: what the expected ones are from. ours: of AMK. bf16: of torch's own bf16 run, or
    None if there was none."""

    against: str
    ours: Divergence
    bf16: Divergence | None = None

    @property
    def ok(self) -> bool:
        """Whether ours are as near as torch's bf16 run, by relative error and mean KL divergence; without such a run,
        whether the relative error is at most `REFERENCE_LIMIT`."""
        if not self.ours.is_finite:
            return False
        if self.bf16 is None:
            return self.ours.relative_error <= REFERENCE_LIMIT
        return self.ours.relative_error <= self.bf16.relative_error and self.ours.kl_mean <= self.bf16.kl_mean
