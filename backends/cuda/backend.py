"""The backend that runs verified queue kernels on a GPU, one launch a step."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.errors import ExecutionError, ScheduleError, UsageError
from ...amk_ir.targets import Target
from ...passes.verify_schedule import VerifiedKernel
from .compile import CompiledKernel, CubinCompiler, compile_kernel
from .driver import LoadedKernel, device_info
from .emit import ENTRY, DroppedSignal
from .nvrtc import compile_cubin
from .pack import Progress, WeightProvider, no_progress, packed_weights
from .plan import KernelPlan
from .storage import BufferStorage
from .trace_points import TraceDetail


def detect_target(ordinal: int = 0) -> Target:
    """The target of a GPU of this machine, with its number of SMs; DeviceError if there is none that can be used."""
    return device_info(ordinal).target


class CudaBackend:
    """Compiles verified kernels (without a GPU) and loads them (on GPU `ordinal`).

    time_limit_s: how long a wait in device code may take before the step is stopped. drop_signal: for tests. compiler:
    makes the cubins.
    """

    name = "cuda"

    def __init__(
        self,
        *,
        ordinal: int = 0,
        time_limit_s: float = 2.0,
        drop_signal: DroppedSignal | None = None,
        compiler: CubinCompiler = compile_cubin,
    ):
        self.ordinal = ordinal
        self.time_limit_s = time_limit_s
        self.drop_signal = drop_signal
        self.compiler = compiler

    def compile(self, kernel: VerifiedKernel, trace: TraceDetail | None = None) -> CompiledKernel:
        """The kernel as a cubin with its plan. trace: the timestamps that it takes, for `TracedKernel`.

        Raises ScheduleError if `kernel` did not come from the verifier or was changed since, CompileError as `compile_kernel`.
        """
        # not only a type: a kernel that nobody has verified must not run
        if not isinstance(kernel, VerifiedKernel):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ScheduleError(f"only verified kernels are compiled, found {type(kernel).__name__}; verify it first")
        return compile_kernel(kernel, self.drop_signal, self.compiler, trace)

    def load(self, kernel: VerifiedKernel, weights: WeightProvider, progress: Progress = no_progress) -> CudaExecutable:
        """Compiles the kernel, packs the weights and copies both to the GPU.

        Raises also DeviceError (no GPU, another architecture, too few SMs, no memory) and CheckpointError.
        """
        compiled = self.compile(kernel)
        return self.load_packed(kernel, compiled, packed_weights(compiled.plan, weights, progress))

    def load_packed(
        self, kernel: VerifiedKernel, compiled: CompiledKernel, weights: Iterable[NDArray[np.uint8]]
    ) -> CudaExecutable:
        """Copies `compiled`, made from `kernel`, and packed weights (pieces of bytes, in order) to the GPU.

        Raises ScheduleError if `compiled` was not made from `kernel` as it was verified.
        """
        kernel.current()
        if compiled.digest != kernel.digest:
            raise ScheduleError(
                f"kernel @{compiled.plan.name} was compiled from another schedule than the verified one"
            )
        _check_step(compiled.plan)
        loaded = LoadedKernel(
            compiled.plan, compiled.image, weights, ENTRY, ordinal=self.ordinal, time_limit_s=self.time_limit_s
        )
        return CudaExecutable(loaded)


def _check_step(plan: KernelPlan) -> tuple[BufferStorage, BufferStorage, BufferStorage]:
    """(token, logits, next token) of a kernel that decodes one token a step; UsageError for any other."""
    inputs = [b for b in plan.buffers if b.kind == "input"]
    logits = [b for b in plan.buffers if b.kind == "output" and b.element == "f32"]
    chosen = [b for b in plan.buffers if b.kind == "output" and b.element == "i32"]
    if plan.tokens != 1 or len(inputs) != 1 or inputs[0].bytes != 4 or len(logits) != 1 or len(chosen) != 1:
        raise UsageError(
            f"a session runs kernels with one token, one f32 output and one i32 output a step, @{plan.name} has "
            f"{plan.tokens} tokens, {len(inputs)} inputs, {len(logits)} f32 and {len(chosen)} i32 outputs"
        )
    return inputs[0], logits[0], chosen[0]


class CudaExecutable:
    """A loaded kernel and its KV cache: one sequence at a time."""

    def __init__(self, loaded: LoadedKernel):
        self._loaded: LoadedKernel | None = loaded
        self._token, self._logits, self._chosen = _check_step(loaded.plan)
        self._filled = 0  # positions that were run since the last reset, without a gap

    @property
    def loaded(self) -> LoadedKernel:
        """The kernel on the GPU; ExecutionError after `close`."""
        if self._loaded is None:
            raise ExecutionError("the executable is closed")
        return self._loaded

    def step(self, token: int, pos: int) -> tuple[int, NDArray[np.float32]]:
        """Runs one step: `token` at position `pos`. Returns the argmax of the logits, and the logits [vocab].

        Raises:
            ExecutionError: token or position out of range, or a position before `pos` was not run.
            StuckWaitError: a wait in device code ran out of time; `reset` before the next step.
            DeviceError: the launch failed.
        """
        loaded, vocab = self.loaded, self._logits.elements
        if not 0 <= token < vocab:
            raise ExecutionError(f"token {token} is out of range: expected 0 to {vocab - 1}")
        if not 0 <= pos < loaded.plan.max_seq:
            raise ExecutionError(f"position {pos} is out of range: expected 0 to {loaded.plan.max_seq - 1}")
        if pos > self._filled:
            raise ExecutionError(f"position {pos} needs all before it, of which only {self._filled} were run")
        outputs = loaded.step({self._token.name: np.array([token], np.int32)}, pos)
        self._filled = max(self._filled, pos + 1)
        # a copy: the next step overwrites the buffer
        return int(outputs[self._chosen.name].reshape(-1)[0]), outputs[self._logits.name].reshape(-1).copy()

    def reset(self) -> None:
        """Forgets the KV cache: the next step is at position 0."""
        self.loaded.reset()
        self._filled = 0

    def close(self) -> None:
        """Frees the GPU's memory. May be called twice."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None
