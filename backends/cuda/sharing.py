"""Two kernels of one model on one GPU, with one copy of the packed weights and one KV cache: when that is possible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TypeVar

from ...amk_ir.attrs import BufferKind
from ...amk_ir.errors import CompileError
from .plan import KernelPlan
from .storage import BufferStorage, StreamStorage

StorageT = TypeVar("StorageT", BufferStorage, StreamStorage)


def states(plan: KernelPlan) -> tuple[BufferStorage, ...]:
    """The buffers that keep what earlier steps wrote."""
    return tuple(b for b in plan.buffers if b.kind == BufferKind.STATE.value)


def check_shared(plan: KernelPlan, resident: KernelPlan) -> None:
    """Whether a kernel with `plan` finds its weights and state where one with `resident` has them.

    Raises CompileError, which names the first that is missing or stored otherwise, or another target or max_seq.
    """
    for what, own, other in (("target", plan.target, resident.target), ("max_seq", plan.max_seq, resident.max_seq)):
        if own != other:
            raise CompileError(f"kernels @{plan.name} and @{resident.name} differ in {what}: {own} and {other}")
    _check(plan, "weight", plan.constants, {b.name: b for b in resident.constants})
    _check(
        plan, "packed weights of family", [s.uncut for s in plan.streams], {s.family: s.uncut for s in resident.streams}
    )
    _check(plan, "state", states(plan), {b.name: b for b in states(resident)})


def _check(plan: KernelPlan, what: str, own: Iterable[StorageT], resident: Mapping[str, StorageT]) -> None:
    for storage in own:
        name = storage.name if isinstance(storage, BufferStorage) else storage.family
        if (found := resident.get(name)) != storage:
            problem = (
                "not stored by it"
                if found is None
                else f"stored otherwise there, with another {_differing(found, storage)}"
            )
            raise CompileError(
                f"kernel @{plan.name} of {plan.tokens} tokens a step cannot share memory with that of one: {what} "
                f"@{name}: {problem}; lower both with the same options"
            )


def _differing(one: StorageT, other: StorageT) -> str:
    """Names of the fields in which two storages differ."""
    return ", ".join(f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name))
