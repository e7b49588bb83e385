"""The words in which a launch of several steps tells the host the tokens that it chose, as they are made."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def sent_token(sent: NDArray[Any], step: int, epoch: int) -> int | None:
    """The token of step number `step` of a launch whose first step has number `epoch`; None if it was not sent (yet).

    sent: [steps] uint64, as device/token_loop.cuh writes them.
    """
    word = int(sent[step])
    return word & 0xFFFFFFFF if word >> 32 == (epoch + step) & 0xFFFFFFFF else None


def count_sent(sent: NDArray[Any], steps: int, epoch: int) -> int:
    """How many steps of such a launch of at most `steps` have sent their token; one after the other, from the first."""
    return next((n for n in range(steps) if sent_token(sent, n, epoch) is None), steps)
