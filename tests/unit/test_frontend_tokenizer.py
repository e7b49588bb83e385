"""Tokenizers of GGUF files and directories: what they refuse, EOS ids, chat templates."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from tiny_models import edit_json, make_plain_llama, write_tokenizer

from amk.amk_ir.errors import TokenizerError
from amk.frontends.tokenizer import Tokenizer, load_tokenizer

TOKENS = ["<unk>", "<s>", "</s>", "<end>", "a", "b", "c", "ab", "Ġ", "Ġa", "<think>"]
TYPES = [2, 3, 3, 3, 1, 1, 1, 1, 1, 1, 4]
MERGES = ["a b", "Ġ a"]
BYTE_LEVEL: dict[str, Any] = {
    "model": "gpt2",
    "pre": "gpt-2",
    "tokens": TOKENS,
    "token_type": TYPES,
    "merges": MERGES,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SPM: dict[str, Any] = {
    "model": "llama",
    "tokens": ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab", "[X]"],
    "token_type": [2, 3, 3, *[6] * 256, 1, 1, 1, 1, 1, 1, 4],
    "scores": [0.0, 0.0, 0.0, *[0.0] * 256, -6.0, -4.0, -5.0, -2.0, -1.0, -3.0, 0.0],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "unknown_token_id": 0,
}


def write(path: Path, keys: dict[str, Any], template: str | None = None) -> Path:
    """A GGUF file with a tokenizer and nothing else; a key that is None is left out."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in keys.items():
        name = f"tokenizer.ggml.{key}"
        match value:
            case None:
                pass
            case bool():
                writer.add_bool(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case str():
                writer.add_string(name, value)
            case _:
                writer.add_array(name, value)
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def load(path: Path, keys: dict[str, Any], template: str | None = None, **changes: Any) -> Tokenizer:
    return load_tokenizer(write(path / "t.gguf", {**keys, **changes}, template))


def test_byte_level(tmp_path: Path):
    tokenizer = load(tmp_path, BYTE_LEVEL)
    assert tokenizer.encode("ab aab") == [7, 9, 7]
    assert tokenizer.encode("a<end>b<think>c</s>") == [4, 3, 5, 10, 6, 2]
    assert tokenizer.decode([1, 7, 9, 7, 2]) == "ab aab"
    assert tokenizer.decode([1, 7, 10, 2], skip_special_tokens=False) == "<s>ab<think></s>"
    assert (tokenizer.vocab_size, tokenizer.eos_ids, tokenizer.has_chat_template) == (11, {2}, False)


def test_bos_and_eos_are_added_as_the_file_says(tmp_path: Path):
    assert load(tmp_path, BYTE_LEVEL, add_bos_token=True).encode("a") == [1, 4]
    assert load(tmp_path, BYTE_LEVEL, add_bos_token=True, add_eos_token=True).encode("a") == [1, 4, 2]
    assert load(tmp_path, BYTE_LEVEL, add_bos_token=True).encode("a", add_special_tokens=False) == [4]
    assert load(tmp_path, BYTE_LEVEL, pre="llama-bpe").encode("a") == [1, 4]
    assert load(tmp_path, BYTE_LEVEL, pre="llama-bpe", add_bos_token=False).encode("a") == [4]


def test_all_ends_of_turn_are_eos(tmp_path: Path):
    assert load(tmp_path, BYTE_LEVEL, eot_token_id=3).eos_ids == {2, 3}
    assert load(tmp_path, BYTE_LEVEL, eos_token_id=None).eos_ids == frozenset()


def test_sentencepiece(tmp_path: Path):
    tokenizer = load(tmp_path, SPM)
    e_acute = [3 + 0xC3, 3 + 0xA9]
    assert tokenizer.encode("ab") == [1, 264]
    assert tokenizer.encode(" ab") == [1, 259, 264]  # the prefix comes before a space, too
    assert tokenizer.encode("aé") == [1, 262, *e_acute]
    assert tokenizer.encode("a[X]a</s>a") == [1, 262, 265, 262, 2, 262]
    assert tokenizer.decode(tokenizer.encode("ab é ba")) == "ab é ba"
    assert load(tmp_path, SPM, add_space_prefix=False, add_bos_token=False).encode("ab b") == [263, 259, 261]


@pytest.mark.parametrize(
    ("keys", "changes", "message"),
    [
        (BYTE_LEVEL, {"model": "bert"}, "'tokenizer.ggml.model': unsupported kind 'bert'; supported: gpt2 and llama"),
        (BYTE_LEVEL, {"model": None}, "'tokenizer.ggml.model': expected a value of type str, found nothing"),
        (
            BYTE_LEVEL,
            {"pre": "klingon"},
            "'tokenizer.ggml.pre': unsupported pre-tokenizer 'klingon'; supported: default",
        ),
        (BYTE_LEVEL, {"pre": None}, "'tokenizer.ggml.pre': expected a value of type str, found nothing"),
        (BYTE_LEVEL, {"tokens": None}, "'tokenizer.ggml.tokens': expected a value of type list, found nothing"),
        (BYTE_LEVEL, {"tokens": [*TOKENS[:-1], "a"]}, "'tokenizer.ggml.tokens': 'a' appears twice"),
        (BYTE_LEVEL, {"token_type": TYPES[1:]}, "'tokenizer.ggml.token_type': expected 11 numbers, one for each token"),
        (BYTE_LEVEL, {"merges": ["ab"]}, "'tokenizer.ggml.merges': expected two tokens with a space between them"),
        (BYTE_LEVEL, {"merges": ["a b c"]}, "'tokenizer.ggml.merges': expected two tokens"),
        (BYTE_LEVEL, {"merges": ["a z"]}, "the tokenizer is damaged: "),
        (BYTE_LEVEL, {"eos_token_id": 11}, "'tokenizer.ggml.eos_token_id': expected an id below 11, found 11"),
        (BYTE_LEVEL, {"eos_token_id": "x"}, "'tokenizer.ggml.eos_token_id': expected a value of type int, found str"),
        (BYTE_LEVEL, {"add_bos_token": 1}, "'tokenizer.ggml.add_bos_token': expected a value of type bool, found int"),
        (SPM, {"scores": None}, "'tokenizer.ggml.scores': missing"),
        (SPM, {"unknown_token_id": None, "tokens": ["x", *SPM["tokens"][1:]]}, "'tokenizer.ggml.unknown_token_id'"),
    ],
)
def test_refused(tmp_path: Path, keys: dict[str, Any], changes: dict[str, Any], message: str):
    with pytest.raises(TokenizerError) as error:
        load(tmp_path, keys, **changes)
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "t.gguf"))
    assert "\n" not in str(error.value)


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}c{% endif %}"
)


def test_chat_template(tmp_path: Path):
    tokenizer = load(tmp_path, BYTE_LEVEL, TEMPLATE, add_bos_token=True)
    messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "b"}]
    assert tokenizer.apply_chat(messages) == [1, 7, 3, 5, 3, 6]  # one BOS: the one of the template
    assert tokenizer.apply_chat(messages, add_generation_prompt=False) == [1, 7, 3, 5, 3]


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no') }}", "{% for %}", "{{ ''.__class__.__mro__ }}{{ 1/0 }}"]
)
def test_template_that_fails(tmp_path: Path, template: str):
    with pytest.raises(TokenizerError, match="the chat template failed: ") as error:
        load(tmp_path, BYTE_LEVEL, template).apply_chat([{"role": "user", "content": "a"}])
    assert "\n" not in str(error.value)


def test_no_template(tmp_path: Path):
    with pytest.raises(TokenizerError, match="has no chat template; give it a plain prompt"):
        load(tmp_path, BYTE_LEVEL).apply_chat([{"role": "user", "content": "a"}])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory with a tokenizer."""
    write_tokenizer(make_plain_llama(tmp_path), 37)
    return tmp_path


def test_directory(directory: Path):
    tokenizer = load_tokenizer(directory)
    ids = tokenizer.encode("#1 +2")
    assert max(ids) < tokenizer.vocab_size == 37
    assert tokenizer.decode(ids) == "#1 +2"
    assert tokenizer.apply_chat([{"role": "#", "content": "1"}]) == tokenizer.encode("#: 1\n")


def test_directory_without_tokenizer(tmp_path: Path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is missing"):
        load_tokenizer(make_plain_llama(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": "1.0", "model": {"type": "BPE", "vocab": 3}}'])
def test_directory_with_damaged_tokenizer(directory: Path, text: str):
    (directory / "tokenizer.json").write_text(text)
    with pytest.raises(TokenizerError) as error:
        load_tokenizer(directory)
    assert str(error.value).startswith(str(directory))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [2, 5]}, {}, {2, 5}),
        ({"eos_token_id": 7}, {"eos_token_id": 9}, {2, 7}),
        ({}, {"eos_token_id": [9]}, {2, 9}),
        (None, {"eos_token_id": 9}, {2, 9}),
        (None, {}, {2}),
    ],
)
def test_eos_ids(directory: Path, generation: Any, config: dict[str, Any], expected: set[int]):
    """Those of generation_config.json, else of config.json; always that of the tokenizer (2)."""
    edit_json(directory / "config.json", **config)
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    assert load_tokenizer(directory).eos_ids == expected


def test_damaged_eos(directory: Path):
    (directory / "generation_config.json").write_text('{"eos_token_id": "x"}')
    with pytest.raises(TokenizerError, match=r"generation_config\.json: 'eos_token_id': expected an integer"):
        load_tokenizer(directory)


def test_text_that_is_not_unicode(directory: Path):
    with pytest.raises(TokenizerError, match="not valid Unicode"):
        load_tokenizer(directory).encode("\ud800")
