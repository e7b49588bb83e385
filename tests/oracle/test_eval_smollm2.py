"""`amk eval` on SmolLM2-135M-Instruct: perplexity as transformers has it, and what formats cost at most."""

from __future__ import annotations

import numpy as np
import pytest
from hf_oracle import all_logits, transformers_model

import amk
from amk.runtime.evaluation import log_softmax, split_windows
from amk.runtime.weight_formats import parse_weight_format
from amk.tools.commands.eval_ import DEFAULT_TEXT
from amk.tools.evaluate import evaluate


@pytest.mark.slow
def test_formats():
    model = amk.import_model("smollm2-135m-instruct", max_seq=128)
    windows = split_windows(model.load_tokenizer().encode(DEFAULT_TEXT.read_text(encoding="utf-8")), 100, 200)
    formats = {name: parse_weight_format(name) for name in ("bf16", "stored", "int8", "int8:g32:f16")}
    reference, bf16, stored, int8, int8_groups = (r.metrics for r in evaluate(model, formats, windows))

    oracle = transformers_model(model)
    predicted = [log_softmax(all_logits(oracle, w))[np.arange(len(w) - 1), w[1:]] for w in windows]
    assert reference["perplexity"] == pytest.approx(np.exp(-np.concatenate(predicted).mean()), rel=1e-4)

    # every matrix of the file is quantised: nothing is rounded
    assert stored["kl_max"] < 1e-9
    assert 0 < bf16["kl_mean"] < 2e-4
    assert bf16["kl_mean"] < int8_groups["kl_mean"] < int8["kl_mean"] < 1e-2
    for metrics in (bf16, int8, int8_groups):
        assert abs(metrics["change"]) < 0.03
        assert metrics["top1_agreement"] > 0.9
