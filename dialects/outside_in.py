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
        if not verify_nested_ops:
            super().verify(False)
            return
        if self not in _checked:
            _check_definition(self)
        inner = [op for r in self.regions for block in r.blocks for op in block.ops if isinstance(op, OutsideIn)]
        for op in inner:
            _check_definition(op)
        _checked.update(inner)
        try:
            super().verify()
        finally:
            _checked.difference_update(inner)


_checked: set[Operation] = set()
"""Ops whose own definition has been checked by the op around them, which is being verified."""


def _check_definition(op: Operation) -> None:
    definition = type(op).get_irdl_definition() if isinstance(op, IRDLOperation) else None
    assert definition is not None
    try:
        definition.verify(op)
    except VerifyException as e:
        op.emit_error(f"Operation does not verify: {e}", e)
