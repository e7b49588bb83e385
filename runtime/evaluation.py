"""How well a model predicts a text, and how far its predictions are from those of a reference: perplexity and KL divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..amk_ir.errors import UsageError

Logits = NDArray[np.float32]
"""Scores of the next token: float32 [positions, vocabulary]."""

_ROWS = 16  # positions worked on at a time: float64 copies of a row have some 100,000 entries


def split_windows(ids: Sequence[int], context: int, limit: int | None = None) -> list[list[int]]:
    """The first `limit` ids in windows of `context` ids that do not overlap; a last window of one id is dropped.

    Each window is fed from position 0. Every id but the first of a window is predicted from those before it.

    Raises:
        UsageError: fewer than two ids, or a window in which nothing is predicted.
    """
    if context < 2:
        raise UsageError(f"context: expected 2 or more, found {context}: the first token of a window is not predicted")
    ids = ids if limit is None else ids[:limit]
    if len(ids) < 2:
        raise UsageError(f"the text has {len(ids)} tokens: expected 2 or more, as the first one is not predicted")
    windows = [list(ids[start : start + context]) for start in range(0, len(ids), context)]
    return windows if len(windows[-1]) > 1 else windows[:-1]


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Logarithms of the probabilities, over the last dimension."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores


@dataclass
class Comparison:
    """Sums over windows of one model's logits beside the reference's."""

    predicted: int = 0
    positions: int = 0
    agreed: int = 0
    nll: float = 0.0
    excess: float = 0.0
    squared_excess: float = 0.0
    kl: float = 0.0
    worst_kl: float = 0.0
    worst_logit: float = 0.0
    finite: bool = field(default=True)

    def add(self, window: Sequence[int], logits: Logits, reference: Logits) -> None:
        """Counts a window of T ids with its logits and the reference's, both [T, vocabulary]."""
        for start in range(0, len(window), _ROWS):
            ours, theirs = logits[start : start + _ROWS], reference[start : start + _ROWS]
            self.finite &= bool(np.isfinite(ours).all())
            if not self.finite:
                return
            log_q, log_p = log_softmax(ours), log_softmax(theirs)
            kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
            self.kl += float(kl.sum())
            self.worst_kl = max(self.worst_kl, float(kl.max()))
            self.worst_logit = max(self.worst_logit, float(np.abs(ours - theirs).max()))
            self.agreed += int((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).sum())
            self.positions += len(ours)
            targets = window[start + 1 : start + 1 + _ROWS]
            rows = np.arange(len(targets))
            nll, excess = -log_q[rows, targets], log_p[rows, targets] - log_q[rows, targets]
            self.nll += float(nll.sum())
            self.excess += float(excess.sum())
            self.squared_excess += float((excess**2).sum())
            self.predicted += len(targets)

    def summary(self) -> dict[str, Any]:
        """perplexity: exp of the mean negative log likelihood of the predicted tokens. change: relative to the
        reference's; change_error: its standard error, from the spread over the tokens. kl_mean, kl_max: of KL(reference ||
        model) over all positions, in nats. top1_agreement: how often the best token is the reference's. logit_max: the
        greatest difference of a logit. All None if a logit was not finite."""
        names = ("perplexity", "change", "change_error", "kl_mean", "kl_max", "top1_agreement", "logit_max")
        if not self.finite:
            return dict.fromkeys(names)
        excess = self.excess / self.predicted
        variance = max(self.squared_excess / self.predicted - excess**2, 0)
        values = (
            exp(self.nll / self.predicted),
            exp(excess) - 1,
            exp(excess) * sqrt(variance / self.predicted),
            self.kl / self.positions,
            self.worst_kl,
            self.agreed / self.positions,
            self.worst_logit,
        )
        return dict(zip(names, values, strict=True))
