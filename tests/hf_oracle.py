"""The independent oracle for models: transformers in float32 on the same (dequantised) weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from amk.amk_ir.dtypes import f32_from_bf16
from amk.frontends.import_model import ImportedModel
from amk.tools.bench.baselines import cache_argument


def transformers_model(imported: ImportedModel, *, round_to_bf16: bool = False) -> Any:
    """A `LlamaForCausalLM` in float32 with the weights of `imported`, matrices first rounded to bf16 if asked."""
    assert imported.checkpoint is not None
    config = transformers.LlamaConfig(**{k: v for k, v in imported.raw_config.items() if k != "architectures"})
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model = model.to_empty(device="cpu").float()
    state: dict[str, torch.Tensor] = {}
    for name in model.state_dict():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            name = "model.embed_tokens.weight"
        values = imported.checkpoint.load(name)
        if round_to_bf16 and values.ndim > 1:
            values = f32_from_bf16(imported.checkpoint.load(name, "bf16"))
        state[name] = torch.from_numpy(np.array(values))
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    # `to_empty` leaves buffers that are computed, not loaded
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


@dataclass(frozen=True)
class Continuation:
    """Greedy continuation: ids, and for each the distance between the best and the second best logit."""

    ids: tuple[int, ...]
    margins: tuple[float, ...]


@torch.no_grad()
def greedy(model: Any, prompt: Sequence[int], count: int) -> Continuation:
    """`count` greedy tokens after `prompt`, never stopping at an EOS."""
    cache = transformers.DynamicCache()
    ids, margins, inputs = [], [], torch.tensor([list(prompt)])
    device = next(model.parameters()).device
    for _ in range(count):
        logits = model(inputs.to(device), use_cache=True, **{cache_argument(model): cache}).logits[0, -1]
        best = torch.topk(logits, 2)
        ids.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        inputs = torch.tensor([[ids[-1]]])
    return Continuation(tuple(ids), tuple(margins))


@torch.no_grad()
def all_logits(model: Any, ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits [len(ids), vocab] of one forward pass over `ids`."""
    device = next(model.parameters()).device
    return model(torch.tensor([list(ids)]).to(device)).logits[0].float().cpu().numpy()
