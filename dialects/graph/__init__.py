"""The `graph` dialect: what a decoder step computes, as SSA over builtin tensors.

It models the tensor level of ML compilers (StableHLO, linalg on tensors) with the op names of the transformer field.
Weights are symbols that name checkpoint entries, the KV cache is explicit state, the position is an SSA value, and the
identical decoder layers are one region (`graph.layers`), so that the size of the IR does not grow with their number.

Shapes: T is the number of tokens of a step (static); activations are float32 of shape [T, ...]. A symbol declared with
`layers N` stands for N entries, one a layer; its type is that of one layer, and it is usable inside `graph.layers N`.
"""

from __future__ import annotations

from xdsl.ir import Dialect

from .compute import AddOp, ArgmaxOp, AttentionOp, CacheAppendOp, EmbeddingOp, LinearOp, RmsNormOp, RopeOp, SiluMulOp
from .layers import LayersOp, YieldOp, enclosing_layers, resolve
from .structure import CacheOp, ModelOp, ReturnOp, StepOp, WeightOp
from .values import F32Tensor, IdTensor, WeightTensor

__all__ = [
    "AddOp",
    "ArgmaxOp",
    "AttentionOp",
    "CacheAppendOp",
    "CacheOp",
    "EmbeddingOp",
    "F32Tensor",
    "Graph",
    "IdTensor",
    "LayersOp",
    "LinearOp",
    "ModelOp",
    "ReturnOp",
    "RmsNormOp",
    "RopeOp",
    "SiluMulOp",
    "StepOp",
    "WeightOp",
    "WeightTensor",
    "YieldOp",
    "enclosing_layers",
    "resolve",
]

Graph = Dialect(
    "graph",
    [
        AddOp,
        ArgmaxOp,
        AttentionOp,
        CacheAppendOp,
        CacheOp,
        EmbeddingOp,
        LayersOp,
        LinearOp,
        ModelOp,
        ReturnOp,
        RmsNormOp,
        RopeOp,
        SiluMulOp,
        StepOp,
        WeightOp,
        YieldOp,
    ],
)
