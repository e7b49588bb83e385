"""Sampling against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amk.amk_ir.errors import UsageError
from amk.runtime.sampling import Sampler, Sampling, candidates

LOGITS = np.log(np.array([0.1, 0.4, 0.3, 0.15, 0.05], np.float32))

scores = arrays(np.float32, st.integers(1, 40), elements=st.floats(-80, 80, width=32))


def test_greedy_takes_what_the_kernel_chose():
    assert Sampler(Sampling()).choose(3, LOGITS) == 3


def test_probabilities_are_the_softmax():
    tokens, probabilities = candidates(LOGITS, Sampling(temperature=1))
    assert tokens.tolist() == [1, 2, 3, 0, 4]
    assert probabilities == pytest.approx([0.4, 0.3, 0.15, 0.1, 0.05])


def test_temperature_divides_the_logits():
    _, probabilities = candidates(LOGITS, Sampling(temperature=0.5))
    squares = np.array([0.4, 0.3, 0.15, 0.1, 0.05]) ** 2
    assert probabilities == pytest.approx(squares / squares.sum())


@pytest.mark.parametrize(
    ("top_k", "top_p", "expected"),
    [(2, 1, [1, 2]), (99, 1, [1, 2, 3, 0, 4]), (0, 0.39, [1]), (0, 0.69, [1, 2]), (0, 0.71, [1, 2, 3]), (1, 0.9, [1])],
)
def test_top_k_and_top_p(top_k: int, top_p: float, expected: list[int]):
    tokens, probabilities = candidates(LOGITS, Sampling(1, top_k, top_p))
    assert tokens.tolist() == expected
    assert probabilities.sum() == pytest.approx(1)


@given(scores, st.floats(1e-3, 1e3), st.integers(0, 50), st.floats(1e-3, 1))
def test_candidates_are_a_distribution(logits: np.ndarray, temperature: float, top_k: int, top_p: float):
    tokens, probabilities = candidates(logits, Sampling(temperature, top_k, top_p))
    assert len(tokens) == len(probabilities) >= 1
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1)
    assert (np.diff(probabilities) <= 1e-12).all()
    assert tokens[0] == logits.argmax()


def test_draws_follow_the_probabilities():
    sampler = Sampler(Sampling(temperature=1, seed=7))
    counts = np.bincount([sampler.choose(0, LOGITS) for _ in range(4000)], minlength=5)
    assert counts / 4000 == pytest.approx(np.exp(LOGITS), abs=0.03)


def test_ties_go_to_the_lower_id():
    tokens, _ = candidates(np.zeros(4, np.float32), Sampling(temperature=1, top_k=2))
    assert tokens.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1}, "temperature: expected a finite number"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": -1}, "top-k: expected 0"),
        ({"top_p": 0}, "top-p: expected a number above 0"),
        ({"top_p": 1.5}, "top-p"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_values(values: dict[str, float], message: str):
    with pytest.raises(UsageError, match=message):
        Sampling(**values)
