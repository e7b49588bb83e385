"""The element type of quantised weights: what tensors of `graph`, `task` and `queue` say of codes, scales and zeros.

The shape of such a tensor is that of its values. Its rows lie one after the other, row-major, each `columns` values, however the
dimensions are cut: element number i belongs to row `i // columns` and to that row's scale number `i % columns // group`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from xdsl.ir import Attribute, Data, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from .access import Dim
from .attrs import MAX_EXTENT, parse_count
from .errors import UsageError
from .quantization import QuantizedFormat, parse_format


@dataclass(frozen=True)
class QuantizedRows:
    """How rows of `columns` values are quantised."""

    format: QuantizedFormat
    columns: int

    @property
    def problem(self) -> str | None:
        """Why there are no such rows, or None."""
        if not 1 <= self.columns <= MAX_EXTENT:
            return f"rows of quantised weights have 1 to {MAX_EXTENT} columns, found {self.columns}"
        if self.format.group > self.columns:
            return f"groups of {self.format.group} values do not fit rows of {self.columns} columns"
        return None


@irdl_attr_definition
class QuantizedType(Data[QuantizedRows], TypeAttribute):
    """Values kept as codes with scales: `!amk.quantized<"int4:g128", columns = 2048>`.

    The text in quotes is a `QuantizedFormat`. columns: values of a row, which are those that a product sums over.
    """

    name = "amk.quantized"

    @property
    def format(self) -> QuantizedFormat:
        return self.data.format

    @property
    def columns(self) -> int:
        return self.data.columns

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> QuantizedRows:
        with parser.in_angle_brackets():
            start = parser.pos
            text = parser.parse_str_literal(" with a quantised format")
            try:
                format = parse_format(text)
            except UsageError as e:
                parser.raise_error(str(e), start)
            parser.parse_punctuation(",")
            parser.parse_keyword("columns")
            parser.parse_punctuation("=")
            rows = QuantizedRows(format, parse_count(parser, "columns", MAX_EXTENT))
        if rows.problem is not None:
            parser.raise_error(rows.problem, start)
        return rows

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f'"{self.format}", columns = {self.columns}')

    def verify(self) -> None:
        if self.data.problem is not None:
            raise VerifyException(self.data.problem)


def stream_bits(element: Attribute) -> int:
    """Bits that a weight takes of a stream, without scales; 16 for all floats, because the CUDA backend streams no others."""
    return element.format.code_bits if isinstance(element, QuantizedType) else 16


def contracted(shape: Sequence[int], columns: int) -> int | None:
    """How many trailing dimensions of `shape` make up whole rows of `columns` values, None if no number does.

    Of several numbers, which differ by dimensions of one element, the least.
    """
    for count in range(1, len(shape) + 1):
        if prod(shape[len(shape) - count :]) == columns:
            return count
    return None


def columns_problem(dims: Sequence[Dim], shape: Sequence[int], type: QuantizedType) -> str | None:
    """Why the tile `dims` of a buffer of `shape` has no scales of its own, or None.

    Of each row it has all columns, or whole groups of neighbours: in the outermost of the dimensions that make up a row.
    """
    inner = contracted(shape, type.columns)
    assert inner is not None  # checked by the buffer
    group, unit = type.format.group or 1, prod(shape[len(shape) - inner + 1 :])
    for number, (dim, extent) in enumerate(zip(dims[-inner:], shape[-inner:], strict=True)):
        is_whole = dim.kept and not dim.start.terms and dim.start.constant == 0 and dim.extent == extent
        factors = (*(factor for _, factor in dim.start.terms), dim.start.constant, dim.extent)
        is_of_groups = dim.kept and dim.limit is None and all(factor * unit % group == 0 for factor in factors)
        if not is_whole and not (number == 0 and dim.size.is_constant and is_of_groups):
            return (
                f"has whole rows of {type.columns} columns, or whole groups of them, found dimension {dim} of {extent}"
            )
    return None


def rows_problem(shape: Sequence[int], element: Attribute) -> str | None:
    """Why a weight of `shape` does not consist of the rows that its element type says, or None."""
    if isinstance(element, QuantizedType) and contracted(shape, element.columns) is None:
        extents = "x".join(map(str, shape))
        return f"the trailing dimensions of {extents} do not make up rows of {element.columns} columns"
    return None
