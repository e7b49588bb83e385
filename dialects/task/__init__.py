"""The `task` dialect: the work in tiles.

It models tile-level IRs (linalg on subviews, Exo, cuTile). A *family* is a set of equal tasks over an iteration
domain; its body loads tiles of buffers, computes on them and stores tiles. The regions written in loads and stores are
what the body accesses, so dependences follow from them and are never written by hand.

Tile values are builtin tensors: float32 activations [T, ...] with T the tokens of a step, weights and cached keys and
values in their storage type. A head dimension is stored as 2 x half, so that a tile can hold rotation pairs (i, i + half)
of the rotary embedding.
"""

from __future__ import annotations

from xdsl.ir import Dialect

from .attention import AttentionMergeOp, AttentionOp, AttentionPartOp
from .compute import (
    MAX_ARGMAX_PART,
    AddOp,
    ArgmaxMergeOp,
    ArgmaxOp,
    ArgmaxPartOp,
    BiasAddOp,
    MatmulOp,
    RmsNormOp,
    RopeOp,
    SiluMulOp,
    SumPartsOp,
)
from .structure import (
    BufferOp,
    CallOp,
    FamilyOp,
    ForOp,
    GatherOp,
    HoldsBuffers,
    LoadOp,
    OrderOp,
    ProgramOp,
    StoreOp,
    StreamOp,
    enclosing_indices,
    find_family,
    loop_bounds,
    verify_access,
    verify_leading_indices,
)
from .tiles import AnyTensor, F32Tensor, FloatTensor, op_of, parse_block, print_block, shape_of, single_block

__all__ = [
    "MAX_ARGMAX_PART",
    "AddOp",
    "AnyTensor",
    "ArgmaxMergeOp",
    "ArgmaxOp",
    "ArgmaxPartOp",
    "AttentionMergeOp",
    "AttentionOp",
    "AttentionPartOp",
    "BiasAddOp",
    "BufferOp",
    "CallOp",
    "F32Tensor",
    "FamilyOp",
    "FloatTensor",
    "ForOp",
    "GatherOp",
    "HoldsBuffers",
    "LoadOp",
    "MatmulOp",
    "OrderOp",
    "ProgramOp",
    "RmsNormOp",
    "RopeOp",
    "SiluMulOp",
    "StoreOp",
    "StreamOp",
    "SumPartsOp",
    "Task",
    "enclosing_indices",
    "find_family",
    "loop_bounds",
    "op_of",
    "parse_block",
    "print_block",
    "shape_of",
    "single_block",
    "verify_access",
    "verify_leading_indices",
]

Task = Dialect(
    "task",
    [
        AddOp,
        ArgmaxMergeOp,
        ArgmaxOp,
        ArgmaxPartOp,
        AttentionMergeOp,
        AttentionOp,
        AttentionPartOp,
        BiasAddOp,
        BufferOp,
        CallOp,
        FamilyOp,
        ForOp,
        GatherOp,
        LoadOp,
        MatmulOp,
        OrderOp,
        ProgramOp,
        RmsNormOp,
        RopeOp,
        SiluMulOp,
        StoreOp,
        StreamOp,
        SumPartsOp,
    ],
)
