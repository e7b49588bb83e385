"""Random Llama models for the GPU tests, made without torch: configuration, weights, verified kernel."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from amk.amk_ir.attrs import CheckpointAttr
from amk.amk_ir.dtypes import FloatType, bf16_from_f32, f32_from_bf16
from amk.dialects.queue import KernelOp
from amk.frontends.import_model import import_config
from amk.passes.graph_to_queue import GraphToQueuePass
from amk.passes.verify_schedule import VerifiedKernel, verify
from amk.runtime.compile import find_kernel, new_context


def llama_config(
    hidden: int = 64,
    mlp: int = 96,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    vocab: int = 300,
    max_seq: int = 64,
    tied: bool = True,
    bias: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """A Hugging Face configuration."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": max_seq,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "attention_bias": bias,
        "mlp_bias": bias,
        **more,
    }


SMOLLM2 = llama_config(576, 1536, 30, 9, 3, 64, 49152, 2048, rope_theta=100000.0)
LLAMA_1B = llama_config(2048, 8192, 16, 32, 8, 64, 128256, 2048, rope_theta=500000.0)
LLAMA_8B = llama_config(4096, 14336, 32, 32, 8, 128, 128256, 8192, tied=False, rope_theta=500000.0)

CONFIGS: dict[str, dict[str, Any]] = {
    "gqa": llama_config(),
    "mha": llama_config(kv_heads=4, tied=False),
    "mqa": llama_config(kv_heads=1, head_dim=64),
    "biases": llama_config(bias=True, tied=False),
    "odd": llama_config(100, 222, 2, 6, 2, 18, 503, 128, tied=False, bias=True),
    "odder": llama_config(57, 101, 3, 5, 5, 22, 131),
    "head_dim_80": llama_config(72, 64, 1, 3, 3, 80),
    "head_dim_256": llama_config(64, 64, 1, 4, 1, 256),
    "llama3": llama_config(
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    ),
}
"""Configurations that cover the branches of the Llama family and widths that no tile divides."""


def lower(
    config: dict[str, Any], target: str = "sm_90a", kv_dtype: FloatType = "bf16", tokens: int = 1, **options: Any
) -> KernelOp:
    """The kernel of a configuration, which the caller may change; `options` are those of graph-to-queue."""
    return find_kernel(lowered(json.dumps(config), target, kv_dtype, tokens, tuple(options.items())).clone())


@cache
def lowered(
    config: str, target: str, kv_dtype: FloatType, tokens: int, options: tuple[tuple[str, Any], ...]
) -> ModuleOp:
    """Many tests lower the same models alike; a copy takes a fraction of the time. Those that change passes: `lower_anew`."""
    model = import_config(json.loads(config), weight_dtype="bf16", kv_dtype=kv_dtype, tokens=tokens)
    module = model.module.clone()
    GraphToQueuePass(target=target, **dict(options)).apply(new_context(), module)
    return module


def lower_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here to the end of the test, `lower` runs the passes each time."""
    monkeypatch.setattr(sys.modules[__name__], "lowered", lowered.__wrapped__)


def verified(config: dict[str, Any], target: str = "sm_90a", **options: Any) -> VerifiedKernel:
    """The verified kernel of a configuration."""
    return verify(lower(config, target, **options))


class RandomWeights:
    """A provider of random tensors of the sizes that a kernel asks for, the same for the same seed."""

    def __init__(self, kernel: KernelOp, seed: int = 0):
        self.entries: dict[str, NDArray[np.uint16]] = {}
        generator = np.random.default_rng(seed)
        for buffer in kernel.buffers.values():
            if not isinstance(buffer.source, CheckpointAttr):
                continue
            shape = buffer.shape[1:] if buffer.is_layered else buffer.shape
            for layer in range(buffer.shape[0] if buffer.is_layered else 1):
                name = buffer.source.data.replace("{layer}", str(layer))
                noise = generator.standard_normal(shape, np.float32)
                if name.endswith("norm.weight"):
                    values = 1 + 0.2 * noise
                elif name.endswith("bias"):
                    values = 0.2 * noise
                else:
                    values = noise * (1.0 if "embed" in name else shape[-1] ** -0.5)
                self.entries[name] = bf16_from_f32(values)

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        """float32 values or bf16 bits; both of the same bf16 numbers."""
        return self.entries[name] if dtype == "bf16" else f32_from_bf16(self.entries[name])
