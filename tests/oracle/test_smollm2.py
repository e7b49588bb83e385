"""SmolLM2-135M-Instruct on the reference backend against transformers: same weights, same greedy tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hf_oracle import all_logits, transformers_model
from prompts import PROMPTS

import amk

TOKENS = 32


@pytest.fixture(scope="module")
def imported():
    return amk.import_model("smollm2-135m-instruct", max_seq=256)


@pytest.fixture(scope="module")
def oracle(imported):
    return transformers_model(imported)


@pytest.fixture(scope="module")
def session(imported):
    with amk.open_session(imported) as session:
        yield session


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_continuation_equals_that_of_transformers(imported, oracle, session, prompt):
    """One pass over the whole text says what follows each prefix: a continuation is greedy if each of its tokens does."""
    ids = imported.load_tokenizer().apply_chat([{"role": "user", "content": prompt}])
    session.reset()
    found = list(session.generate(ids, TOKENS))
    assert len(found) == TOKENS
    assert all_logits(oracle, [*ids, *found[:-1]])[len(ids) - 1 :].argmax(-1).tolist() == found


def test_logits_agree_at_every_position_of_a_text(imported, oracle, session):
    ids = imported.load_tokenizer().encode("The quick brown fox jumps over the lazy dog. 1, 2, 3 — naïve café!")
    expected = all_logits(oracle, ids)
    session.reset()
    for position, token in enumerate(ids):
        _, logits = session.executable.step(token, position)
        error = np.linalg.norm(logits - expected[position]) / np.linalg.norm(expected[position])
        assert error < 1e-4, f"position {position}"
