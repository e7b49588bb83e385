"""Rotary frequencies against transformers."""

import numpy as np
import pytest
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from amk.amk_ir.attrs import RopeFrequencies
from amk.amk_ir.rope import inverse_frequencies

CASES = [
    RopeFrequencies(64, 10000.0),
    RopeFrequencies(16, 100000.0),
    RopeFrequencies(256, 500000.0),
    RopeFrequencies(64, 10000.0, "linear", 4.0),
    RopeFrequencies(64, 500000.0, "llama3", 32.0, 1.0, 4.0, 8192),
    RopeFrequencies(128, 500000.0, "llama3", 8.0, 1.0, 4.0, 8192),
]


@pytest.mark.parametrize("rope", CASES, ids=lambda r: f"{r.scaling}-{r.head_dim}")
def test_inverse_frequencies_equal_those_of_transformers(rope: RopeFrequencies):
    parameters = {"rope_type": rope.scaling, "rope_theta": rope.theta}
    if rope.scaling != "default":
        parameters["factor"] = rope.factor
    if rope.scaling == "llama3":
        parameters |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_max_position,
        }
    config = LlamaConfig(
        head_dim=rope.head_dim, hidden_size=rope.head_dim * 2, num_attention_heads=2, rope_parameters=parameters
    )
    expected = LlamaRotaryEmbedding(config).inv_freq
    np.testing.assert_allclose(inverse_frequencies(rope), expected.numpy(), rtol=3e-7)
