"""Attributes shared by the dialects: accesses, index expressions, domains, weight sources, placements, the ring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import Literal

from xdsl.ir import Data
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.str_enum import StrEnum

from .access import Access
from .linear import Linear
from .syntax import format_domain, format_linear_list, parse_access, parse_domain, parse_linear, parse_linear_list

MAX_EXTENT = 2**31 - 1
"""The greatest dimension of a tensor, and the greatest `max_seq`."""
MAX_RANK = 32
"""The greatest number of dimensions of a tensor; NumPy has 64."""
MAX_ELEMENTS = 2**48 - 1
"""The greatest number of elements of a buffer, or of a weight or cache of all layers."""
MAX_LAYERS = 10_000
MAX_TASKS = 2**31 - 1
"""The greatest number of tasks of a family: they are numbered in 32 bits."""


def size_problem(shape: Sequence[int], layers: int = 1) -> str | None:
    """Why no machine has a tensor of this (static) shape, `layers` times, or None."""
    if len(shape) > MAX_RANK:
        return f"a tensor has at most {MAX_RANK} dimensions, found {len(shape)}"
    if max(shape, default=0) > MAX_EXTENT:
        return f"a dimension is at most {MAX_EXTENT}, found {max(shape)}"
    if (elements := prod(shape) * layers) > MAX_ELEMENTS:
        return f"a tensor has at most {MAX_ELEMENTS} elements in all layers together, found {elements}"
    return None


def bounded_product(factors: Sequence[int], most: int) -> int:
    """The product of positive factors, or of the first of them if that exceeds `most`: it has no more digits than needed."""
    result = 1
    for factor in factors:
        result *= factor
        if result > most:
            break
    return result


def parse_count(parser: AttrParser, what: str, most: int) -> int:
    """An integer up to `most`, refused here because an i64 attribute would wrap it. The lower limit is the verifier's."""
    start = parser.pos
    value = parser.parse_integer(allow_boolean=False)
    if value > most:
        parser.raise_error(f"{what} must be at most {most}, found {value}", start)
    if value < -most:
        parser.raise_error(f"{what} must be at least {-most}, found {value}", start)
    return value


@irdl_attr_definition
class AccessAttr(Data[Access]):
    """A region of a buffer: `#amk.access<@x[layer, 0 : 1, tile*64 : 64]>`."""

    name = "amk.access"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Access:
        with parser.in_angle_brackets():
            return parse_access(parser)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(self.data))


@irdl_attr_definition
class LinearAttr(Data[Linear]):
    """An index expression: `#amk.linear<layer*72 + 5>`."""

    name = "amk.linear"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Linear:
        with parser.in_angle_brackets():
            return parse_linear(parser)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(self.data))


@irdl_attr_definition
class IndicesAttr(Data[tuple[Linear, ...]]):
    """The leading indices of a family's tasks: `#amk.indices<[layer, 3]>`."""

    name = "amk.indices"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[Linear, ...]:
        with parser.in_angle_brackets():
            return parse_linear_list(parser)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(format_linear_list(self.data))


@irdl_attr_definition
class DomainAttr(Data[tuple[tuple[str, int], ...]]):
    """An iteration domain, outermost index first: `#amk.domain<(layer = 30, tile = 72)>`."""

    name = "amk.domain"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[tuple[str, int], ...]:
        with parser.in_angle_brackets():
            return parse_domain(parser, parser.Delimiter.PAREN)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"({format_domain(self.data)})")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(n for n, _ in self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(e for _, e in self.data)

    @property
    def size(self) -> int:
        """Number of tasks."""
        return prod(self.shape)

    @property
    def extents(self) -> dict[str, int]:
        return dict(self.data)

    def flatten(self, index: Sequence[int]) -> int:
        """Row-major task number of a full index."""
        flat = 0
        for i, (_, extent) in zip(index, self.data, strict=True):
            flat = flat * extent + i
        return flat

    def unflatten(self, flat: int) -> dict[str, int]:
        """Index values by name of a row-major task number."""
        result: dict[str, int] = {}
        for name, extent in reversed(self.data):
            flat, result[name] = divmod(flat, extent)
        return {n: result[n] for n in self.names}


@irdl_attr_definition
class CheckpointAttr(Data[str]):
    """A checkpoint entry by its Hugging Face name, `{layer}` for the layer: `#amk.checkpoint<"model.norm.weight">`."""

    name = "amk.checkpoint"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> str:
        with parser.in_angle_brackets():
            return parser.parse_str_literal()

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string_literal(self.data)


RopeScaling = Literal["default", "linear", "llama3"]


@dataclass(frozen=True)
class RopeFrequencies:
    """Parameters of the rotary frequencies; see `amk_ir.rope.inverse_frequencies` for the formulas.

    `factor` belongs to `linear` and `llama3`; the other three to `llama3` alone.
    """

    head_dim: int
    theta: float
    scaling: RopeScaling = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192

    @property
    def problem(self) -> str | None:
        """Why these parameters define no frequencies, or None."""
        if self.head_dim <= 0 or self.head_dim % 2 or self.head_dim > MAX_EXTENT:
            return f"rope head_dim must be positive and even, found {self.head_dim}"
        for name in ("theta", "factor", "low_freq_factor", "high_freq_factor"):
            value: float = getattr(self, name)
            if not (isfinite(value) and value > 0):
                return f"rope {name} must be finite and positive, found {value}"
        if self.scaling == "llama3" and self.low_freq_factor >= self.high_freq_factor:
            return (
                f"rope low_freq_factor must be less than high_freq_factor, "
                f"found {self.low_freq_factor} and {self.high_freq_factor}"
            )
        if not 1 <= self.original_max_position <= MAX_EXTENT:
            return f"rope original_max_position must lie in [1, {MAX_EXTENT}], found {self.original_max_position}"
        return None


@irdl_attr_definition
class RopeFrequenciesAttr(Data[RopeFrequencies]):
    """Rotary frequencies computed from parameters: `#amk.rope_frequencies<head_dim = 64, theta = 10000.0>`."""

    name = "amk.rope_frequencies"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> RopeFrequencies:
        values: dict[str, int | float | str] = {}

        def parse_entry() -> None:
            key = parser.parse_identifier(" as a rope parameter")
            parser.parse_punctuation("=")
            text = parser.parse_optional_str_literal()
            values[key] = parser.parse_number(allow_boolean=False) if text is None else text

        parser.parse_comma_separated_list(parser.Delimiter.ANGLE, parse_entry)
        return _checked_rope(parser, values)

    def verify(self) -> None:
        if problem := self.data.problem:
            raise VerifyException(problem)

    def print_parameter(self, printer: Printer) -> None:
        rope = self.data
        text = f"head_dim = {rope.head_dim}, theta = {_float(rope.theta)}"
        if rope.scaling != "default":
            text += f', scaling = "{rope.scaling}", factor = {_float(rope.factor)}'
        if rope.scaling == "llama3":
            text += f", low_freq_factor = {_float(rope.low_freq_factor)}"
            text += f", high_freq_factor = {_float(rope.high_freq_factor)}"
            text += f", original_max_position = {rope.original_max_position}"
        with printer.in_angle_brackets():
            printer.print_string(text)


def _float(value: float) -> str:
    """`value` exactly, in MLIR's float syntax, which requires a point."""
    mantissa, _, exponent = repr(value).partition("e")
    return mantissa + ("" if "." in mantissa else ".0") + (f"e{exponent}" if exponent else "")


def _checked_rope(parser: AttrParser, values: Mapping[str, int | float | str]) -> RopeFrequencies:
    fields = RopeFrequencies.__dataclass_fields__
    if unknown := sorted(values.keys() - fields.keys()):
        parser.raise_error(f"unknown rope parameter '{unknown[0]}', expected one of {', '.join(fields)}")
    if missing := sorted({"head_dim", "theta"} - values.keys()):
        parser.raise_error(f"rope parameter '{missing[0]}' is missing")
    scaling = values.get("scaling", "default")
    if scaling not in ("default", "linear", "llama3"):
        parser.raise_error(f"unknown rope scaling {scaling!r}, expected default, linear or llama3")
    numbers = {k: v for k, v in values.items() if not isinstance(v, str)}
    if len(numbers) != len(values) - ("scaling" in values):
        parser.raise_error("rope parameters other than scaling are numbers")

    def whole(key: str, default: int = 0) -> int:
        value = numbers.get(key, default)
        if not isinstance(value, int):
            parser.raise_error(f"rope {key} must be an integer, found {value}")
        return value

    def real(key: str, default: float = 1.0) -> float:
        value = numbers.get(key, default)
        return float(value) if abs(value) < 1e308 else inf  # an integer may be too large for a float

    rope = RopeFrequencies(
        head_dim=whole("head_dim"),
        theta=real("theta"),
        scaling=scaling,
        factor=real("factor"),
        low_freq_factor=real("low_freq_factor"),
        high_freq_factor=real("high_freq_factor", 4.0),
        original_max_position=whole("original_max_position", 8192),
    )
    if rope.problem is not None:
        parser.raise_error(rope.problem)
    return rope


PlacementKind = Literal["cyclic", "blocked"]


@dataclass(frozen=True)
class Placement:
    """Which SM of a program's range of `n` SMs runs task `t` of `count` tasks.

    `cyclic`: SM `(t + offset) mod n`. `blocked`: SM `s` runs the tasks `[s*count // n, (s+1)*count // n)`, counted
    from SM `offset mod n`.
    """

    kind: PlacementKind
    offset: Linear = Linear()

    def tasks(self, sm: int, n: int, count: int, indices: Mapping[str, int]) -> range:
        """The tasks of SM `sm` (relative to the program's first), in order of execution."""
        shifted = (sm - self.offset.evaluate(indices)) % n
        if self.kind == "cyclic":
            return range(shifted, count, n)
        return range(shifted * count // n, (shifted + 1) * count // n)

    def __str__(self) -> str:
        return f"{self.kind} {self.offset}"


@irdl_attr_definition
class PlacementAttr(Data[Placement]):
    """Placement of a run's tasks on the SMs of its program: `#amk.placement<cyclic layer*72>`."""

    name = "amk.placement"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Placement:
        with parser.in_angle_brackets():
            return parse_placement(parser)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(self.data))


def parse_placement(parser: AttrParser) -> Placement:
    """`('cyclic' | 'blocked') offset`."""
    if parser.parse_optional_keyword("cyclic") is not None:
        return Placement("cyclic", parse_linear(parser))
    parser.parse_keyword("blocked", " or 'cyclic'")
    return Placement("blocked", parse_linear(parser))


@dataclass(frozen=True)
class Ring:
    """Shared-memory ring through which an SM's constant tiles stream.

    `stages` of `stage_bytes` each (a multiple of 512, one fragment block of 8 rows x 32 bf16); at most `in_flight`
    loads outstanding at a time.
    """

    stages: int
    stage_bytes: int
    in_flight: int

    @property
    def total_bytes(self) -> int:
        return self.stages * self.stage_bytes


@irdl_attr_definition
class RingAttr(Data[Ring]):
    """The weight ring of a kernel: `#amk.ring<stages = 10, bytes = 16384, in_flight = 3>`."""

    name = "amk.ring"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Ring:
        entries = dict(parse_domain(parser, parser.Delimiter.ANGLE))
        if entries.keys() != {"stages", "bytes", "in_flight"}:
            parser.raise_error(f"a ring has stages, bytes and in_flight, found {', '.join(entries) or 'nothing'}")
        return Ring(entries["stages"], entries["bytes"], entries["in_flight"])

    def print_parameter(self, printer: Printer) -> None:
        ring = self.data
        with printer.in_angle_brackets():
            printer.print_string(f"stages = {ring.stages}, bytes = {ring.stage_bytes}, in_flight = {ring.in_flight}")


class BufferKind(StrEnum):
    """What a buffer is for.

    weight: constant, written before the first launch. input: written by the host before each step. output: read by
    the host after each step. state: lives across steps (the KV cache). scratch: written and read within one step.
    """

    WEIGHT = "weight"
    INPUT = "input"
    OUTPUT = "output"
    STATE = "state"
    SCRATCH = "scratch"


@irdl_attr_definition
class BufferKindAttr(Data[BufferKind]):
    """The kind of a buffer: `#amk.buffer_kind<scratch>`."""

    name = "amk.buffer_kind"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> BufferKind:
        with parser.in_angle_brackets():
            return parser.parse_str_enum(BufferKind)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(self.data.value)
