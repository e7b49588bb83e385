"""`amk eval` as a program, and its numbers against transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import Variant, load_reference, make_llama

from amk.tools.commands.eval_ import DEFAULT_TEXT

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 3


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "tiny", Variant(tied=True))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "fox.txt"
    path.write_text(TEXT)
    return path


def transformers_metrics(directory: Path, ids: list[int], context: int) -> tuple[float, float]:
    """Perplexity of the float32 model, and the mean KL divergence of the one with matrices in bf16 from it."""
    reference, rounded = load_reference(directory), load_reference(directory)
    for parameter in rounded.parameters():
        if parameter.dim() == 2:
            parameter.data = parameter.data.bfloat16().float()
    losses, divergences = [], []
    for start in range(0, len(ids), context):
        window = torch.tensor([ids[start : start + context]])
        with torch.no_grad():
            p, q = (torch.log_softmax(m(window).logits[0].double(), -1) for m in (reference, rounded))
        losses += [-p[i, token].item() for i, token in enumerate(window[0, 1:])]
        divergences += (p.exp() * (p - q)).sum(-1).tolist()
    return float(np.exp(np.mean(losses))), float(np.mean(divergences))


def test_agrees_with_transformers(tool, directory: Path, text: Path, tmp_path: Path):
    out = tmp_path / "result.json"
    run = tool("amk", "eval", directory, "--text", text, "--context", 50, "--format", "bf16,int8", "--format", "int4:g16:zp", "--json", out)  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines[4:]] == ["f32", "bf16", "int8", "int4:g16:zp"]
    assert max(map(len, lines[1:])) <= 80
    record: dict[str, Any] = json.loads(out.read_text())
    ids = _ids(directory)
    assert record["tokens"] == len(ids)
    assert record["windows"] == [50] * (len(ids) // 50) + [len(ids) % 50]
    perplexity, divergence = transformers_metrics(directory, ids, 50)
    reference, bf16, *others = record["results"]
    assert reference["perplexity"] == pytest.approx(perplexity, rel=1e-5)
    assert bf16["kl_mean"] == pytest.approx(divergence, rel=1e-2)
    assert all(0 < bf16["kl_mean"] < other["kl_mean"] for other in others)
    assert [r["format"] for r in record["results"]] == ["f32 reference", "bf16", "int8", "int4:g16:zp"]
    assert f"{reference['perplexity']:.6g}" in lines[4]


def _ids(directory: Path) -> list[int]:
    from amk.frontends.tokenizer import load_tokenizer

    return load_tokenizer(directory).encode(TEXT)


def test_limit_and_default_formats(tool_here, directory: Path, text: Path):
    run = tool_here("amk", "eval", directory, "--text", text, "--limit", 20)
    assert run.returncode == 0, run.stderr
    assert "20 tokens of fox.txt in 1 windows" in run.stdout
    assert [line.split()[0] for line in run.stdout.splitlines()[4:]] == ["f32", "bf16"]


def test_another_reference(tool_here, directory: Path, text: Path, tmp_path: Path):
    other = make_llama(tmp_path / "other", Variant(tied=True), seed=1)
    args = ("--text", text, "--limit", 30, "--format", "f32", "--json", tmp_path / "r.json")
    run = tool_here("amk", "eval", directory, "--reference", other, *args)
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert results[1]["kl_mean"] > 0.01


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--format", "int5"], "--format: quantised format 'int5': expected int8, int4 or fp8"),
        (["--text", "no-such-file"], "--text no-such-file: cannot be read: No such file"),
        (["--context", "1"], "context: expected 2 or more, found 1"),
        (["--context", "1000"], "max_seq: expected 1 to 128"),
        (["--sms", "4"], "--sms goes with --backend cuda"),
        (["--limit", "1"], "the text has 1 tokens"),
        (["--limit", "-1"], "argument --limit: expected an integer of at least 0"),
    ],
)
def test_refused(tool_here, directory: Path, args: list[str], message: str):
    run = tool_here("amk", "eval", directory, *args)
    assert (run.returncode, run.stdout) == (2, "")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(("content", "message"), [(b"", "the text is empty"), (b"\xff\xfe", "not UTF-8 text")])
def test_refused_texts(tool_here, directory: Path, tmp_path: Path, content: bytes, message: str):
    (tmp_path / "t.txt").write_bytes(content)
    run = tool_here("amk", "eval", directory, "--text", tmp_path / "t.txt")
    assert run.returncode == 2
    assert message in run.stderr


def test_the_text_that_ships():
    text = DEFAULT_TEXT.read_text(encoding="utf-8")
    assert text.isascii()
    assert 10_000 < len(text) < 13_000
