"""Packs a model's weights into the order in which the SMs stream them, layer by layer, in pieces.

The packed weights are the regions of `KernelPlan.weight_regions` in order: constants that the kernel reads directly
(norm weights, biases, rotary frequencies, an embedding table that is not also streamed), then the streams of the
families, each in mma fragment order (fragments.py, quantized_fragments.py).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import product
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.access import Access
from ...amk_ir.attrs import CheckpointAttr, RopeFrequenciesAttr
from ...amk_ir.dtypes import bf16_from_f32
from ...amk_ir.errors import CheckpointError
from ...amk_ir.rope import inverse_frequencies
from .fragments import FragmentLayout
from .plan import KernelPlan, aligned
from .quantized_fragments import QuantizedLayout
from .quantized_pack import Arrays, constant_rows, quantized_arrays, rows_data, scale_access
from .storage import BufferStorage, StreamStorage

PIECE_BYTES = 1 << 23
"""Tasks are packed in pieces of about this size: so small that the memory of one is used again for the next."""
_MAX_THREADS = 8


class WeightProvider(Protocol):
    """Where the tensors that `#amk.checkpoint` names come from: a frontend's checkpoint is one."""

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        """The tensor `name` as float32 values (dtype "f32") or bfloat16 bit patterns (dtype "bf16", uint16)."""
        ...


Progress: TypeAlias = Callable[[str, int, int], None]
"""Told about long work as (what, done, total)."""


def no_progress(what: str, done: int, total: int) -> None:
    """The `Progress` of those who do not want to know."""


def load_entry(buffer: BufferStorage, layer: int | None, weights: WeightProvider) -> NDArray[Any]:
    """A weight (one layer of a layered one) in its storage type: float32, or bf16 as uint16.

    Raises CheckpointError: no such entry, or one of another number of elements.
    """
    shape = buffer.shape if layer is None else buffer.shape[1:]
    match buffer.source:
        case RopeFrequenciesAttr():
            values: NDArray[Any] = inverse_frequencies(buffer.source.data)
            name = f"frequencies of @{buffer.name}"
            if buffer.element == "bf16":
                values = bf16_from_f32(values)
        case CheckpointAttr():
            name = buffer.source.data if layer is None else buffer.source.data.replace("{layer}", str(layer))
            values = weights.load(name, "bf16" if buffer.element == "bf16" else "f32")
        case None:
            raise CheckpointError(f"buffer @{buffer.name} is no weight and cannot be loaded")
    if values.size != prod(shape):
        raise CheckpointError(
            f"tensor '{name}' has shape {'x'.join(map(str, values.shape))}, the kernel was compiled for "
            f"{'x'.join(map(str, shape))}: is it another checkpoint?"
        )
    return np.ascontiguousarray(values).reshape(shape)


def packed_weights(
    plan: KernelPlan, weights: WeightProvider, progress: Progress = no_progress
) -> Iterator[NDArray[np.uint8]]:
    """The packed weights as consecutive pieces of bytes, `plan.weight_bytes` altogether.

    Raises CheckpointError: a weight that is missing or has another number of elements.
    """
    buffers = {buffer.name: buffer for buffer in plan.weights}
    total, done = plan.weight_bytes, 0
    progress("packing weights", 0, total)
    for storage in (*plan.constants, *plan.streams):
        size = 0
        pieces = (
            _constant(storage, weights)
            if isinstance(storage, BufferStorage)
            else _in_threads(_stream(storage, buffers, weights))
        )
        for piece in pieces:
            data = piece.reshape(-1).view(np.uint8)
            size += data.size
            yield data
            progress("packing weights", done + size, total)
        if padding := aligned(size) - size:
            yield np.zeros(padding, np.uint8)
        done += aligned(size)


def _in_threads(jobs: Iterator[Callable[[], NDArray[Any]]]) -> Iterator[NDArray[Any]]:
    """What `jobs` return, in order; a few of them run at a time, while the next are prepared."""
    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    pool = ThreadPoolExecutor(threads)
    try:
        running: deque[Future[NDArray[Any]]] = deque()
        for job in jobs:
            running.append(pool.submit(job))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _arrays(buffer: BufferStorage, layer: int | None, weights: WeightProvider) -> Arrays:
    if buffer.quantized is not None:
        return quantized_arrays(buffer, layer, weights)
    return {"codes": load_entry(buffer, layer, weights)}


def _constant(buffer: BufferStorage, weights: WeightProvider) -> Iterator[NDArray[Any]]:
    if buffer.quantized is not None:
        yield from constant_rows(buffer, _whole(buffer, weights))
        return
    for layer in range(buffer.shape[0]) if buffer.layered else (None,):
        yield load_entry(buffer, layer, weights)


def _stream(
    stream: StreamStorage, buffers: dict[str, BufferStorage], weights: WeightProvider
) -> Iterator[Callable[[], NDArray[Any]]]:
    """What packs the tasks of a family, in flat order, an outermost index at a time if that numbers the layers."""
    by_layer = bool(stream.domain) and all(_is_layer_of(stream, part.access, buffers) for part in stream.parts)
    names = [name for name, _ in stream.domain]
    for outer in range(stream.domain[0][1]) if by_layer else (None,):
        entries = (
            [
                _arrays(buffers[part.access.buffer], layer, weights)
                for part in stream.parts
                for layer in (outer if buffers[part.access.buffer].layered else None,)
            ]
            if by_layer
            else [_whole(buffers[part.access.buffer], weights) for part in stream.parts]
        )
        extents = [e for _, e in stream.domain]
        if outer is not None:
            extents[0] = 1
        count = prod(extents)
        step = max(1, PIECE_BYTES // stream.layout.task_bytes)
        for first in range(0, count, step):
            tasks = np.arange(first, min(count, first + step))
            columns = np.unravel_index(tasks, extents) if extents else ()
            indices: dict[str, NDArray[Any]] = dict(zip(names, map(np.asarray, columns), strict=True))
            yield partial(_pack_tasks, stream, buffers, entries, by_layer, indices, len(tasks))


def _pack_tasks(
    stream: StreamStorage,
    buffers: dict[str, BufferStorage],
    entries: list[Arrays],
    by_layer: bool,
    indices: dict[str, NDArray[Any]],
    count: int,
) -> NDArray[Any]:
    """`count` tasks with the given `indices`. entries: of the parts of the stream; by_layer: of one layer each."""
    tiles: dict[str, list[NDArray[Any]]] = {}
    for part, entry in zip(stream.parts, entries, strict=True):
        for key, values in entry.items():
            # a layer's entry stands for index 0 of the outermost dimension
            array = values[None] if by_layer else values
            access = part.access
            if key != "codes":
                access = scale_access(access, buffers[access.buffer], array.shape[-1])
            tiles.setdefault(key, []).append(gather_tiles(array, access, indices, count, part.rows))
    stacked = {key: of[0] if len(of) == 1 else np.concatenate(of, axis=1) for key, of in tiles.items()}
    if isinstance(stream.layout, QuantizedLayout):
        return stream.layout.pack(rows_data(stacked))
    return stream.layout.pack(stacked["codes"])


def _is_layer_of(stream: StreamStorage, access: Access, buffers: dict[str, BufferStorage]) -> bool:
    """Whether the outermost index of the domain is the layer of a layered buffer, and nothing else."""
    index = stream.domain[0][0]
    first, *others = access.dims
    return (
        buffers[access.buffer].layered
        and first.start.terms == ((index, 1),)
        and first.start.constant == 0
        and first.extent == 1
        and all(index not in d.start.names for d in others)
    )


def _whole(buffer: BufferStorage, weights: WeightProvider) -> Arrays:
    if not buffer.layered:
        return _arrays(buffer, None, weights)
    layers = [_arrays(buffer, layer, weights) for layer in range(buffer.shape[0])]
    return {key: np.stack([arrays[key] for arrays in layers]) for key in layers[0]}


def gather_tiles(
    array: NDArray[Any], access: Access, indices: dict[str, NDArray[Any]], count: int, rows: int
) -> NDArray[Any]:
    """The tiles `access` of `count` tasks as [count, rows, k]; elements beyond a limit are zero.

    indices: the value of each domain index for each task. Kept dimensions after the first `rows` elements are k. Whole
    rows are copied; tasks that start at different k are handled in groups.
    """
    shape, dims = array.shape, access.dims
    starts = [
        np.full(count, d.start.constant) + sum((indices[n] * c for n, c in d.start.terms), np.zeros(count, np.int64))
        for d in dims
    ]
    sizes = [d.extent if d.kept else 1 for d in dims]
    # dimensions from `split` on are k, those before it the rows
    split, seen = 0, 1
    while split < len(dims) and (seen < rows or not dims[split].kept):
        seen *= sizes[split]
        split += 1
    k = prod(sizes[split:])
    result = np.zeros((count, rows, k), array.dtype)

    number = np.zeros((count, 1), np.int64)
    valid = np.ones((count, 1), bool)
    for start, size, dim, extent in zip(starts[:split], sizes[:split], dims[:split], shape[:split], strict=True):
        along = start[:, None] + np.arange(size)
        inside = along < (extent if dim.limit is None else dim.limit)
        number = (number[:, :, None] * extent + np.minimum(along, extent - 1)[:, None, :]).reshape(count, -1)
        valid = (valid[:, :, None] & inside[:, None, :]).reshape(count, -1)

    k_starts = np.stack([*starts[split:], np.zeros(count, np.int64)], axis=1)
    for key in {tuple(map(int, row)) for row in np.unique(k_starts, axis=0)}:
        chosen = np.flatnonzero((k_starts == np.asarray(key)).all(axis=1))
        stops = [
            min(s + size, extent if d.limit is None else d.limit)
            for s, size, d, extent in zip(key, sizes[split:], dims[split:], shape[split:], strict=False)
        ]
        window = array[(..., *(slice(s, e) for s, e in zip(key, stops, strict=False)))]
        lines = window.reshape(-1, *window.shape[split:])
        taken = lines[number[chosen].reshape(-1)]
        taken[~valid[chosen].reshape(-1)] = 0
        target = (
            np.zeros((len(taken), *sizes[split:]), array.dtype) if taken.shape[1:] != tuple(sizes[split:]) else taken
        )
        if target is not taken:
            target[tuple(slice(0, n) for n in taken.shape)] = taken
        result[chosen] = target.reshape(len(chosen), rows, k)
    return result


def unpack_stream(
    stream: StreamStorage, packed: NDArray[Any], shapes: dict[str, tuple[int, ...]]
) -> dict[str, NDArray[Any]]:
    """The buffers of `shapes` as far as a packed stream of bf16 holds them: the inverse of packing, for tests."""
    assert isinstance(stream.layout, FragmentLayout)
    tiles = stream.layout.unpack(packed.view(np.uint16))
    result = {part.access.buffer: np.zeros(shapes[part.access.buffer], np.uint16) for part in stream.parts}
    names = [name for name, _ in stream.domain]
    for task, values in enumerate(product(*(range(e) for _, e in stream.domain))):
        indices = dict(zip(names, values, strict=True))
        for part in stream.parts:
            box = part.access.box(indices)
            tile = tiles[task, part.first_row : part.first_row + part.rows].reshape(
                [d.extent if d.kept else 1 for d in part.access.dims]
            )
            clipped = tile[tuple(slice(0, stop - start) for start, stop in box)]
            result[part.access.buffer][tuple(slice(start, stop) for start, stop in box)] = clipped
    return result
