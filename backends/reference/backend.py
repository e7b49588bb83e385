"""The backend that the runtime uses without a GPU: verified queue kernels on virtual SMs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ...amk_ir.attrs import BufferKind
from ...amk_ir.errors import ExecutionError, ScheduleError, UsageError
from ...dialects.queue import KernelOp
from ...passes.verify_schedule import VerifiedKernel
from .interleavings import Interleaving
from .numerics import F32
from .queue_interpreter import QueueInterpreter
from .step import token_input
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
        self,
        kernel: VerifiedKernel,
        weights: WeightProvider,
        progress: Progress = no_progress,
        *,
        chunk: VerifiedKernel | None = None,
        far: tuple[VerifiedKernel, int] | None = None,
    ) -> ReferenceExecutable:
        """The kernel with its weights in memory, as float32.

        chunk: a kernel of several tokens a step and without outputs, for prompts. far: a kernel like the first one, and the
        position from which it is used instead. All use the same weights and cache.

        Raises:
            ScheduleError: a kernel did not come from the verifier, or was changed since.
            UsageError: a kernel of more than one token a step, or a chunk of one or with outputs.
            CheckpointError: a weight that is missing or has another number of elements.
        """
        given_far = None if far is None else far[0]
        for given in (k for k in (kernel, chunk, given_far) if k is not None):
            # not only a type: a kernel that nobody has verified must not run
            if not isinstance(given, VerifiedKernel):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ScheduleError(
                    f"only verified kernels can be loaded, found {type(given).__name__}; verify it first"
                )
        op = kernel.current()
        if (tokens := op.tokens.value.data) != 1:
            raise UsageError(f"a session runs kernels of one token a step, @{op.sym_name.data} has {tokens}")
        if chunk is not None:
            _check_chunk(chunk.current())
        interpreter = QueueInterpreter(
            op, weights, interleaving=self.interleaving, checked=self.checked, progress=progress
        )

        def beside(other: VerifiedKernel | None) -> QueueInterpreter | None:
            if other is None:
                return None
            return QueueInterpreter(
                other.current(), weights, interleaving=self.interleaving, checked=self.checked, beside=interpreter
            )

        several, later = beside(chunk), beside(given_far)
        return ReferenceExecutable(interpreter, several, None if later is None or far is None else (later, far[1]))


def _check_chunk(kernel: KernelOp) -> None:
    """UsageError for a kernel that does not take several tokens of a prompt and leaves its state only."""
    outputs = [name for name, b in kernel.buffers.items() if b.kind.data is BufferKind.OUTPUT]
    if kernel.tokens.value.data < 2 or outputs:
        raise UsageError(
            f"a prompt is fed by kernels of several tokens a step without outputs, @{kernel.sym_name.data} has "
            f"{kernel.tokens.value.data} tokens and {len(outputs)} outputs"
        )


class ReferenceExecutable:
    """A loaded kernel and its KV cache: one sequence at a time."""

    def __init__(
        self,
        interpreter: QueueInterpreter,
        chunk: QueueInterpreter | None = None,
        far: tuple[QueueInterpreter, int] | None = None,
    ):
        self._interpreter: QueueInterpreter | None = interpreter
        self._chunk = chunk
        self._far = far
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
        later = self._far is not None and pos >= self._far[1]
        interpreter = self._far[0] if self._far is not None and later else self.interpreter
        result = interpreter.step([token], pos)
        self._filled = max(self._filled, pos + 1)
        return int(result.next_tokens[0]), result.logits[0]

    @property
    def chunk(self) -> int:
        """Tokens that `feed` takes at most."""
        return 1 if self._chunk is None else self._chunk.kernel.tokens.value.data

    def feed(self, tokens: Sequence[int], pos: int) -> None:
        """Runs `tokens`, 1 to `chunk` of them, at positions from `pos` on, for the KV cache alone. Raises as `step`."""
        if not 1 <= len(tokens) <= self.chunk:
            raise ExecutionError(f"1 to {self.chunk} tokens are fed at a time, found {len(tokens)}")
        if self._chunk is None or len(tokens) == 1 or pos > self._chunk.kernel.max_pos:
            for number, token in enumerate(tokens):
                self.step(token, pos + number)
            return
        if pos > self._filled:
            raise ExecutionError(f"position {pos} needs all before it, of which only {self._filled} were run")
        # rows that do not count: later steps write their positions again before they read them
        padded = [*tokens, *([tokens[-1]] * (self.chunk - len(tokens)))]
        self._chunk.execute({token_input(self._chunk.memory): padded}, pos)
        self._filled = max(self._filled, pos + len(tokens))

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
        if self._chunk is not None:
            self._chunk.reset()
        if self._far is not None:
            self._far[0].reset()
        self._filled = 0

    def close(self) -> None:
        """Frees weights and buffers. May be called twice."""
        self._interpreter = self._chunk = self._far = None
