"""Tokenizers: text to ids and back, chat templates, and the ids that end a text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from .locate import locate_model
from .text_stream import TextStream


class Tokenizer(Protocol):
    """What a session needs of a tokenizer."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """The ids after which generation stops."""
        ...

    @property
    def vocab_size(self) -> int:
        """One more than the greatest id."""
        ...

    @property
    def has_chat_template(self) -> bool:
        """Whether `apply_chat` works."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of `text`, by default with what the model expects at its start."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids`."""
        ...

    def stream(self) -> TextStream:
        """A decoder for ids that come one at a time."""
        ...

    def apply_chat(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
        """The ids of a conversation of `{"role": ..., "content": ...}`, ready for the model's answer.

        Raises:
            TokenizerError: the model has no chat template, or it refuses these messages.
        """
        ...


def load_tokenizer(model: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a model, which is named as in `import_model`.

    Raises:
        CheckpointError: there is no such model.
        TokenizerError: it has no tokenizer, or one that is damaged or of an unsupported kind.
    """
    path = Path(locate_model(model))
    if path.is_dir():
        from .transformers_tokenizer import load_directory_tokenizer

        return load_directory_tokenizer(path)
    from .gguf_file import GgufFile
    from .gguf_tokenizer import build_tokenizer

    return build_tokenizer(GgufFile(path))
