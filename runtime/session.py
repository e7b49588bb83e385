"""One conversation with a loaded model: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from types import TracebackType

from ..amk_ir.errors import UsageError
from .backend import Executable, Logits
from .sampling import Sampler, Sampling


def check_request(
    prompt: Sequence[int], max_tokens: int | None, vocab_size: int, max_seq: int, position: int = 0
) -> None:
    """Whether a session whose text has `position` tokens can feed `prompt` and generate `max_tokens` more.

    Raises UsageError: an empty prompt, a token id outside the vocabulary, or more tokens than max_seq.
    """
    if not prompt:
        raise UsageError("the prompt is empty: expected one token or more")
    for index, token in enumerate(prompt):
        if not 0 <= token < vocab_size:
            raise UsageError(
                f"prompt token {index} is {token}: expected an id from 0 to {vocab_size - 1}; "
                "does the tokenizer belong to this model?"
            )
    if max_tokens is not None and max_tokens < 0:
        raise UsageError(f"max-tokens: expected 0 or more, found {max_tokens}")
    used = position + len(prompt)
    if used > max_seq:
        before = f"after {position} tokens of text " if position else ""
        raise UsageError(
            f"{before}the prompt has {len(prompt)} tokens, but max_seq is {max_seq}; "
            "shorten it, or import the model with a larger max_seq"
        )
    if max_tokens is not None and used + max_tokens > max_seq:
        raise UsageError(
            f"prompt and text would have {used} + {max_tokens} tokens, but max_seq is {max_seq}; "
            f"ask for {max_seq - used} or fewer, or import the model with a larger max_seq"
        )


def check_steps_per_launch(steps: int, sampling: Sampling | None = None) -> None:
    """Whether so many steps can be run a launch, with tokens chosen by `sampling`.

    Raises UsageError: less than one, or several steps with sampling that is not greedy: the kernel takes the best token.
    """
    if steps < 1:
        raise UsageError(f"steps-per-launch: expected 1 or more, found {steps}")
    if steps > 1 and sampling is not None and not sampling.greedy:
        raise UsageError(
            f"steps-per-launch: {steps} steps in one launch take the best token each, and temperature is "
            f"{sampling.temperature}; leave one of the two out"
        )


def check_division(chunk: int | None, far_from: int | None, most: int | None = None) -> None:
    """Whether so many tokens of a prompt can be run at once, and another kernel take over at such a position.

    most: tokens that a step can take, None for any number. Raises UsageError: less than one token or more than `most`, or
    position 0. None: whatever the kernels are for.
    """
    if chunk is not None and chunk < 1:
        raise UsageError(f"chunk: expected 1 token or more, found {chunk}")
    if chunk is not None and most is not None and chunk > most:
        raise UsageError(f"chunk: a kernel for GPUs takes at most {most} tokens at once, found --chunk {chunk}")
    if far_from is not None and far_from < 1:
        raise UsageError(f"far-from: expected position 1 or later, found {far_from}")


def check_chunk_fits(chunk: int, max_seq: int) -> None:
    """Raises UsageError if a step of so many tokens has no room in a KV cache of `max_seq` positions."""
    if chunk > max_seq:
        raise UsageError(f"chunk: {chunk} tokens at once have no room in a KV cache of max_seq = {max_seq} positions")


class Session:
    """Feeds tokens to an executable, keeps the position, and chooses the next tokens.

    A session goes on where it stopped: the next prompt follows the tokens so far. `reset` starts anew.
    Use it as a context manager, or call `close`. steps_per_launch: tokens that a launch may generate one after the other;
    more than one needs an executable that can do that, and the best token is always taken.
    """

    def __init__(self, executable: Executable, *, vocab_size: int, max_seq: int, steps_per_launch: int = 1):
        check_steps_per_launch(steps_per_launch)
        self.executable = executable
        self.vocab_size = vocab_size
        self.max_seq = max_seq
        self.steps_per_launch = steps_per_launch
        self._position = 0
        self._unfed: list[int] = []  # the last chosen token: part of the text, not yet of the KV cache

    @property
    def position(self) -> int:
        """How many tokens the text has so far."""
        return self._position + len(self._unfed)

    def generate(
        self,
        prompt: Sequence[int],
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        stop: Collection[int] = (),
    ) -> Iterator[int]:
        """Feeds `prompt` and yields the tokens that follow, each as soon as it is known.

        Ends after `max_tokens` (None: when the text has `max_seq` tokens), or after a token of `stop`, which is
        yielded as well. The prompt is checked now, not when the first token is asked for.

        Raises:
            UsageError: an empty prompt, a token id outside the vocabulary, more tokens than max_seq, or sampling that is
                not greedy with several steps a launch.
        """
        check_request(prompt, max_tokens, self.vocab_size, self.max_seq, self.position)
        check_steps_per_launch(self.steps_per_launch, sampling)
        room = self.max_seq - self.position - len(prompt)
        return self._generate(
            prompt, room if max_tokens is None else max_tokens, Sampler(sampling or Sampling()), frozenset(stop)
        )

    def _generate(self, prompt: Sequence[int], count: int, sampler: Sampler, stop: frozenset[int]) -> Iterator[int]:
        self._unfed.extend(prompt)
        if self.steps_per_launch > 1:
            yield from self._generate_by_launches(count, stop)
            return
        for _ in range(count):
            token = sampler.choose(*self._feed())
            self._unfed.append(token)
            yield token
            if token in stop:
                return

    def _generate_by_launches(self, count: int, stop: frozenset[int]) -> Iterator[int]:
        left = count
        while left > 0:
            self._feed_all_but_last()
            for token in self.executable.steps(self._unfed[0], self._position, min(left, self.steps_per_launch), stop):
                # Whoever stops here leaves the launch running on: what it writes beyond this position, nobody reads.
                self._unfed[0] = token
                self._position += 1
                left -= 1
                yield token
                if token in stop:
                    return

    def _feed(self) -> tuple[int, Logits]:
        """Runs all tokens that were not run yet, of which there is at least one; what the last step returned."""
        self._feed_all_but_last()
        result = self.executable.step(self._unfed[0], self._position)
        self._fed(1)
        return result

    def _feed_all_but_last(self) -> None:
        """Runs the tokens that were not run yet, all but one."""
        while (left := len(self._unfed) - 1) > 0:
            count = min(left, self.executable.chunk)
            self.executable.feed(self._unfed[:count], self._position)
            self._fed(count)

    def _fed(self, count: int) -> None:
        # Only now: a step that was interrupted is run again, which writes the same KV entries.
        del self._unfed[:count]
        self._position += count

    def reset(self) -> None:
        """Forgets the text."""
        self.executable.reset()
        self._position = 0
        self._unfed.clear()

    def close(self) -> None:
        """Frees what the backend holds."""
        self.executable.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
