"""Tokenizers against transformers, the tokenizers they were made from, and plain implementations."""

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

from amk.frontends.gguf_file import GgufFile
from amk.frontends.locate import locate_model
from amk.frontends.tokenizer import load_tokenizer

TEXTS = [
    "",
    " ",
    "   ",
    "Hello, world!",
    " leading space",
    "trailing space ",
    "two  spaces   three\ttab\n\nnewlines\r\n  indented",
    "don't I'll WE'VE he's 'tis O'Brien'S",
    "numbers 1 12 123 1234 12345678 3.14159 1,000,000 ²³ ½ ٣٤ Ⅷ",
    "naïve café ÅNGSTRÖM ﬁ e\u0301 \u00a0nbsp\u200bzwsp",
    "你好，世界。こんにちは 안녕하세요",
    "emoji 🤗👨‍👩‍👧‍👦🏳️‍🌈 done",
    "Здравствуй мир שלום עולם مرحبا بالعالم",
    "def f(x):\n    return x ** 2  # comment\n\n\nif __name__ == '__main__':\n\tprint(f(3))\n",
    "<html>&amp;</html> {json: [1, 2]} $x^2 + y_1 \\frac{a}{b}$ ~|`@#%",
    "MiXeD CaSe ALLCAPS camelCase snake_case kebab-case",
    "\x00\x01\x7f control \ufeff bom \ufffd replacement",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff 𒀀",
    "!!! ??? ... --- ***\n***\n",
    "a" * 200,
]
SPECIALS = ["<|a|>", "<|end|>"]


def random_texts(count: int) -> Iterator[str]:
    """Strings of pieces that are hard to cut."""
    source = random.Random(1)
    pieces = [*" \naéß你🤗1٣._\t", "  ", "'s", "'S", "Zq", "e\u0301", "22", "!!", "\r\n"]
    for _ in range(count):
        yield "".join(source.choice(pieces) for _ in range(source.randrange(1, 25)))


def assert_same(path: Path, expected: Callable[[str], list[int]], texts: list[str] | None = None) -> None:
    """The tokenizer of a GGUF file encodes as `expected`, and its stream gives back what `decode` gives."""
    tokenizer = load_tokenizer(path)
    for text in texts if texts is not None else [*TEXTS, *random_texts(300)]:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == expected(text), repr(text)
        stream = tokenizer.stream()
        assert "".join([*(stream.push(i) for i in ids), stream.finish()]) == tokenizer.decode(ids)


# ---- byte-level BPE -------------------------------------------------------------------------------------------------

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


ORIGINALS: dict[str, tuple[Any, Any, bool]] = {
    "gpt-2": (None, pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "llama-bpe": (None, split(LLAMA3), True),
    "qwen2": (normalizers.NFC(), split(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")), False),
    "smollm": (
        None,
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        False,
    ),
}
"""Normalizer, pre-tokenizer and ignore_merges in the tokenizer.json of the original models."""


def corpus() -> Iterator[str]:
    for _ in range(3):
        yield from TEXTS
        yield from random_texts(200)


def write_byte_level(path: Path, tokenizer: Tokenizer, merges: list[str], pre: str) -> Path:
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([t for t, _ in vocab])
    writer.add_token_types([3 if t in SPECIALS else 1 for t, _ in vocab])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokenizer.token_to_id("<|end|>"))
    writer.add_context_length(64)  # transformers reads a configuration, too
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def train(pre: str) -> tuple[Tokenizer, list[str]]:
    """A tokenizer of the kind `pre`, learned from the texts, and its merges."""
    import json

    normalizer, pre_tokenizer, ignore_merges = ORIGINALS[pre]
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    merges = [" ".join(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]
    return tokenizer, merges


@pytest.mark.parametrize("pre", ORIGINALS)
def test_byte_level_as_the_original(tmp_path: Path, pre: str):
    original, merges = train(pre)
    path = write_byte_level(tmp_path / "t.gguf", original, merges, pre)
    assert_same(path, lambda text: original.encode(text).ids)
    mixed = "a <|end|> b<|a|><|a|>\n<|end"
    assert_same(path, lambda text: original.encode(text).ids, [mixed])
    assert load_tokenizer(path).eos_ids == {original.token_to_id("<|end|>")}


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
def test_byte_level_as_transformers_builds_it(tmp_path: Path, pre: str):
    """transformers does not split digits for smollm, nor normalise for qwen2, so those two are left out."""
    original, merges = train(pre)
    path = write_byte_level(tmp_path / "t.gguf", original, merges, pre)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    assert_same(path, lambda text: theirs.encode(text, add_special_tokens=False))


def test_smollm2_as_transformers_builds_it():
    """The demo's tokenizer, against transformers with the pre-tokenizer of SmolLM2's own tokenizer.json."""
    path = locate_model("smollm2-135m-instruct")
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    without_digits = [t for t in TEXTS if not any(c.isnumeric() for c in t)]
    assert_same(path, lambda text: theirs.encode(text, add_special_tokens=False), without_digits)
    theirs.backend_tokenizer.pre_tokenizer = ORIGINALS["smollm"][1]
    assert_same(path, lambda text: theirs.encode(text, add_special_tokens=False))

    ours = load_tokenizer(path)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  Hi <|im_end|> 42 "},
        {"role": "assistant", "content": "é🤗"},
        {"role": "user", "content": "Bye"},
    ]
    for chat in (messages, messages[1:], messages[1:2]):
        for prompt in (True, False):
            expected = theirs.apply_chat_template(chat, add_generation_prompt=prompt, return_dict=False)
            assert ours.apply_chat(chat, add_generation_prompt=prompt) == expected
    assert ours.encode("x") == theirs.encode("x")  # no BOS
    assert ours.eos_ids == {theirs.eos_token_id}


def byte_pair_merge(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Textbook BPE of one word."""
    parts = list(word)
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: ranks.get(pair, 1 << 60))
        if best not in ranks:
            break
        merged: list[str] = []
        while parts:
            if tuple(parts[:2]) == best:
                merged.append(parts[0] + parts[1])
                del parts[:2]
            else:
                merged.append(parts.pop(0))
        parts = merged
    return parts


def test_smollm2_as_plain_byte_pair_encoding():
    """Independent of the tokenizers library: llama.cpp's two regular expressions for smollm, then textbook BPE."""
    regex = pytest.importorskip("regex")
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    path = locate_model("smollm2-135m-instruct")
    metadata = GgufFile(path).metadata
    ids = {t: i for i, t in enumerate(metadata["tokenizer.ggml.tokens"])}
    ranks = {tuple(m.split(" ")): i for i, m in enumerate(metadata["tokenizer.ggml.merges"])}
    spelling = bytes_to_unicode()
    words = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

    def expected(text: str) -> list[int]:
        result: list[int] = []
        for part in regex.splititer(r"(\p{N})", text):
            for word in words.findall(part):
                parts = byte_pair_merge("".join(spelling[b] for b in word.encode()), ranks)
                result += [ids[p] for p in parts]
        return result

    # NumPy-free and slow: fewer texts. A word never crosses a digit, but may end in the space before one.
    assert_same(path, expected, [*TEXTS, *random_texts(60)])


# ---- SentencePiece --------------------------------------------------------------------------------------------------


def sentencepiece_vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types as a SentencePiece BPE model has them, learned from the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=500, show_progress=False))
    vocab = tokenizer.get_vocab()
    learned = sorted((t for t in vocab if len(t) > 1), key=lambda t: vocab[t])
    letters = sorted(t for t in vocab if len(t) == 1 and ord(t) < 0x3000)  # the rest goes to bytes
    learned = [t for t in learned if set(t) <= set(letters)]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *learned, *letters, "<|tool|>"]
    scores = [0.0] * 259 + [-float(i) for i in range(len(learned))] + [-1e4 - i for i in range(len(letters))] + [0.0]
    types = [2, 3, 3] + [6] * 256 + [1] * (len(learned) + len(letters)) + [4]
    return tokens, scores, types


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with a SentencePiece tokenizer."""
    path = tmp_path_factory.mktemp("spm") / "t.gguf"
    tokens, scores, types = sentencepiece_vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_context_length(64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def plain_sentencepiece(text: str, ids: dict[str, int], scores: list[float]) -> list[int]:
    """llama.cpp's `llm_tokenizer_spm`, plainly: join the neighbours that make the best token until none do."""
    if not text:
        return []
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(-scores[ids[a + b]], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ids]
        if not pairs:
            break
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    result: list[int] = []
    for part in parts:
        result += [ids[part]] if part in ids else [ids[f"<0x{b:02X}>"] for b in part.encode()]
    return result


def test_sentencepiece_as_llama_cpp(sentencepiece: Path):
    tokens, scores, types = sentencepiece_vocabulary()
    ids = {t: i for i, t in enumerate(tokens) if types[i] in (1, 6)}
    assert_same(sentencepiece, lambda text: plain_sentencepiece(text, ids, scores))


def test_sentencepiece_as_transformers_builds_it(sentencepiece: Path):
    """Where the two agree: transformers puts no prefix before a text that begins with a space."""
    theirs = AutoTokenizer.from_pretrained(sentencepiece.parent, gguf_file=sentencepiece.name)
    texts = [t for t in (*TEXTS, *random_texts(300)) if not t.startswith(" ")]
    assert_same(sentencepiece, lambda text: theirs.encode(text, add_special_tokens=False), texts)
    ours = load_tokenizer(sentencepiece)
    assert ours.encode("a b") == theirs.encode("a b")
    assert ours.encode("a b")[0] == 1


def test_sentencepiece_decodes_to_the_text(sentencepiece: Path):
    tokenizer = load_tokenizer(sentencepiece)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_sentencepiece_around_special_tokens(sentencepiece: Path):
    """Every piece of text between special tokens gets its prefix, as in llama.cpp and Llama 2's tokenizer.json."""
    tokenizer = load_tokenizer(sentencepiece)

    def plain(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    end, tool = 2, tokenizer.vocab_size - 1
    assert plain("Hello</s>\nworld<|tool|> x") == [*plain("Hello"), end, *plain("\nworld"), tool, *plain(" x")]


# ---- directories ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*ORIGINALS, "sentencepiece"])
def test_directory_as_transformers_loads_it(tmp_path: Path, kind: str):
    if kind == "sentencepiece":
        tokens, scores, _ = sentencepiece_vocabulary()
        vocab = {t: i for i, t in enumerate(tokens)}
        saved: Any = LlamaTokenizer(vocab=vocab, merges=generate_merges(vocab, dict(zip(tokens, scores, strict=True))))
    else:
        saved = PreTrainedTokenizerFast(tokenizer_object=train(kind)[0], eos_token="<|end|>")
    saved.save_pretrained(tmp_path)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    assert_same(tmp_path, lambda text: theirs.encode(text, add_special_tokens=False))
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.eos_ids == {theirs.eos_token_id}
