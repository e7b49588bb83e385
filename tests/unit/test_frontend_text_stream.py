"""Streaming decode: the pieces add up, and characters come whole."""

import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from amk.frontends.text_stream import TextStream


def byte_level() -> Tokenizer:
    """One token for each byte, and a special one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<eos>", special=True)])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """SentencePiece-like: letters with and without the space mark, all else as bytes."""
    tokens = ["<unk>", "<s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *"abc", *(f"▁{c}" for c in "abc")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[], byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer.decode)
    return [*(stream.push(i) for i in ids), stream.finish()]


@pytest.mark.parametrize(
    "text", ["", "plain", "héllo wörld", "你好, 🤗 family: 👨‍👩‍👧", "a\n\n  b\t", "\ufffd", "x\ufffdy"]
)
def test_pieces_add_up_and_characters_come_whole(text: str):
    tokenizer = byte_level()
    found = pieces(tokenizer, tokenizer.encode(text).ids)
    assert "".join(found) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in found)
        assert found[-1] == ""  # nothing whole is held back


def test_comes_as_soon_as_it_is_whole():
    tokenizer = byte_level()
    assert pieces(tokenizer, tokenizer.encode("aé🤗").ids) == ["a", "", "é", "", "", "", "🤗", ""]


def test_broken_bytes_come_at_the_end_or_with_the_next_character():
    tokenizer = byte_level()
    (first, *_rest), (a,) = tokenizer.encode("é").ids, tokenizer.encode("a").ids
    assert pieces(tokenizer, [a, first]) == ["a", "", "\ufffd"]
    assert pieces(tokenizer, [first, a, a]) == ["", "\ufffda", "a", ""]


def test_spaces_between_words_survive_special_tokens():
    tokenizer = byte_fallback()
    ids = [
        tokenizer.token_to_id(t) for t in ("<s>", "▁a", "b", "<s>", "<s>", "▁c", "▁", "▁a", "<0xC3>", "<0xA9>", "▁b")
    ]
    found = pieces(tokenizer, ids)
    assert found == ["", "a", "b", "", "", " c", " ", " a", "", "é", " b", ""]
    assert "".join(found) == tokenizer.decode(ids)


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_random_valid_text(make: "type[Tokenizer]"):
    tokenizer = make()
    source = random.Random(0)
    for _ in range(200):
        words = ["abc"[: source.randrange(4)], source.choice(["é", "🤗", "你", "b", ""])]
        ids: list[int] = []
        for _ in range(source.randrange(6)):
            ids += tokenizer.encode(source.choice(words)).ids
            if source.random() < 0.3:
                ids.append(tokenizer.token_to_id("<eos>" if make is byte_level else "<s>"))
            if make is byte_fallback and source.random() < 0.5:
                ids.append(tokenizer.token_to_id("▁"))
        assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)
