"""A verified kernel to a cubin, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ...amk_ir.targets import Target, get_target
from ...dialects.queue import KernelOp
from .emit import ENTRY, UNROLL, DroppedSignal, emit_kernel
from .nvrtc import Cubin, Resources, check_resources, compile_cubin, inline_headers
from .plan import KernelPlan

CubinCompiler: TypeAlias = Callable[[str, Target, str], Cubin]
"""Makes a cubin of (source, target, name of the entry function): `compile_cubin`, or a cache in front of it."""


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel ready to load.

    source: CUDA C++ with the device library in it, compiles alone. image: the cubin. resources: what it uses. log: the
    compiler's report.
    """

    source: str
    image: bytes
    plan: KernelPlan
    resources: Resources
    log: str


def compile_kernel(
    kernel: KernelOp, drop_signal: DroppedSignal | None = None, compiler: CubinCompiler = compile_cubin
) -> CompiledKernel:
    """Emits and compiles `kernel`, which must have been verified; `drop_signal` is for tests.

    Raises CompileError: what cannot be emitted, no NVRTC, a compile failure (with its log), spills, or more shared
    memory or registers than the target has.
    """
    for unroll in (UNROLL, UNROLL // 2, UNROLL // 4):
        emitted = emit_kernel(kernel, drop_signal, unroll)
        target = get_target(emitted.plan.target)
        source = inline_headers(emitted.source)
        cubin = compiler(source, target, ENTRY)
        if not cubin.resources.spill_stores:
            break  # else once more with fewer loads under way at a time
    plan, resources = emitted.plan, cubin.resources
    check_resources(resources, plan.dynamic_shared, plan.threads, target, plan.name)
    return CompiledKernel(source, cubin.image, plan, resources, cubin.log)
