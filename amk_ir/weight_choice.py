"""What a user chooses of a model's matrices: which are quantised, and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .errors import UsageError
from .quantization import parse_format

NONE, STORED = "none", "stored"
"""Not quantised; and each matrix as the checkpoint stores it."""


@dataclass(frozen=True)
class WeightChoice:
    """Formats of matrices: those of the layers, of the head (and an embedding table that is also the head), of an embedding.

    weights: a quantised format, `none`, or `stored`: each matrix as the checkpoint has it, and then head and embedding
    are `none`. keep: names of weights that are left alone, with `*` and `?`.
    """

    weights: str = NONE
    head: str = NONE
    embedding: str = NONE
    keep: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is quantised."""
        return self.weights == self.head == self.embedding == NONE

    def check(self) -> None:
        """Raises UsageError, which names the option: no format, or options that exclude each other."""
        for option, text in (("weights", self.weights), ("head", self.head), ("embedding", self.embedding)):
            if text not in (NONE, STORED) or (text == STORED and option != "weights"):
                try:
                    parse_format(text)
                except UsageError as e:
                    raise UsageError(f"{option}: {e}") from e
        if self.weights == STORED and (self.head, self.embedding, self.keep) != (NONE, NONE, ()):
            raise UsageError("weights: 'stored' is said of all matrices, and goes without head, embedding and keep")

    def as_json(self) -> dict[str, Any]:
        """For a manifest; `from_json` is the inverse."""
        return {**asdict(self), "keep": list(self.keep)}

    @staticmethod
    def from_json(value: Any) -> WeightChoice | None:
        """None if `value` is not what `as_json` makes."""
        match value:
            case {"weights": str(weights), "head": str(head), "embedding": str(embedding), "keep": list(keep)}:
                names: list[Any] = keep
                return WeightChoice(weights, head, embedding, tuple(map(str, names)))
            case _:
                return None
