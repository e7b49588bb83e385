"""Quantised matrices: what their codes, scales and zero points mean.

One in-memory form for all checkpoint formats. Readers make it, the compiler packs it for a device, the reference
backend computes with `QuantizedTensor.dequantize`, which *defines* the values:

    int8, int4, fp8      value = code * scale
    with zero points     value = (code - zero) * scale
    with minimums        value = code * scale + minimum

in float32, each operation rounded to nearest even (`code - zero` is exact). The last form is that of GGUF's Q4_1 and
Q4_K; written with a zero point it would be rounded differently.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from .dtypes import round_to_bf16
from .errors import CheckpointError, UsageError
from .float8 import E4M3_MAX, E4M3_NAN, e4m3_from_f32, f32_from_e4m3
from .scale_search import Offset, search_steps

Storage: TypeAlias = Literal["int8", "int4", "fp8_e4m3"]
ScaleType: TypeAlias = Literal["f32", "bf16", "f16"]
Floats: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[np.int8] | NDArray[np.uint8]

_BITS: dict[Storage, int] = {"int8": 8, "int4": 4, "fp8_e4m3": 8}
_SCALE_BITS: dict[ScaleType, int] = {"f32": 32, "bf16": 16, "f16": 16}
_CHUNK = 1 << 18  # elements worked on at a time
_MAX_THREADS = 16


@dataclass(frozen=True)
class QuantizedFormat:
    """How a matrix [N, K] is quantised; N are its outputs, K its inputs.

    storage: what a code is. group: elements along K that share a scale, 0 for all of them; the last group is shorter
    where `group` does not divide K. block_rows: rows that share a scale. zero_points: with an integer zero for each
    scale. minimums: with a float minimum for each scale. scale_dtype: a type that holds every scale and minimum exactly.

    Its text, which `parse_format` reads: the storage (`fp8` for fp8_e4m3), then, each if it is not the default and after
    a colon, the group `g128` (with several rows `b128x128`: rows x elements), `zp` or `min`, and the scale type.
    """

    storage: Storage
    group: int = 0
    block_rows: int = 1
    zero_points: bool = False
    minimums: bool = False
    scale_dtype: ScaleType = "f32"

    def __post_init__(self) -> None:
        def fail(what: str) -> None:
            raise UsageError(f"quantised format: {what}")

        if self.storage not in get_args(Storage):
            fail(f"storage: expected {', '.join(get_args(Storage))}, found {self.storage!r}")
        if self.scale_dtype not in get_args(ScaleType):
            fail(f"scale_dtype: expected {', '.join(get_args(ScaleType))}, found {self.scale_dtype!r}")
        if self.group < 0:
            fail(f"group: expected 0 (one scale a row) or more elements, found {self.group}")
        if self.block_rows < 1:
            fail(f"block_rows: expected 1 or more, found {self.block_rows}")
        if self.block_rows > 1 and not self.group:
            fail(f"block_rows of {self.block_rows} needs a group")
        if self.zero_points and self.minimums:
            fail("zero points and minimums exclude each other")
        if self.minimums and self.storage != "int4":
            fail(f"only int4 has minimums, found {self.storage}")
        if self.zero_points and self.storage == "fp8_e4m3":
            fail("fp8 has no zero points")

    def __str__(self) -> str:
        parts = ["fp8" if self.storage == "fp8_e4m3" else self.storage]
        if self.block_rows > 1:
            parts.append(f"b{self.block_rows}x{self.group}")
        elif self.group:
            parts.append(f"g{self.group}")
        if self.zero_points:
            parts.append("zp")
        if self.minimums:
            parts.append("min")
        if self.scale_dtype != "f32":
            parts.append(self.scale_dtype)
        return ":".join(parts)

    @property
    def code_bits(self) -> int:
        """Bits of a code."""
        return _BITS[self.storage]

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code: signed integers, except for int4 with zero points or minimums (0 to 15); fp8 codes
        are bit patterns, 0 to 255."""
        match self.storage:
            case "int8":
                return -128, 127
            case "int4":
                return (0, 15) if self.zero_points or self.minimums else (-8, 7)
            case "fp8_e4m3":
                return 0, 255

    @property
    def farthest(self) -> float:
        """The largest magnitude of what a scale is multiplied by."""
        lowest, highest = self.code_range
        return (
            E4M3_MAX if self.storage == "fp8_e4m3" else highest - lowest if self.zero_points else max(-lowest, highest)
        )

    @property
    def code_type(self) -> type[np.int8] | type[np.uint8]:
        """Element type of `QuantizedTensor.codes`."""
        return np.uint8 if self.storage == "fp8_e4m3" else np.int8

    def scales_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape of the scales of a matrix of `shape`: row blocks, groups."""
        rows, columns = shape
        return ceil(rows / self.block_rows), ceil(columns / self.group) if self.group else 1

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Bytes of a matrix of `shape`, densely packed: codes, scales, and zero points of the codes' size or minimums
        of the scales'."""
        row_blocks, groups = self.scales_shape(shape)
        zero_bits = self.code_bits * self.zero_points + _SCALE_BITS[self.scale_dtype] * self.minimums
        bits = shape[0] * shape[1] * self.code_bits
        bits += row_blocks * groups * (_SCALE_BITS[self.scale_dtype] + zero_bits)
        return ceil(bits / 8)


def parse_format(text: str) -> QuantizedFormat:
    """The format that `text` names: `int8`, `int8:g128`, `int4:g128:zp`, `int4:g32:min:f16`, `fp8`, `fp8:b128x128`.

    Raises:
        UsageError: it names none.
    """
    match = re.fullmatch(
        r"(int8|int4|fp8)(?::g([1-9]\d{0,5})|:b([1-9]\d{0,5})x([1-9]\d{0,5}))?(?::(zp|min))?(?::(f32|bf16|f16))?",
        text,
        re.ASCII,
    )
    if match is None:
        raise UsageError(
            f"quantised format {text[:80]!r}: expected int8, int4 or fp8, then optionally a group (:g128) or block "
            f"(:b128x128), :zp or :min, and a scale type (:f16), as in 'int4:g128:zp'"
        )
    storage, group, rows, columns, offset, scale = match.groups()
    return QuantizedFormat(
        storage=cast(Storage, "fp8_e4m3" if storage == "fp8" else storage),
        group=int(group or columns or 0),
        block_rows=int(rows or 1),
        zero_points=offset == "zp",
        minimums=offset == "min",
        scale_dtype=cast(ScaleType, scale or "f32"),
    )


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A quantised matrix [N, K].

    codes: [N, K], int8 (int4 codes one to an element), or uint8 bit patterns for fp8; see `QuantizedFormat.code_range`.
    scales: float32 of `QuantizedFormat.scales_shape`; GGUF has negative ones. zeros: int8 like the scales, with zero points, in the range of
    the codes. minimums: float32 like the scales, for the format that has them. permutation: int32 [K], for a checkpoint
    whose groups are not of neighbouring inputs (act-order): column j of the codes belongs to input `permutation[j]`, and
    groups are of neighbouring columns.
    """

    format: QuantizedFormat
    shape: tuple[int, int]
    codes: Codes
    scales: Floats
    zeros: NDArray[np.int8] | None = None
    minimums: Floats | None = None
    permutation: NDArray[np.int32] | None = None

    def dequantize(self) -> NDArray[np.float32]:
        """The values, float32 [N, K], inputs in the order of the model. This is what the tensor means."""
        result = np.empty(self.shape, np.float32)
        for rows in self._row_chunks():
            values = self._stored_values(rows)
            if self.permutation is None:
                result[rows] = values
            else:
                result[rows, self.permutation] = values
        return result

    def rows(self, start: int, stop: int) -> QuantizedTensor:
        """Rows `start` to `stop`, as views; both must be multiples of `block_rows`, or `stop` the end."""
        step = self.format.block_rows
        if start % step or (stop % step and stop != self.shape[0]) or not 0 <= start <= stop <= self.shape[0]:
            raise ValueError(f"rows {start} to {stop} of {self.shape[0]} are not whole blocks of {step} rows")
        blocks = slice(start // step, ceil(stop / step))
        return QuantizedTensor(
            self.format,
            (stop - start, self.shape[1]),
            self.codes[start:stop],
            self.scales[blocks],
            None if self.zeros is None else self.zeros[blocks],
            None if self.minimums is None else self.minimums[blocks],
            self.permutation,
        )

    def validate(self, where: str) -> None:
        """Checks that the parts fit each other and the format; `where` (file and tensor) begins the message.

        Raises:
            CheckpointError: wrong shapes or types, codes or zeros out of range, a scale or minimum that is not finite,
                or makes values that are not, or is not exact in the scale type, an fp8 code that is NaN, or not a permutation.
        """

        def fail(what: str) -> None:
            raise CheckpointError(f"{where}: {self.format}: {what}")

        def check_array(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
            if array.shape != shape:
                fail(f"{name}: expected shape {list(shape)}, found {list(array.shape)}")
            if array.dtype != dtype:
                fail(f"{name}: expected {np.dtype(dtype)}, found {array.dtype}")

        if min(self.shape) < 1:
            fail(f"expected a matrix with elements, found shape {list(self.shape)}")
        per_scale = self.format.scales_shape(self.shape)
        check_array("codes", self.codes, self.shape, self.format.code_type)
        check_array("scales", self.scales, per_scale, np.float32)
        for name, array, wanted, dtype in (
            ("zero points", self.zeros, self.format.zero_points, np.int8),
            ("minimums", self.minimums, self.format.minimums, np.float32),
        ):
            if (array is not None) != wanted:
                fail(f"{name}: {'missing' if wanted else 'the format has none'}")
            if array is not None:
                check_array(name, array, per_scale, dtype)
        for name, array in (("scale", self.scales), ("minimum", self.minimums)):
            if array is not None:
                _check_floats(name, array, self.format.scale_dtype, fail)
        if (too_large := _is_too_large(self.format, self.scales, self.minimums)).any():
            at = _first(too_large)
            fail(f"scale {at}: {self.scales[tuple(at)]:g} makes values that float32 cannot hold")
        lowest, highest = self.format.code_range
        for name, array in (("code", self.codes), ("zero point", self.zeros)):
            if array is not None and (array.min() < lowest or array.max() > highest):
                at = _first((array < lowest) | (array > highest))
                fail(f"{name} {at}: expected {lowest} to {highest}, found {array[tuple(at)]}")
        if self.format.storage == "fp8_e4m3" and (is_nan := (self.codes & 0x7F) == E4M3_NAN).any():
            fail(f"code {_first(is_nan)}: is NaN")
        if self.permutation is not None:
            check_array("permutation", self.permutation, self.shape[1:], np.int32)
            if not np.array_equal(np.sort(self.permutation), np.arange(self.shape[1])):
                fail(f"permutation: expected each of 0 to {self.shape[1] - 1} once")

    def _row_chunks(self) -> Iterator[slice]:
        step = self.format.block_rows
        count = max(step, _CHUNK // self.shape[1] // step * step)
        return (slice(start, start + count) for start in range(0, self.shape[0], count))

    def _stored_values(self, rows: slice) -> NDArray[np.float32]:
        """The values of whole row blocks, columns in stored order."""
        codes = self.codes[rows]
        if self.format.storage == "fp8_e4m3":
            values = f32_from_e4m3(codes.view(np.uint8))
        else:
            values = codes.astype(np.float32)
        step = self.format.block_rows
        blocks = slice(rows.start // step, ceil(rows.stop / step))

        def per_element(array: NDArray[Any], columns: slice) -> NDArray[Any]:
            """Entries of a part of the groups as [rows, groups, 1]."""
            part = array[blocks, columns, None]
            return part if step == 1 else np.repeat(part, step, axis=0)[: codes.shape[0]]

        for columns, groups in group_spans(self.format, self.shape[1]):
            part = values[:, columns].reshape(codes.shape[0], groups.stop - groups.start, -1)
            if self.zeros is not None:
                part -= per_element(self.zeros, groups)
            part *= per_element(self.scales, groups)
            if self.minimums is not None:
                part += per_element(self.minimums, groups)
            values[:, columns] = part.reshape(codes.shape[0], -1)  # the reshape above may have been a copy
        return values


def quantize(
    array: NDArray[Any], format: QuantizedFormat, importance: NDArray[Any] | None = None, *, search: bool = True
) -> QuantizedTensor:
    """`array` [N, K], finite floats, in `format`, each group (or block) on its own.

    Symmetric: the scale takes the largest magnitude to 127.5, 7.5 or 448, so that all codes are used and no value is off
    by more than half a step. With zero points: the scale
    takes [min, max], widened to contain 0, to the range of the codes, and 0 is represented exactly. With minimums: the
    scale takes [min, max] to the range of the codes. Scales and minimums are rounded to the scale type, zero points and
    then codes to the nearest (ties to even) and clipped to their range. A group of equal zeros has scale 0.

    importance: [K], 0 or more: how much the squared error of each input counts, best its mean square over a text. search:
    look for scales, zero points and minimums with a smaller (weighted) squared error than these, and keep these where
    there are none. For fp8, whose steps grow with its values, there is little to find: search and importance change nothing.

    Raises:
        UsageError: not a matrix, empty, with a NaN or infinity, with a scale that the scale type cannot hold, with values so
            large that codes could mean an infinity, or with an importance of another shape or that is negative or not
            finite.
    """
    values = np.asarray(array, np.float32)
    if values.ndim != 2 or not values.size:
        raise UsageError(f"quantize to {format}: expected a matrix with elements, found shape {list(values.shape)}")
    if not np.isfinite(values).all():
        raise UsageError(f"quantize to {format}: element {_first(~np.isfinite(values))} is not finite")
    shape = values.shape
    weights = None if importance is None else _check_importance(importance, shape[1], format)
    is_searched = search and format.storage != "fp8_e4m3"
    codes = cast(Codes, np.empty(shape, format.code_type))
    per_scale = format.scales_shape(shape)
    scales = np.empty(per_scale, np.float32)
    zeros = np.empty(per_scale, np.int8) if format.zero_points else None
    minimums = np.empty(per_scale, np.float32) if format.minimums else None
    step = format.block_rows
    count = max(step, _CHUNK // shape[1] // step * step)

    def quantize_rows(start: int) -> None:
        blocks = slice(start // step, ceil(min(start + count, shape[0]) / step))
        for columns, groups in group_spans(format, shape[1]):
            part = values[start : start + count, columns]
            # [blocks, rows, groups, elements]; the rows that the last block lacks repeat its last, which changes nothing
            part = np.pad(part, ((0, -part.shape[0] % step), (0, 0)), "edge")
            part = part.reshape(-1, step, groups.stop - groups.start, part.shape[1] // (groups.stop - groups.start))
            scale, zero, minimum = _choose(part, format)
            if is_searched:
                scale, zero, minimum = _improve(
                    part, scale, zero, minimum, format, None if weights is None else weights[columns]
                )
            with np.errstate(over="ignore"):  # of values that are refused below
                code = _encode(part, scale, zero, minimum, format)
            codes[start : start + count, columns] = code.reshape(-1, columns.stop - columns.start)[
                : min(count, shape[0] - start)
            ]
            scales[blocks, groups] = scale
            if zeros is not None:
                zeros[blocks, groups] = zero
            if minimums is not None:
                minimums[blocks, groups] = minimum

    starts = range(0, shape[0], count)
    if len(starts) > 1:  # NumPy lets go of the interpreter lock
        with ThreadPoolExecutor(max_workers=min(len(starts), os.cpu_count() or 1, _MAX_THREADS)) as pool:
            for _ in pool.map(quantize_rows, starts):
                pass
    else:
        for start in starts:
            quantize_rows(start)
    if (too_large := _is_too_large(format, scales, minimums)).any():
        block, group = _first(too_large)
        columns = format.group or shape[1]
        part = np.abs(values[block * step : (block + 1) * step, group * columns : (group + 1) * columns])
        row, column = divmod(int(part.argmax()), part.shape[1])
        at = [block * step + row, group * columns + column]
        raise UsageError(
            f"quantize to {format}: element {at} is {values[tuple(at)]:g}: float32 cannot hold all values that codes with a "
            "scale for it would mean"
        )
    return QuantizedTensor(format, shape, codes, scales, zeros, minimums)


def _is_too_large(format: QuantizedFormat, scales: Floats, minimums: Floats | None) -> NDArray[np.bool_]:
    """Where a code may mean a value that float32 cannot hold, like the scales."""
    largest = np.abs(scales, dtype=np.float64) * format.farthest
    if minimums is not None:
        largest += np.abs(minimums)
    return largest > np.finfo(np.float32).max


def _check_importance(importance: NDArray[Any], columns: int, format: QuantizedFormat) -> Floats:
    """The importance of each column in float32, with a mean of 1; all 0 stays so."""
    weights = np.asarray(importance, np.float64)
    if weights.shape != (columns,):
        raise UsageError(f"quantize to {format}: importance: expected shape [{columns}], found {list(weights.shape)}")
    if not (good := np.isfinite(weights) & (weights >= 0)).all():
        at = _first(~good)
        raise UsageError(
            f"quantize to {format}: importance {at}: expected 0 or more, and finite, found {weights[tuple(at)]:g}"
        )
    largest = weights.max()
    weights = weights / largest if largest else weights  # so that the mean is finite
    return (weights / (weights.mean() or 1)).astype(np.float32)


def _improve(
    part: Floats, scale: Floats, zero: Floats, minimum: Floats, format: QuantizedFormat, weights: Floats | None
) -> tuple[Floats, Floats, Floats]:
    """Scale, zero point and minimum with a smaller squared error than those of `_choose`, which stay where none is found.

    weights: of the columns of `part`.
    """
    blocks, rows, groups, elements = part.shape

    def by_group(array: NDArray[Any]) -> Floats:
        """[blocks, rows, groups, elements] as [blocks x groups, rows x elements]."""
        return np.ascontiguousarray(array.transpose(0, 2, 1, 3), np.float32).reshape(blocks * groups, rows * elements)

    # In steps of the scale, so that no square overflows or vanishes. A scale of 0 leaves nothing to improve.
    is_zero = scale == 0
    unit = np.where(is_zero, np.float32(1), scale)
    with np.errstate(over="ignore", invalid="ignore"):
        above = part - minimum[:, None, :, None] if format.minimums else part
        steps = above / unit[:, None, :, None]
        steps[~np.isfinite(steps)] = 0
        steps = by_group(steps)
        counts = None if weights is None else by_group(np.broadcast_to(weights.reshape(1, 1, groups, -1), part.shape))
        kind: Offset = "integer" if format.zero_points else "real" if format.minimums else "none"
        step, offset = search_steps(steps, zero.reshape(-1), format.code_range, kind, counts)
        step, offset = step.reshape(scale.shape), offset.reshape(scale.shape)
        exact = np.multiply(step, scale, dtype=np.float32)
        found_scale = as_scale_type(exact, format.scale_dtype)
        found_minimum = minimum
        if format.minimums:
            found_minimum = as_scale_type(np.subtract(minimum, offset * exact, dtype=np.float32), format.scale_dtype)
        found_zero = offset if format.zero_points else zero
        usable = np.isfinite(found_scale) & np.isfinite(found_minimum) & (found_scale != 0) & ~is_zero
        usable &= ~_is_too_large(format, found_scale, found_minimum)
        new_scale = np.where(usable, found_scale, scale)
        new_zero = np.where(usable, found_zero, zero)
        new_minimum = np.where(usable, found_minimum, minimum)
        # by what the codes will mean, with all roundings
        after = _squared_error(part, unit, new_scale, new_zero, new_minimum, format, weights)
        before = _squared_error(part, unit, scale, zero, minimum, format, weights)
    better = after < before
    return (
        np.where(better, new_scale, scale),
        np.where(better, new_zero, zero),
        np.where(better, new_minimum, minimum),
    )


def _squared_error(
    part: Floats,
    unit: Floats,
    scale: Floats,
    zero: Floats,
    minimum: Floats,
    format: QuantizedFormat,
    weights: Floats | None,
) -> NDArray[np.float64]:
    """The (weighted) squared error of each group in units of `unit`, float64 [blocks, groups]."""

    def per_element(array: Floats) -> Floats:
        return array[:, None, :, None]

    values = _encode(part, scale, zero, minimum, format).astype(np.float32)
    if format.zero_points:
        values -= per_element(zero)
    values *= per_element(scale)
    if format.minimums:
        values += per_element(minimum)
    values -= part
    values /= per_element(unit)
    squares = np.square(values, dtype=np.float64)
    if weights is not None:
        squares *= weights.reshape(1, 1, part.shape[2], -1)
    return squares.sum(axis=3).sum(axis=1)


def _choose(part: Floats, format: QuantizedFormat) -> tuple[Floats, Floats, Floats]:
    """Scale, zero point and minimum, each [blocks, groups], of values [blocks, rows, groups, elements]."""
    low, high = part.min(axis=(1, 3)), part.max(axis=(1, 3))
    lowest, highest = format.code_range
    nothing = np.zeros_like(low)
    if format.minimums:
        minimum = _round_scale(low, format)
        # of the rounded minimum, so that the maximum stays in range; in float64, as max - min may overflow
        span = (high.astype(np.float64) - minimum) / (highest - lowest)
        return _round_scale(np.maximum(span, 0), format), nothing, minimum
    if format.zero_points:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        scale = _round_scale((high.astype(np.float64) - low) / (highest - lowest), format)
        zero = lowest - np.rint(low / np.where(scale == 0, 1, scale))
        return scale, np.clip(zero, lowest, highest).astype(np.float32), nothing
    largest = E4M3_MAX if format.storage == "fp8_e4m3" else highest + 0.5
    return _round_scale(np.maximum(-low, high) / np.float32(largest), format), nothing, nothing


def _encode(part: Floats, scale: Floats, zero: Floats, minimum: Floats, format: QuantizedFormat) -> Codes:
    """The codes of values [blocks, rows, groups, elements]."""

    def per_element(array: Floats) -> Floats:
        return array[:, None, :, None]

    above = part - per_element(minimum) if format.minimums else part
    quotient = above / per_element(np.where(scale == 0, np.float32(1), scale))
    if format.storage == "fp8_e4m3":
        return e4m3_from_f32(quotient)  # which clips
    np.rint(quotient, out=quotient)
    if format.zero_points:
        quotient += per_element(zero)
    lowest, highest = format.code_range
    return np.clip(quotient, lowest, highest, out=quotient).astype(np.int8)


def _round_scale(values: NDArray[Any], format: QuantizedFormat) -> Floats:
    with np.errstate(over="ignore"):  # an infinity is reported below
        result = as_scale_type(values.astype(np.float32), format.scale_dtype)
    if not np.isfinite(result).all():
        raise UsageError(
            f"quantize to {format}: {format.scale_dtype} cannot hold the scale {np.abs(values).max():g}; "
            f"use another scale type"
        )
    return result


def as_scale_type(values: Floats, scale_dtype: ScaleType) -> Floats:
    """float32 `values` rounded to the nearest of `scale_dtype`, still as float32."""
    match scale_dtype:
        case "f32":
            return values
        case "bf16":
            return round_to_bf16(values)
        case "f16":
            return values.astype(np.float16).astype(np.float32)


def _check_floats(name: str, array: Floats, scale_dtype: ScaleType, fail: Any) -> None:
    if not (finite := np.isfinite(array)).all():
        at = _first(~finite)
        fail(f"{name} {at}: expected a finite number, found {array[tuple(at)]:g}")
    with np.errstate(over="ignore"):
        inexact = as_scale_type(array, scale_dtype) != array
    if inexact.any():
        at = _first(inexact)
        fail(f"{name} {at}: {array[tuple(at)]:.9g} is not exact in {scale_dtype}")


def group_spans(format: QuantizedFormat, columns: int) -> list[tuple[slice, slice]]:
    """Columns and their groups: those of full length, then the last if it is shorter."""
    group = format.group or columns
    whole = columns // group
    spans = [(slice(0, whole * group), slice(0, whole))] if whole else []
    if columns % group:
        spans.append((slice(whole * group, columns), slice(whole, whole + 1)))
    return spans


def _first(where: NDArray[np.bool_]) -> list[int]:
    return np.argwhere(where)[0].tolist()
