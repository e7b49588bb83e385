"""The buffers of a program or kernel as NumPy arrays, with poison that reveals reads of unwritten elements."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import IntegerType, bf16

from ...amk_ir.attrs import BufferKind, CheckpointAttr
from ...amk_ir.errors import ExecutionError, UsageError
from ...dialects.task import BufferOp
from .room import require_room
from .weights import Progress, WeightProvider, load_weight, no_progress

Array = NDArray[Any]

POISON_BITS = 0x7FC0DEAD
"""float32 poison: a quiet NaN with a payload that no computation on finite values produces."""
POISON_ID = -(2**31)
"""int32 poison."""


def poison(array: Array) -> None:
    """Fills an array with poison."""
    if array.dtype == np.float32:
        array.view(np.uint32).fill(POISON_BITS)
    else:
        array.fill(POISON_ID)


def is_poison(array: Array) -> NDArray[np.bool_]:
    """Which elements are poison."""
    if array.dtype == np.float32:
        return array.view(np.uint32) == np.uint32(POISON_BITS)
    return array == np.int32(POISON_ID)


class Memory:
    """One array for each buffer: float32 for floats (values of bf16 buffers are kept rounded), int32 for ids.

    Arrays live as long as the memory, so that tasks can keep views of them. Without `weights`, those of a checkpoint
    are zero, and take memory only where somebody writes others. beside: the memory of another kernel of the model, whose
    weights and state are used.

    Raises UsageError: a weight or state that `beside` does not have, or has of another type.
    """

    def __init__(
        self,
        buffers: Mapping[str, BufferOp],
        weights: WeightProvider | None,
        progress: Progress = no_progress,
        *,
        beside: Memory | None = None,
    ):
        self.buffers = dict(buffers)
        self.arrays: dict[str, Array] = {} if beside is None else _shared(buffers, beside)
        filled = (
            op for name, op in buffers.items() if op.kind.data is not BufferKind.WEIGHT and name not in self.arrays
        )
        require_room(4 * sum(prod(op.shape) for op in filled), "the buffers")
        total = sum(op.kind.data is BufferKind.WEIGHT for op in buffers.values())
        done = 0
        for name, op in buffers.items():
            if name in self.arrays:
                continue
            if op.kind.data is BufferKind.WEIGHT:
                progress("loading weights", done, total)
                self.arrays[name] = _weight(op, weights)
                done += 1
            else:
                dtype = np.int32 if isinstance(op.type.get_element_type(), IntegerType) else np.float32
                self.arrays[name] = np.empty(op.shape, dtype)
        if done:
            progress("loading weights", done, total)
        self._step_buffers = self._of_kind(BufferKind.SCRATCH, BufferKind.OUTPUT)
        self._inputs = self._of_kind(BufferKind.INPUT)
        self._outputs = self._of_kind(BufferKind.OUTPUT)
        self.reset()

    def _of_kind(self, *kinds: BufferKind) -> tuple[str, ...]:
        return tuple(name for name, op in self.buffers.items() if op.kind.data in kinds)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input buffers."""
        return self._inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output buffers."""
        return self._outputs

    def reset(self) -> None:
        """Forgets all state and everything that a step writes."""
        for name in (*self._of_kind(BufferKind.STATE), *self._inputs, *self._step_buffers):
            poison(self.arrays[name])

    def start_step(self, inputs: Mapping[str, Any], poisoned: bool) -> None:
        """Writes the input buffers and, if asked for, poisons scratch and outputs.

        Raises:
            ExecutionError: `inputs` are not exactly the input buffers, or have another shape.
        """
        if set(inputs) != set(self._inputs):
            raise ExecutionError(
                f"the inputs of a step are {', '.join(self._inputs) or 'none'}, found {', '.join(inputs) or 'none'}"
            )
        for name, value in inputs.items():
            array = self.arrays[name]
            if np.shape(value) != array.shape:
                raise ExecutionError(f"input @{name} has shape {array.shape}, found {np.shape(value)}")
            array[...] = value
        if poisoned:
            for name in self._step_buffers:
                poison(self.arrays[name])

    def check_outputs(self) -> None:
        """Raises ExecutionError if an element of an output was not written in this step."""
        for name in self._outputs:
            if (missing := is_poison(self.arrays[name])).any():
                element = ", ".join(map(str, np.argwhere(missing)[0]))
                raise ExecutionError(f"the step ended without writing output element @{name}[{element}]")


def _shared(buffers: Mapping[str, BufferOp], beside: Memory) -> dict[str, Array]:
    """The arrays of the weights and states in `buffers`."""
    shared: dict[str, Array] = {}
    for name, op in buffers.items():
        if op.kind.data not in (BufferKind.WEIGHT, BufferKind.STATE):
            continue
        found = beside.buffers.get(name)
        if found is None or (found.kind, found.type, found.source) != (op.kind, op.type, op.source):
            was = "has none" if found is None else f"has {found.kind.data.value} {found.type}"
            raise UsageError(
                f"{op.kind.data.value} @{name} of {op.type} cannot be shared with another kernel, which {was}; lower both "
                "from the same model"
            )
        shared[name] = beside.arrays[name]
    return shared


def _weight(op: BufferOp, provider: WeightProvider | None) -> Array:
    assert op.source is not None
    element = op.type.get_element_type()
    if provider is None and isinstance(op.source, CheckpointAttr):
        try:
            return np.zeros(op.shape, np.float32)
        except MemoryError:
            size = 4 * prod(op.shape)
            raise UsageError(f"weight @{op.sym_name.data} takes {size / 2**30:.1f} GiB, more than there is") from None
    if not op.is_layered:
        return load_weight(op.source, None, op.shape, element, provider)
    array = np.empty(op.shape, np.float32)
    for layer in range(op.shape[0]):
        array[layer] = load_weight(op.source, layer, op.shape[1:], element, provider)
    return array


def is_bf16(op: BufferOp) -> bool:
    """Whether stores to the buffer round to bf16."""
    return op.type.get_element_type() == bf16
