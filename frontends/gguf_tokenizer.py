"""The tokenizer that the metadata of a GGUF file describes, as an object of the `tokenizers` library.

Two kinds: byte-level BPE (`gpt2`: GPT-2, Llama 3, SmolLM2, ...) with the merges in the file, and SentencePiece BPE
(`llama`: Llama 2, TinyLlama, ...), whose merges follow from the scores. What the metadata means is what llama.cpp
(`llama-vocab.cpp`) makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ..amk_ir.errors import TokenizerError
from .gguf_file import GgufFile
from .transformers_tokenizer import TransformersTokenizer, import_transformers

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
"""Token types; the others are unknown (2), unused (5) and byte (6)."""

_WORDS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _WORDS
_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _WORDS
_DEFAULT = (
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
)


def _splits(*patterns: str) -> Any:
    parts = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns]
    return pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _gpt2_split() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits_then_gpt2_split() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2_split()])


_PRE_TOKENIZERS: Mapping[str, Callable[[], Any]] = {
    "default": lambda: _splits(*_DEFAULT),
    "gpt-2": _gpt2_split,
    "gpt2": _gpt2_split,
    "llama-bpe": lambda: _splits(_LLAMA3),
    "llama-v3": lambda: _splits(_LLAMA3),
    "llama3": lambda: _splits(_LLAMA3),
    "qwen2": lambda: _splits(_QWEN2),
    "smollm": _digits_then_gpt2_split,
    "starcoder": _digits_then_gpt2_split,
}
"""How each value of `tokenizer.ggml.pre` cuts a text into words, before any merge."""
_LLAMA3_NAMES = ("llama-bpe", "llama-v3", "llama3")


def build_tokenizer(file: GgufFile) -> TransformersTokenizer:
    """The tokenizer of a GGUF file.

    Raises:
        TokenizerError: the file has none, or one that is damaged or of an unsupported kind.
    """
    metadata = _Metadata(file)
    kind = metadata.get("model", str)
    try:
        if kind == "gpt2":
            tokenizer, add_bos = _byte_level(metadata)
        elif kind == "llama":
            tokenizer, add_bos = _sentencepiece(metadata)
        else:
            raise metadata.error("model", f"unsupported kind {kind!r}; supported: gpt2 and llama")
        _add_tokens(tokenizer, metadata)
        _add_template(tokenizer, metadata, add_bos)
    except TokenizerError:
        raise
    except Exception as e:  # tokenizers raises bare Exception
        raise TokenizerError(f"{file.path}: the tokenizer is damaged: {' '.join(str(e).split())[:300]}") from e

    named = {
        name: metadata.token(key)
        for name, key in (
            ("bos_token", "bos_token_id"),
            ("eos_token", "eos_token_id"),
            ("unk_token", "unknown_token_id"),
            ("pad_token", "padding_token_id"),
        )
        if metadata.id(key) is not None
    }
    inner = import_transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=metadata.chat_template(),
        clean_up_tokenization_spaces=False,
        **named,
    )
    eos = (metadata.id(key) for key in ("eos_token_id", "eot_token_id", "eom_token_id"))
    return TransformersTokenizer(inner, (i for i in eos if i is not None), str(file.path))


class _Metadata:
    """The `tokenizer.ggml.` keys, type-checked."""

    def __init__(self, file: GgufFile):
        self._file = file
        self.tokens: list[str] = self.get("tokens", list)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            twice = next(t for i, t in enumerate(self.tokens) if self.ids[t] != i)
            raise self.error("tokens", f"{twice!r} appears twice")
        self.types = self._numbers("token_type", _NORMAL)

    def error(self, key: str, message: str) -> TokenizerError:
        return TokenizerError(f"{self._file.path}: 'tokenizer.ggml.{key}': {message}")

    def get(self, key: str, kind: type[Any], default: Any = None) -> Any:
        """A value of the type `kind`; a missing key takes `default`, or is an error without one."""
        value = self._file.metadata.get(f"tokenizer.ggml.{key}", default)
        if not isinstance(value, kind):
            what = "nothing" if value is None else type(value).__name__
            raise self.error(key, f"expected a value of type {kind.__name__}, found {what}")
        return value

    def _numbers(self, key: str, default: float) -> list[Any]:
        values = self._file.metadata.get(f"tokenizer.ggml.{key}")
        if values is None:
            return [default] * len(self.tokens)
        if not isinstance(values, np.ndarray) or len(values) != len(self.tokens):
            raise self.error(key, f"expected {len(self.tokens)} numbers, one for each token")
        return values.tolist()

    @property
    def scores(self) -> list[float]:
        """The score of each token."""
        if "tokenizer.ggml.scores" not in self._file.metadata:
            raise self.error("scores", "missing: a SentencePiece tokenizer has one for each token")
        return self._numbers("scores", 0.0)

    def id(self, key: str) -> int | None:
        """A token id within the vocabulary; None if the file does not say."""
        if f"tokenizer.ggml.{key}" not in self._file.metadata:
            return None
        value = self.get(key, int)
        if not 0 <= value < len(self.tokens):
            raise self.error(key, f"expected an id below {len(self.tokens)}, found {value}")
        return value

    def token(self, key: str) -> str:
        """The token of an id that the file has."""
        index = self.id(key)
        if index is None:
            raise self.error(key, "missing")
        return self.tokens[index]

    def chat_template(self) -> str | None:
        """The template of the file, if it has one."""
        template = self._file.metadata.get("tokenizer.chat_template")
        if template is not None and not isinstance(template, str):
            raise TokenizerError(f"{self._file.path}: 'tokenizer.chat_template': expected a text")
        return template


def _byte_level(metadata: _Metadata) -> tuple[Tokenizer, bool]:
    """Byte-level BPE, and whether texts begin with BOS if the file does not say."""
    pre = metadata.get("pre", str)
    if pre not in _PRE_TOKENIZERS:
        known = ", ".join(sorted(_PRE_TOKENIZERS))
        raise metadata.error("pre", f"unsupported pre-tokenizer {pre!r}; supported: {known}")
    merges: list[tuple[str, str]] = []
    for merge in metadata.get("merges", list):
        left, space, right = merge.partition(" ")
        if not (left and space and right) or " " in right:
            raise metadata.error("merges", f"expected two tokens with a space between them, found {merge!r}")
        merges.append((left, right))
    is_llama3 = pre in _LLAMA3_NAMES
    tokenizer = Tokenizer(models.BPE(vocab=metadata.ids, merges=merges, ignore_merges=is_llama3))
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, is_llama3


def _sentencepiece(metadata: _Metadata) -> tuple[Tokenizer, bool]:
    """SentencePiece BPE with byte fallback, and whether texts begin with BOS if the file does not say."""
    unknown = metadata.token("unknown_token_id") if metadata.id("unknown_token_id") is not None else "<unk>"
    if unknown not in metadata.ids:
        raise metadata.error("unknown_token_id", "missing, and there is no token '<unk>'")
    tokenizer = Tokenizer(
        models.BPE(
            vocab=metadata.ids, merges=_merges_by_score(metadata), unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )
    add_space = metadata.get("add_space_prefix", bool, True)
    # As a normalizer, not as Metaspace: the space comes before every piece of text between special tokens, also
    # before one that begins with a space. So do llama.cpp and the tokenizer.json of Llama 2 and TinyLlama.
    prefix = [normalizers.Prepend("▁")] if add_space else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if add_space else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer, True


def _merges_by_score(metadata: _Metadata) -> list[tuple[str, str]]:
    """All ways to make a token of two others, the best token first, as SentencePiece joins them."""
    scores = metadata.scores
    normal = {t: i for t, i in metadata.ids.items() if metadata.types[i] == _NORMAL}
    found: list[tuple[float, int, int, str, str]] = []
    for token, index in normal.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in normal and right in normal:
                found.append((-scores[index], index, cut, left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _add_tokens(tokenizer: Tokenizer, metadata: _Metadata) -> None:
    """Makes tokens that stand for themselves match as a whole: control tokens (special) and user-defined ones."""

    def of_type(kind: int) -> Sequence[str]:
        return [t for t, k in zip(metadata.tokens, metadata.types, strict=True) if k == kind]

    size = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in of_type(_CONTROL)])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in of_type(_USER_DEFINED)])
    assert tokenizer.get_vocab_size() == size, "added tokens keep their ids"


def _add_template(tokenizer: Tokenizer, metadata: _Metadata, add_bos: bool) -> None:
    """BOS before and EOS after a text, where the model expects them."""
    template, specials = ["$A"], list[tuple[str, int]]()
    for key, flag, at in (
        ("bos_token_id", metadata.get("add_bos_token", bool, add_bos), 0),
        ("eos_token_id", metadata.get("add_eos_token", bool, False), 2),
    ):
        index = metadata.id(key)
        if flag and index is not None:
            template.insert(at, metadata.tokens[index])
            specials.append((metadata.tokens[index], index))
    if specials:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, pair=None, special_tokens=list(dict.fromkeys(specials))
        )
