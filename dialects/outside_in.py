"""Verification from the outside in, for ops that other ops look at.

xDSL verifies what is in an op before the op itself, and in textual order. So the verifier of an event would see a loop
around it, or a buffer after it, that nobody has looked at yet: without properties, or with some of the wrong kind.
"""

from __future__ import annotations

from xdsl.ir import Operation
from xdsl.irdl import IRDLOperation
from xdsl.utils.exceptions import VerifyException


class OutsideIn(IRDLOperation):
    """Base of ops whose own definition (properties, regions, traits) is checked before whatever stands in them or beside
    them in the same op is verified."""

    def verify(self, verify_nested_ops: bool = True) -> None:
        if verify_nested_ops:
            _check_definition(self)
            for region in self.regions:
                for block in region.blocks:
                    for op in block.ops:
                        if isinstance(op, OutsideIn):
                            _check_definition(op)
        super().verify(verify_nested_ops)


def _check_definition(op: Operation) -> None:
    definition = type(op).get_irdl_definition() if isinstance(op, IRDLOperation) else None
    assert definition is not None
    try:
        definition.verify(op)
    except VerifyException as e:
        op.emit_error(f"Operation does not verify: {e}", e)
