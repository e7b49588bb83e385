"""What the runtime knows of a backend. Backends implement these protocols by shape; they do not import this file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..passes.verify_schedule import VerifiedKernel

Logits: TypeAlias = NDArray[np.float32]
"""Scores of the next token: float32 of shape [vocab_size]."""


class Weights(Protocol):
    """Where a backend gets the tensors that `#amk.checkpoint` names; a frontend's checkpoint is one."""

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        """The tensor `name` as float32 values (dtype "f32") or bfloat16 bit patterns (dtype "bf16", uint16)."""
        ...


class Executable(Protocol):
    """A kernel that is loaded with its weights and has a KV cache: one sequence at a time."""

    def step(self, token: int, pos: int) -> tuple[int, Logits]:
        """Runs one step: `token` at position `pos`. Returns the argmax of the logits, and the logits.

        The positions before `pos` must have been run since the last `reset`. Raises DeviceError or ExecutionError.
        """
        ...

    @property
    def chunk(self) -> int:
        """Tokens that `feed` takes at most: 1 if they are run one by one."""
        ...

    def feed(self, tokens: Sequence[int], pos: int) -> None:
        """Runs `tokens`, 1 to `chunk` of them, at positions from `pos` on, for the KV cache alone. Raises like `step`."""
        ...

    def steps(self, token: int, pos: int, count: int, stops: Collection[int] = ()) -> Iterator[int]:
        """Runs up to `count` steps in one launch: `token` at `pos`, then each chosen token at the position after it.

        Yields the chosen tokens as they are made, the argmax of each step's logits. The last one may be of `stops`, and
        then no further step is run. Who takes only the first of them may go on from there. Raises like `step`.
        """
        ...

    def reset(self) -> None:
        """Forgets the KV cache: the next step is at position 0."""
        ...

    def close(self) -> None:
        """Frees what the backend holds; the executable cannot be used after it. May be called twice."""
        ...


Progress: TypeAlias = Callable[[str, int, int], None]
"""Told about long work as (what, done, total); called about as often as once per weight."""


def no_progress(what: str, done: int, total: int) -> None:
    """The `Progress` of those who do not want to know."""


class Backend(Protocol):
    """Runs verified kernels."""

    @property
    def name(self) -> str:
        """What `--backend` calls it."""
        ...

    def load(
        self,
        kernel: VerifiedKernel,
        weights: Weights,
        progress: Progress = no_progress,
        *,
        chunk: VerifiedKernel | None = None,
        far: tuple[VerifiedKernel, int] | None = None,
    ) -> Executable:
        """The kernel with its weights, ready for the step at position 0.

        chunk: another kernel of the same model, of several tokens a step and without outputs, for prompts. far: another one
        like the first, and the position from which it is used instead. All use one copy of the weights and one KV cache.

        Raises an AmkError: not a verified kernel, weights that do not fit it, no device, or no room on it.
        """
        ...
