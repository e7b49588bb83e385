"""The `amk` dialect: attributes and types that the three levels share (defined in `amk_ir`); it has no operations."""

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
from ..amk_ir.quantized_type import QuantizedType

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
        QuantizedType,
        RingAttr,
        RopeFrequenciesAttr,
    ],
)
