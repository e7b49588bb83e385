"""Models on a GPU through the Python API: compiled on the spot, and loaded from what `amk compile` wrote."""

from pathlib import Path

import pytest

import amk
from amk.amk_ir.errors import DeviceError
from amk.amk_ir.targets import TARGETS, Target

PROMPT, TOKENS = [1, 2, 3], 16


def test_a_session_on_the_gpu(tiny_model: Path, target: Target):
    """The GPU chooses the tokens that the reference backend chooses with the same bf16 weights."""
    model = amk.import_model(tiny_model, weight_dtype="bf16", kv_dtype="f32")
    with amk.open_session(model) as session:
        expected = list(session.generate(PROMPT, TOKENS))
    with amk.open_session(model, "cuda", target=target) as session:
        assert list(session.generate(PROMPT, TOKENS)) == expected
        session.reset()
        assert list(session.generate(PROMPT, TOKENS)) == expected


def test_a_compiled_model_on_the_gpu(tiny_model: Path, target: Target, tmp_path: Path):
    model = amk.import_model(tiny_model, weight_dtype="bf16", kv_dtype="f32")
    with amk.open_session(model) as session:
        expected = list(session.generate(PROMPT, TOKENS))
    amk.compile(model, target, tmp_path / "tiny.amk")
    with amk.open_compiled(tmp_path / "tiny.amk") as session:
        assert list(session.generate(PROMPT, TOKENS)) == expected


def test_all_kernels_of_a_compiled_model_on_the_gpu(tiny_model: Path, target: Target, tmp_path: Path):
    """Prompts in chunks, and the kernel for long contexts from position 8 on, choose the same tokens."""
    model = amk.import_model(tiny_model, weight_dtype="bf16", kv_dtype="f32")
    prompt = list(range(1, 12))
    with amk.open_session(model) as session:
        expected = list(session.generate(prompt, TOKENS))
    amk.compile(model, target, tmp_path / "tiny.amk", chunk=4, far_from=8, token_loop=True)
    for steps, chunk in ((1, None), (4, None), (4, 1)):
        with amk.open_compiled(tmp_path / "tiny.amk", model, steps_per_launch=steps, chunk=chunk) as session:
            assert session.executable.chunk == (4 if chunk is None else 1)
            assert list(session.generate(prompt, TOKENS)) == expected


def test_a_model_compiled_for_another_gpu(tiny_model: Path, target: Target, tmp_path: Path):
    other = next(t for t in TARGETS.values() if t.is_cuda and t.name != target.name)
    amk.compile(tiny_model, other, tmp_path / "tiny.amk", sms=4)
    with pytest.raises(DeviceError, match=other.name):
        amk.open_compiled(tmp_path / "tiny.amk")
