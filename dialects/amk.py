"""The `amk` dialect: attributes that the three levels share (defined in `amk_ir.attrs`); it has no operations."""

from xdsl.ir import Dialect

from ..amk_ir.attrs import (
    AccessAttr,
    BufferKindAttr,
    CheckpointAttr,
    DomainAttr,
    IndicesAttr,
    LinearAttr,
    PlacementAttr,
    RingAttr,
    RopeFrequenciesAttr,
)

Amk = Dialect(
    "amk",
    [],
    [
        AccessAttr,
        BufferKindAttr,
        CheckpointAttr,
        DomainAttr,
        IndicesAttr,
        LinearAttr,
        PlacementAttr,
        RingAttr,
        RopeFrequenciesAttr,
    ],
)
