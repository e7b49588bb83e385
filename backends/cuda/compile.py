"""A verified kernel to a cubin, without a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from ...amk_ir.targets import Target, get_target
from ...passes.verify_schedule import VerifiedKernel
from .context import Loads
from .emit import ENTRY, DroppedSignal, attempts, emit_kernel
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
    compiled: dict[str, CompiledKernel] = {}
    for loads in _attempts(kernel):
        emitted = emit_kernel(kernel.current(), drop_signal, loads, trace, token_loop, resident)
        plan, source = emitted.plan, inline_headers(emitted.source)
        if source in compiled:
            continue  # not all that differs matters to every kernel
        cubin = compiler(source, get_target(plan.target), ENTRY)
        compiled[source] = CompiledKernel(kernel.digest, source, cubin.image, plan, cubin.resources, cubin.log)
        if not cubin.resources.spill_stores:
            break
    result = list(compiled.values())[-1]
    check_resources(
        result.resources,
        result.plan.dynamic_shared,
        result.plan.threads,
        get_target(result.plan.target),
        result.plan.name,
    )
    return result


def plan_kernel(kernel: VerifiedKernel, token_loop: bool = False) -> KernelPlan:
    """The plan of `kernel` as another kernel of the model has to know it before it is compiled: how weights and state are
    stored, which does not depend on the attempt that fits the registers. Raises as `compile_kernel`, without NVRTC."""
    return emit_kernel(kernel.current(), None, _attempts(kernel)[0], None, token_loop, None).plan


def compile_together(jobs: Sequence[Callable[[], CompiledKernel]]) -> list[CompiledKernel]:
    """What `jobs` return, run in threads: NVRTC leaves Python to others while it works.

    Raises what the first of them raises that fails, when all have ended.
    """
    with ThreadPoolExecutor(max(1, min(len(jobs), len(os.sched_getaffinity(0))))) as pool:
        futures = [pool.submit(job) for job in jobs]
    return [future.result() for future in futures]


def _attempts(kernel: VerifiedKernel) -> tuple[Loads, ...]:
    return attempts(get_target(kernel.kernel.target.data), kernel.kernel.tokens.value.data)
