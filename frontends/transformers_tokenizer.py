"""A `Tokenizer` on top of transformers, which needs no torch for it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..amk_ir.errors import TokenizerError
from .json_file import read_json_object
from .text_stream import TextStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TransformersTokenizer:
    """Wraps a fast tokenizer of transformers; implements `Tokenizer`."""

    def __init__(self, inner: PreTrainedTokenizerFast, eos_ids: Iterable[int], source: str):
        """`source` names the tokenizer in messages."""
        self._inner = inner
        self._backend = inner.backend_tokenizer
        # tokenizer.json may keep the padding and truncation of a training run
        self._backend.no_padding()
        self._backend.no_truncation()
        self._source = source
        self.eos_ids = frozenset(eos_ids)

    @property
    def vocab_size(self) -> int:
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def has_chat_template(self) -> bool:
        return bool(self._inner.chat_template)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        try:
            return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)
        except (UnicodeEncodeError, TypeError) as e:
            raise TokenizerError(f"{self._source}: the text is not valid Unicode and cannot be encoded") from e

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        # Not through transformers: its clean-up of spaces would make a piece depend on those that follow.
        return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def stream(self) -> TextStream:
        return TextStream(self.decode)

    def apply_chat(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
        if not self.has_chat_template:
            raise TokenizerError(f"{self._source}: the model has no chat template; give it a plain prompt instead")
        try:
            ids: Any = self._inner.apply_chat_template(
                [dict(m) for m in messages], add_generation_prompt=add_generation_prompt, return_dict=False
            )
        except Exception as e:  # a template is a program: it can fail in any way
            reason = " ".join(str(e).split())
            raise TokenizerError(f"{self._source}: the chat template failed: {type(e).__name__}: {reason}") from e
        return list(ids)


def load_directory_tokenizer(directory: Path) -> TransformersTokenizer:
    """The tokenizer of a Hugging Face model directory.

    Raises:
        TokenizerError: tokenizer.json is missing or damaged.
    """
    # Without it transformers makes up a tokenizer with three tokens, and says nothing.
    if not (directory / "tokenizer.json").is_file():
        raise TokenizerError(f"{directory}: tokenizer.json is missing; download it again, or save the tokenizer there")
    read_json_object(directory / "tokenizer.json", TokenizerError)
    transformers = import_transformers()
    try:
        inner = transformers.AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    except Exception as e:  # transformers and tokenizers raise bare Exception, too
        reason = " ".join(str(e).split())
        raise TokenizerError(f"{directory}: the tokenizer cannot be loaded: {type(e).__name__}: {reason[:300]}") from e
    if not isinstance(inner, transformers.PreTrainedTokenizerFast):
        raise TokenizerError(f"{directory}: {type(inner).__name__} is not a fast tokenizer (one with a tokenizer.json)")
    eos_ids = _configured_eos(directory)
    if inner.eos_token_id is not None:
        eos_ids.add(int(inner.eos_token_id))
    return TransformersTokenizer(inner, eos_ids, str(directory))


def _configured_eos(directory: Path) -> set[int]:
    """EOS ids as transformers' `generate` takes them: generation_config.json, without one config.json."""
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        if not path.is_file():
            continue
        match read_json_object(path, TokenizerError).get("eos_token_id"):
            case None:
                continue
            case bool():
                pass
            case int(one):
                return {one}
            case [*several] if all(type(i) is int for i in several):
                return set(several)
            case _:
                pass
        raise TokenizerError(f"{path}: 'eos_token_id': expected an integer or a list of integers")
    return set()


def import_transformers() -> Any:
    """The transformers package, without its advice that models need PyTorch."""
    variable = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        import transformers
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
    return transformers
