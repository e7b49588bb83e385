"""All that a measurement knows of a loaded kernel. Tests put an engine of their own in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ...amk_ir.targets import Target
from ...backends.cuda.backend import CudaBackend, CudaExecutable
from ...runtime.backend import Logits, Progress, no_progress
from ..cached_compiler import CachedCompiler
from ..tuned import Choice
from .models import BenchModel


@dataclass(frozen=True)
class KernelFacts:
    """What is reported of a kernel. streamed_bytes: of packed weights that a step reads; weight_bytes: all of them.
    far_from: position from which the kernel for long contexts takes over, None if there is none."""

    schedule: str
    sms: int
    threads: int
    ring_stages: int
    ring_bytes: int
    streamed_bytes: int
    weight_bytes: int
    far_from: int | None = None


class Engine(Protocol):
    """A kernel on a device with its weights and KV cache: an `Executable` whose steps can be timed."""

    @property
    def facts(self) -> KernelFacts:
        """What the kernel is."""
        ...

    def step(self, token: int, pos: int) -> tuple[int, Logits]:
        """As `Executable.step`."""
        ...

    def time_steps(self, pos: int, repeats: int) -> list[float]:
        """Microseconds of each of `repeats` launches of the step at `pos`, on the device's clock."""
        ...

    def reset(self) -> None:
        """As `Executable.reset`."""
        ...

    def close(self) -> None:
        """As `Executable.close`."""
        ...


class CudaEngine:
    """A loaded CUDA kernel as an `Engine`."""

    def __init__(self, executable: CudaExecutable, schedule: str):
        self._executable = executable
        plan = executable.loaded.plan
        self.facts = KernelFacts(
            schedule,
            plan.grid,
            plan.threads,
            plan.ring.stages,
            plan.ring.stage_bytes,
            sum(stream.bytes for stream in plan.streams),
            plan.weight_bytes,
            None if executable.far_kernel is None else executable.far_from,
        )

    def step(self, token: int, pos: int) -> tuple[int, Logits]:
        return self._executable.step(token, pos)

    def time_steps(self, pos: int, repeats: int) -> list[float]:
        return [milliseconds * 1e3 for milliseconds in self._executable.kernel_at(pos).time_steps(pos, repeats)]

    def reset(self) -> None:
        self._executable.reset()

    def close(self) -> None:
        self._executable.close()


def load_engine(
    model: BenchModel,
    target: Target,
    choice: Choice,
    far_from: int | None = None,
    progress: Progress = no_progress,
) -> Engine:
    """Compiles `model` with the pass options of `choice` and loads it on the GPU.

    far_from: position from which the kernel for long contexts takes over, None for never.

    Raises CompileError, ScheduleError, DeviceError, CheckpointError: see `runtime.compile.plan` and `CudaBackend.load`.
    """
    progress("lowering and compiling", 0, 1)
    with choice.blamed():
        kernel = choice.plan(model.model, target)
        far = None if far_from is None else (choice.plan_far(model.model, target), far_from)
        weights: Any = model.weights
        executable = CudaBackend(compiler=CachedCompiler()).load(kernel, weights, progress, far=far)
    return CudaEngine(executable, kernel.digest)
