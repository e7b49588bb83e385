"""The backend that runs verified queue kernels on a GPU, one launch a step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.errors import ExecutionError, ScheduleError, UsageError
from ...amk_ir.targets import Target
from ...passes.verify_schedule import VerifiedKernel
from .compile import CompiledKernel, CubinCompiler, compile_kernel, compile_together, plan_kernel
from .driver import LoadedKernel, device_info
from .emit import ENTRY, DroppedSignal
from .nvrtc import compile_cubin
from .pack import Progress, WeightProvider, no_progress, packed_weights
from .plan import KernelPlan
from .sharing import check_shared
from .storage import BufferStorage
from .trace_points import TraceDetail


def detect_target(ordinal: int = 0) -> Target:
    """The target of a GPU of this machine, with its number of SMs; DeviceError if there is none that can be used."""
    return device_info(ordinal).target


Pair: TypeAlias = tuple[VerifiedKernel, CompiledKernel]
"""A verified kernel, and what was compiled from it."""


@dataclass(frozen=True)
class SessionKernels:
    """The kernels of a session, which share packed weights and state.

    step: decodes one token. chunk: takes several tokens of a prompt, None if there is none. far: takes the place of `step`
    at later positions, None if there is none.
    """

    step: Pair
    chunk: Pair | None = None
    far: Pair | None = None

    def check(self) -> None:
        """Whether each can do what it is for, beside the first.

        Raises UsageError for a kernel of another kind, CompileError for one that cannot share weights and state.
        """
        _check_step(self.step[1].plan)
        if self.chunk is not None:
            _check_chunk(self.chunk[1].plan)
        if self.far is not None:
            _check_step(self.far[1].plan)
        for pair in (self.chunk, self.far):
            if pair is not None:
                check_shared(pair[1].plan, self.step[1].plan)


class CudaBackend:
    """Compiles verified kernels (without a GPU) and loads them (on GPU `ordinal`).

    time_limit_s: how long a wait in device code may take before the step is stopped. drop_signal: for tests. compiler:
    makes the cubins. token_loop: whether a launch can run several steps.
    """

    name = "cuda"

    def __init__(
        self,
        *,
        ordinal: int = 0,
        time_limit_s: float = 2.0,
        drop_signal: DroppedSignal | None = None,
        compiler: CubinCompiler = compile_cubin,
        token_loop: bool = False,
    ):
        self.ordinal = ordinal
        self.time_limit_s = time_limit_s
        self.drop_signal = drop_signal
        self.compiler = compiler
        self.token_loop = token_loop

    def compile(self, kernel: VerifiedKernel, trace: TraceDetail | None = None) -> CompiledKernel:
        """The kernel as a cubin with its plan. trace: the timestamps that it takes, for `TracedKernel`.

        Raises ScheduleError if `kernel` did not come from the verifier or was changed since, CompileError as `compile_kernel`.
        """
        _require_verified(kernel)
        return compile_kernel(kernel, self.drop_signal, self.compiler, token_loop=self.token_loop, trace=trace)

    def compile_beside(self, kernel: VerifiedKernel, resident: KernelPlan, token_loop: bool = False) -> CompiledKernel:
        """Another kernel of a model, which uses the packed weights and the state of the one with plan `resident`.

        Raises as `compile`, and CompileError if it cannot use them.
        """
        _require_verified(kernel)
        return compile_kernel(kernel, None, self.compiler, token_loop=token_loop, resident=resident)

    def compile_session(
        self, kernel: VerifiedKernel, chunk: VerifiedKernel | None = None, far: VerifiedKernel | None = None
    ) -> SessionKernels:
        """The kernels of a session, compiled at the same time as far as there are CPUs.

        chunk: of several tokens a step and without outputs, for prompts. far: like `kernel`, for later positions.

        Raises as `compile`, CompileError if they cannot share weights and state, UsageError for kernels of other kinds.
        """
        jobs = [partial(self.compile, kernel)]
        others = [(k, loop) for k, loop in ((chunk, False), (far, self.token_loop)) if k is not None]
        _require_verified(kernel)
        if others:
            resident = plan_kernel(kernel, self.token_loop)
            jobs += [partial(self.compile_beside, other, resident, loop) for other, loop in others]
        first, *rest = compile_together(jobs)
        compiled = iter(rest)
        kernels = SessionKernels(
            (kernel, first),
            None if chunk is None else (chunk, next(compiled)),
            None if far is None else (far, next(compiled)),
        )
        kernels.check()
        return kernels

    def load(
        self,
        kernel: VerifiedKernel,
        weights: WeightProvider,
        progress: Progress = no_progress,
        *,
        chunk: VerifiedKernel | None = None,
        far: tuple[VerifiedKernel, int] | None = None,
    ) -> CudaExecutable:
        """Compiles the kernel, packs the weights and copies both to the GPU.

        chunk: a kernel of several tokens a step and without outputs, for prompts. far: a kernel like the first one, and the
        position from which it is used instead.

        Raises also DeviceError (no GPU, another architecture, too few SMs, no memory) and CheckpointError.
        """
        kernels = self.compile_session(kernel, chunk, None if far is None else far[0])
        packed = packed_weights(kernels.step[1].plan, weights, progress)
        return self.load_session(kernels, packed, 0 if far is None else far[1])

    def load_session(
        self, kernels: SessionKernels, weights: Iterable[NDArray[np.uint8]], far_from: int = 0
    ) -> CudaExecutable:
        """Copies the kernels and packed weights (pieces of bytes, in order) to the GPU.

        far_from: the position from which `kernels.far` is used. Raises as `load_packed` and `load_beside`.
        """
        executable = self.load_packed(*kernels.step, weights)
        try:
            if kernels.chunk is not None:
                executable.chunk_kernel = self.load_beside(executable, *kernels.chunk)
            if kernels.far is not None:
                executable.far_kernel = self.load_beside(executable, *kernels.far)
                executable.far_from = far_from
        except BaseException:
            executable.close()
            raise
        return executable

    def load_beside(self, executable: CudaExecutable, kernel: VerifiedKernel, compiled: CompiledKernel) -> LoadedKernel:
        """Another kernel of the same model, `compiled` from `kernel`, with the weights and the state of `executable`.

        Raises ScheduleError and DeviceError as `load_packed`, CompileError if it cannot share its memory.
        """
        kernel.current()
        if compiled.digest != kernel.digest:
            raise ScheduleError(
                f"kernel @{compiled.plan.name} was compiled from another schedule than the verified one"
            )
        return LoadedKernel(
            compiled.plan,
            compiled.image,
            (),
            ENTRY,
            ordinal=self.ordinal,
            time_limit_s=self.time_limit_s,
            beside=executable.loaded,
        )

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


def _require_verified(kernel: VerifiedKernel) -> None:
    # not only a type: a kernel that nobody has verified must not run
    if not isinstance(kernel, VerifiedKernel):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ScheduleError(f"only verified kernels are compiled, found {type(kernel).__name__}; verify it first")


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


def _check_chunk(plan: KernelPlan) -> None:
    """UsageError for a kernel that does not take several tokens of a prompt and leaves its state only."""
    inputs = [b for b in plan.buffers if b.kind == "input"]
    outputs = [b.name for b in plan.buffers if b.kind == "output"]
    if plan.tokens < 2 or [b.elements for b in inputs] != [plan.tokens] or outputs:
        raise UsageError(
            f"a prompt is fed by kernels of several tokens a step without outputs, @{plan.name} has {plan.tokens} tokens, "
            f"{len(inputs)} inputs and {len(outputs)} outputs"
        )


def _finish(*kernels: LoadedKernel | None) -> None:
    """Waits for the end of those that are running."""
    for kernel in kernels:
        if kernel is not None and kernel.is_running:
            kernel.finish()


class CudaExecutable:
    """A loaded kernel and its KV cache: one sequence at a time.

    chunk_kernel: takes several tokens of a prompt at a time, into the same cache; None if there is none. far_kernel: takes
    the place of the first one from position `far_from` on; None if there is none.
    """

    def __init__(self, loaded: LoadedKernel):
        self._loaded: LoadedKernel | None = loaded
        self.chunk_kernel: LoadedKernel | None = None
        self.far_kernel: LoadedKernel | None = None
        self.far_from = 0
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
        self._check(token, pos, 1)
        loaded = self.kernel_at(pos)
        outputs = loaded.step({self._token.name: np.array([token], np.int32)}, pos)
        self._filled = max(self._filled, pos + 1)
        # a copy: the next step overwrites the buffer
        return int(outputs[self._chosen.name].reshape(-1)[0]), outputs[self._logits.name].reshape(-1).copy()

    def kernel_at(self, pos: int) -> LoadedKernel:
        """The kernel for steps at `pos`, when no other one of this executable is running any more."""
        loaded, far = self.loaded, self.far_kernel
        chosen, other = (loaded, far) if far is None or pos < self.far_from else (far, loaded)
        _finish(other, self.chunk_kernel)
        return chosen

    def _check(self, token: int, pos: int, count: int) -> None:
        vocab, last = self._logits.elements, self.loaded.plan.max_seq - count
        if not 0 <= token < vocab:
            raise ExecutionError(f"token {token} is out of range: expected 0 to {vocab - 1}")
        if not 0 <= pos <= last:
            raise ExecutionError(f"position {pos} is out of range: expected 0 to {last}")
        if pos > self._filled:
            raise ExecutionError(f"position {pos} needs all before it, of which only {self._filled} were run")

    @property
    def chunk(self) -> int:
        """Tokens that `feed` takes at most."""
        return 1 if self.chunk_kernel is None else self.chunk_kernel.plan.tokens

    def feed(self, tokens: Sequence[int], pos: int) -> None:
        """Runs `tokens`, 1 to `chunk` of them, at positions from `pos` on, for the KV cache alone. Raises as `step`."""
        loaded, kernel = self.loaded, self.chunk_kernel
        if not 1 <= len(tokens) <= self.chunk:
            raise ExecutionError(f"1 to {self.chunk} tokens are fed at a time, found {len(tokens)}")
        for token in tokens:
            self._check(token, pos, len(tokens))
        if kernel is None or len(tokens) == 1 or pos + kernel.plan.tokens > loaded.plan.max_seq:
            for number, token in enumerate(tokens):
                self.step(token, pos + number)
            return
        # Rows that do not count: what they write is at positions that later steps write again before they read them.
        padded = [*tokens, *([tokens[-1]] * (kernel.plan.tokens - len(tokens)))]
        _finish(loaded, self.far_kernel)
        (token_input,) = (b.name for b in kernel.plan.buffers if b.kind == "input")
        kernel.step({token_input: np.array(padded, np.int32)}, pos)
        self._filled = max(self._filled, pos + len(tokens))

    def steps(self, token: int, pos: int, count: int, stops: Collection[int] = ()) -> Iterator[int]:
        """Runs up to `count` steps in one launch: `token` at `pos`, then each chosen token at the position after it.

        Yields the chosen tokens, each as soon as its step has ended; the last one may be of `stops`, and then no further
        step is run. Raises as `step`, now or while tokens are taken; UsageError for too many stop tokens.
        """
        self._check(token, pos, count)
        if self.far_kernel is not None and pos < self.far_from:
            count = min(count, self.far_from - pos)  # further ones are another kernel's
        if count == 1:
            return iter((self.step(token, pos)[0],))
        loaded = self.kernel_at(pos)
        loaded.write(self._token.name, np.array([token], np.int32))
        loaded.launch(pos, count, sorted(stops))
        return self._take(loaded, pos)

    def _take(self, loaded: LoadedKernel, pos: int) -> Iterator[int]:
        for number, token in enumerate(loaded.tokens()):
            self._filled = max(self._filled, pos + number + 1)
            yield token

    def reset(self) -> None:
        """Forgets the KV cache: the next step is at position 0."""
        self.loaded.reset()
        for kernel in (self.chunk_kernel, self.far_kernel):
            if kernel is not None:
                kernel.reset()
        self._filled = 0

    def close(self) -> None:
        """Frees the GPU's memory. May be called twice."""
        for kernel in (self.chunk_kernel, self.far_kernel):
            if kernel is not None:
                kernel.close()
        self.chunk_kernel = self.far_kernel = None
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None
