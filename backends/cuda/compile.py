"""A verified kernel to a cubin, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ...amk_ir.targets import Target, get_target
from ...passes.verify_schedule import VerifiedKernel
from .context import Loads
from .emit import ENTRY, LOADS, LOADS_OF_ROWS, DroppedSignal, emit_kernel
from .nvrtc import Cubin, Resources, check_resources, compile_cubin, inline_headers
from .plan import KernelPlan
from .trace_points import TraceDetail

CubinCompiler: TypeAlias = Callable[[str, Target, str], Cubin]
"""Makes a cubin of (source, target, name of the entry function): `compile_cubin`, or a cache in front of it."""


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel ready to load.

    digest: of the verified kernel that it was made from. source: CUDA C++ with the device library in it, compiles
    alone. image: the cubin. resources: what it uses. log: the compiler's report.
    """

    digest: str

    source: str
    image: bytes
    plan: KernelPlan
    resources: Resources
    log: str


def compile_kernel(
    kernel: VerifiedKernel,
    drop_signal: DroppedSignal | None = None,
    compiler: CubinCompiler = compile_cubin,
    *,
    token_loop: bool = False,
    resident: KernelPlan | None = None,
    trace: TraceDetail | None = None,
) -> CompiledKernel:
    """Emits and compiles `kernel`; `drop_signal` is for tests. token_loop: whether a launch can run several steps.
    resident: of the kernel whose weights and state it is to use. trace: the timestamps that it takes.

    Raises ScheduleError: it was changed since it was verified. CompileError: what cannot be emitted, no NVRTC, a compile failure (with its log), spills, or more shared
    memory or registers than the target has.
    """
    first, *others = LOADS if kernel.kernel.tokens.value.data == 1 else LOADS_OF_ROWS
    plan, source, cubin = _attempt(kernel, drop_signal, compiler, first, token_loop, resident, trace)
    for loads in others:
        if not cubin.resources.spill_stores:
            break
        plan, source, cubin = _attempt(kernel, drop_signal, compiler, loads, token_loop, resident, trace)
    resources = cubin.resources
    check_resources(resources, plan.dynamic_shared, plan.threads, get_target(plan.target), plan.name)
    return CompiledKernel(kernel.digest, source, cubin.image, plan, resources, cubin.log)


def _attempt(
    kernel: VerifiedKernel,
    drop_signal: DroppedSignal | None,
    compiler: CubinCompiler,
    loads: Loads,
    token_loop: bool,
    resident: KernelPlan | None,
    trace: TraceDetail | None,
) -> tuple[KernelPlan, str, Cubin]:
    emitted = emit_kernel(kernel.current(), drop_signal, loads, trace, token_loop, resident)
    source = inline_headers(emitted.source)
    return emitted.plan, source, compiler(source, get_target(emitted.plan.target), ENTRY)
