"""Prompts for comparisons of whole models, and how two greedy continuations are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

PROMPTS = (
    "Why is the sky blue?",
    "Write a short poem about the sea.",
    "What is the capital of France, and what is it known for?",
    "Explain recursion to a ten-year-old.",
    "List five healthy breakfast ideas.",
    "Translate 'good morning' into Spanish, French and German.",
    "Give me a recipe for pancakes.",
    "What happened in 1969?",
)

TIE = 0.05
"""Two logits closer than this may change places when the arithmetic is bf16."""


@dataclass(frozen=True)
class Difference:
    """A place where a continuation left the oracle's: the oracle's token and margin, and the token found."""

    position: int
    expected: int
    found: int
    margin: float


def differences(
    expected: Sequence[int], margins: Sequence[float], step: Callable[[int, int], int], prompt: Sequence[int]
) -> list[Difference]:
    """Runs `step(token, position) -> next token` along the oracle's continuation; where its choice differs.

    The oracle's tokens are fed whatever `step` chooses, so one near tie does not hide what follows.
    """
    found: list[Difference] = []
    text = [*prompt, *expected]
    for position, token in enumerate(text[:-1]):
        chosen = step(token, position)
        index = position + 1 - len(prompt)
        if index >= 0 and chosen != expected[index]:
            found.append(Difference(position, expected[index], chosen, margins[index]))
    return found
