"""A session over an executable that is a small function: positions, stops, limits, interruptions."""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice

import numpy as np
import pytest

from amk.amk_ir.errors import UsageError
from amk.runtime.sampling import Sampling
from amk.runtime.session import Session

VOCAB, MAX_SEQ = 10, 8


class Successor:
    """The next token is the last one plus one; `fed` is what was run since the last reset."""

    def __init__(self):
        self.fed: list[int] = []
        self.closed = 0
        self.launches: list[int] = []
        self.chunks: list[int] = []
        self.fail_at: int | None = None

    def step(self, token: int, pos: int):
        if pos == self.fail_at:
            self.fail_at = None
            raise KeyboardInterrupt
        assert pos == len(self.fed), "positions are run in order"
        self.fed.append(token)
        logits = np.zeros(VOCAB, np.float32)
        logits[(token + 1) % VOCAB] = 5
        return (token + 1) % VOCAB, logits

    chunk = 1

    def feed(self, tokens: Sequence[int], pos: int) -> None:
        assert 1 <= len(tokens) <= self.chunk
        self.chunks.append(len(tokens))
        for n, token in enumerate(tokens):
            self.step(token, pos + n)

    def steps(self, token: int, pos: int, count: int, stops: Collection[int] = ()) -> Iterator[int]:
        del self.fed[pos:]  # what a launch wrote that nobody took
        self.launches.append(count)
        for n in range(count):
            token = self.step(token, pos + n)[0]
            yield token
            if token in stops:
                return

    def reset(self):
        self.fed.clear()

    def close(self):
        self.closed += 1


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(Successor(), vocab_size=VOCAB, max_seq=MAX_SEQ) as session:
        yield session


def test_the_prompt_is_fed_token_by_token(session: Session):
    assert list(session.generate([3, 1], 3)) == [2, 3, 4]
    assert session.executable.fed == [3, 1, 2, 3], "the last token is text, but nobody asked what follows it"
    assert session.position == 5


def test_tokens_come_one_by_one(session: Session):
    tokens = session.generate([0], 5)
    assert next(tokens) == 1
    assert session.executable.fed == [0]


def test_the_text_goes_on(session: Session):
    """A second prompt follows the first text, its last token included."""
    list(session.generate([0], 2))
    assert list(session.generate([7], 1)) == [8]
    assert session.executable.fed == [0, 1, 2, 7]


def test_a_stop_token_ends_the_text(session: Session):
    assert list(session.generate([0], 7, stop={3, 9})) == [1, 2, 3]


def test_without_a_limit_the_text_fills_max_seq(session: Session):
    assert list(session.generate([0, 1, 2])) == [3, 4, 5, 6, 7]
    assert session.position == MAX_SEQ


def test_the_limit_can_be_reached_exactly(session: Session):
    assert len(list(session.generate([0, 1, 2], MAX_SEQ - 3))) == MAX_SEQ - 3


def test_reset_starts_anew(session: Session):
    list(session.generate([0], 3))
    session.reset()
    assert session.position == 0
    assert list(session.generate([5], 1)) == [6]
    assert session.executable.fed == [5]


def test_an_interrupted_step_is_run_again(session: Session):
    """After Ctrl-C the session is as if the step had not been started."""
    session.executable.fail_at = 1
    with pytest.raises(KeyboardInterrupt):
        list(session.generate([0, 4], 2))
    assert list(session.generate([6], 1)) == [7]
    assert session.executable.fed == [0, 4, 6]


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "message"),
    [
        ([], 1, "the prompt is empty"),
        ([0, VOCAB], 1, "prompt token 1 is 10: expected an id from 0 to 9"),
        ([-1], 1, "prompt token 0 is -1"),
        ([0], -1, "max-tokens: expected 0 or more, found -1"),
        ([0] * (MAX_SEQ + 1), None, "the prompt has 9 tokens, but max_seq is 8"),
        ([0] * 6, 3, "6 \\+ 3 tokens, but max_seq is 8; ask for 2 or fewer"),
    ],
)
def test_bad_requests_are_refused_at_once(session: Session, prompt: list[int], max_tokens: int | None, message: str):
    with pytest.raises(UsageError, match=message):
        session.generate(prompt, max_tokens)
    assert not session.executable.fed


def test_the_text_so_far_counts(session: Session):
    list(session.generate([0, 1, 2, 3], 2))
    with pytest.raises(UsageError, match="after 6 tokens of text the prompt has 3 tokens"):
        session.generate([0] * 3)


def test_sampling_is_repeatable(session: Session):
    def draw(seed: int) -> list[int]:
        session.reset()
        return list(session.generate([0], 7, Sampling(temperature=50, seed=seed)))

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(5)}) > 1


def test_it_is_closed():
    executable = Successor()
    with pytest.raises(ZeroDivisionError), Session(executable, vocab_size=VOCAB, max_seq=MAX_SEQ) as session:
        list(islice(session.generate([0], 3), 1))
        raise ZeroDivisionError
    assert executable.closed == 1


def launches(steps: int) -> Session:
    return Session(Successor(), vocab_size=VOCAB, max_seq=MAX_SEQ, steps_per_launch=steps)


@pytest.mark.parametrize(("steps", "expected"), [(1, []), (2, [2, 2, 1]), (3, [3, 2]), (8, [5])])
def test_several_steps_a_launch(steps: int, expected: list[int]):
    """The prompt is fed as before; launches are as long as they may be, and no longer than what is asked for."""
    session = launches(steps)
    assert list(session.generate([3, 1], 5)) == [2, 3, 4, 5, 6]
    assert session.executable.launches == expected
    assert session.executable.fed == [3, 1, 2, 3, 4, 5]
    assert session.position == 7


def test_a_launch_stops_at_a_stop_token():
    session = launches(4)
    assert list(session.generate([0], 7, stop={3})) == [1, 2, 3]
    assert list(session.generate([5], 2)) == [6, 7]
    assert session.executable.fed == [0, 1, 2, 3, 5, 6]


def test_who_stops_within_a_launch_goes_on_from_there():
    session = launches(6)
    assert list(islice(session.generate([0], 6), 2)) == [1, 2]
    assert session.position == 3
    assert list(session.generate([7], 2)) == [8, 9]
    assert session.executable.fed == [0, 1, 2, 7, 8]


def test_several_steps_a_launch_fill_max_seq():
    session = launches(100)
    assert len(list(session.generate([0, 1, 2]))) == MAX_SEQ - 3


def test_several_steps_a_launch_are_greedy():
    with pytest.raises(UsageError, match="2 steps in one launch take the best token each, and temperature is 0.5"):
        launches(2).generate([0], 2, Sampling(temperature=0.5))
    assert list(launches(2).generate([0], 2, Sampling(seed=3))) == [1, 2]
    with pytest.raises(UsageError, match="steps-per-launch: expected 1 or more, found 0"):
        launches(0)


@pytest.mark.parametrize(("chunk", "expected"), [(1, [1] * 5), (2, [2, 2, 1]), (3, [3, 2]), (5, [5]), (8, [5])])
def test_the_prompt_is_fed_in_chunks(session: Session, chunk: int, expected: list[int]):
    """All but its last token, of which the logits are wanted."""
    session.executable.chunk = chunk
    assert list(session.generate([0, 1, 2, 3, 4, 5], 2)) == [6, 7]
    assert session.executable.chunks == expected
    assert session.executable.fed == [0, 1, 2, 3, 4, 5, 6]
