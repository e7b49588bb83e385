"""The backend that the runtime uses without a GPU: verified queue kernels on virtual SMs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ...amk_ir.errors import ExecutionError, ScheduleError, UsageError
from ...passes.verify_schedule import VerifiedKernel
from .interleavings import Interleaving
from .numerics import F32
from .queue_interpreter import QueueInterpreter
from .weights import Progress, WeightProvider, no_progress


class ReferenceBackend:
    """Loads kernels of any target.

    interleaving: who goes when (None: round-robin). checked: simulate every step with poisoned buffers; otherwise only
    the first step is simulated so, and later ones repeat its order (see `QueueInterpreter`), which is several times
    faster.
    """

    name = "reference"

    def __init__(self, *, interleaving: Interleaving | None = None, checked: bool = False):
        self.interleaving = interleaving
        self.checked = checked

    def load(
        self, kernel: VerifiedKernel, weights: WeightProvider, progress: Progress = no_progress
    ) -> ReferenceExecutable:
        """The kernel with its weights in memory, as float32.

        Raises:
            ScheduleError: `kernel` did not come from the verifier, or was changed since.
            UsageError: a kernel of more than one token a step.
            CheckpointError: a weight that is missing or has another number of elements.
        """
        # not only a type: a kernel that nobody has verified must not run
        if not isinstance(kernel, VerifiedKernel):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ScheduleError(f"only verified kernels can be loaded, found {type(kernel).__name__}; verify it first")
        op = kernel.current()
        if (tokens := op.tokens.value.data) != 1:
            raise UsageError(f"a session runs kernels of one token a step, @{op.sym_name.data} has {tokens}")
        return ReferenceExecutable(
            QueueInterpreter(op, weights, interleaving=self.interleaving, checked=self.checked, progress=progress)
        )


class ReferenceExecutable:
    """A loaded kernel and its KV cache: one sequence at a time."""

    def __init__(self, interpreter: QueueInterpreter):
        self._interpreter: QueueInterpreter | None = interpreter
        self._filled = 0  # positions that were run since the last reset, without a gap

    @property
    def interpreter(self) -> QueueInterpreter:
        """What runs the kernel; ExecutionError after `close`."""
        if self._interpreter is None:
            raise ExecutionError("the executable is closed")
        return self._interpreter

    def step(self, token: int, pos: int) -> tuple[int, F32]:
        """Runs one step: `token` at position `pos`. Returns the argmax of the logits, and the logits [vocab].

        Raises:
            ExecutionError: token or position out of range, a position before `pos` was not run, or what `QueueInterpreter.execute` finds.
        """
        if pos > self._filled:
            raise ExecutionError(f"position {pos} needs all before it, of which only {self._filled} were run")
        result = self.interpreter.step([token], pos)
        self._filled = max(self._filled, pos + 1)
        return int(result.next_tokens[0]), result.logits[0]

    def steps(self, token: int, pos: int, count: int, stops: Collection[int] = ()) -> Iterator[int]:
        """Runs up to `count` steps: `token` at `pos`, then each chosen token at the position after it.

        Yields the chosen tokens; the last one may be of `stops`, and then no further step is run. Raises as `step`.
        """
        for n in range(count):
            token = self.step(token, pos + n)[0]
            yield token
            if token in stops:
                return

    def reset(self) -> None:
        """Forgets the KV cache: the next step is at position 0."""
        self.interpreter.reset()
        self._filled = 0

    def close(self) -> None:
        """Frees weights and buffers. May be called twice."""
        self._interpreter = None
