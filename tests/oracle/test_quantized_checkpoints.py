"""Quantised checkpoints that the formats' own tools wrote: the same weights to the bit, and the tools' logits.

tests/data/quantized/make_checkpoints.py made the files and says with which tools.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amk.amk_ir.dtypes import bf16_from_f32, f32_from_bf16
from amk.backends.reference.graph_interpreter import GraphInterpreter
from amk.dialects.graph import ModelOp
from amk.frontends.import_model import ImportedModel, import_model
from amk.tools.api import open_session

FOLDER = Path(__file__).parents[1] / "data" / "quantized"
FORMATS = {
    "awq": "int4:g16:zp:f16",
    "awq_symmetric": "int4:g32:bf16",
    "compressed_fp8": "fp8:bf16",
    "compressed_fp8_block": "fp8:b16x32:bf16",
    "compressed_fp8_tensor": "fp8:bf16",
    "compressed_int4": "int4:g16:bf16",
    "compressed_int4_asymmetric": "int4:g16:zp:bf16",
    "compressed_int8": "int8:bf16",
    "compressed_int8_asymmetric": "int8:g16:zp:bf16",
    "fp8_block": "fp8:b16x32",
    "gptq_int4": "int4:g32:f16",
    "gptq_int4_act_order": "int4:g16:zp:f16",
    "gptq_int8": "int8:f16",
}


def bits(values: Any, dtype: str) -> Any:
    """float32 values rounded to `dtype`, as they lie in memory."""
    match dtype:
        case "bfloat16":
            return bf16_from_f32(values)
        case "float16":
            return values.astype(np.float16)
        case _:
            return values


class RoundedWeights:
    """A checkpoint whose quantised matrices are rounded to the type in which the tool computes."""

    def __init__(self, model: ImportedModel, dtype: str):
        assert model.checkpoint is not None
        self.checkpoint, self.dtype = model.checkpoint, dtype

    def load(self, name: str, dtype: Any = "f32") -> Any:
        assert dtype == "f32"
        values = self.checkpoint.load(name)
        if self.checkpoint.info(name).quantized is None:
            return values
        rounded = bits(values, self.dtype)
        return f32_from_bf16(rounded) if self.dtype == "bfloat16" else rounded.astype(np.float32)


def logits(model: ImportedModel, weights: Any, ids: list[int]) -> Any:
    (op,) = (op for op in model.module.walk() if isinstance(op, ModelOp))
    interpreter = GraphInterpreter(op, weights)
    return np.concatenate([interpreter.step([token], pos).logits for pos, token in enumerate(ids)])


def test_every_checkpoint_is_tested():
    assert sorted(p.parent.name for p in FOLDER.glob("*/expected.json")) == list(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_same_weights_and_logits_as_the_tool(name: str):
    expected = json.loads((FOLDER / name / "expected.json").read_text())
    model = import_model(FOLDER / name)
    assert model.checkpoint is not None
    quantized = {n for n, info in model.checkpoint.tensors.items() if info.quantized is not None}
    assert quantized == expected["sha256"].keys()
    for weight, digest in expected["sha256"].items():
        tensor = model.checkpoint.quantized(weight)
        assert tensor is not None
        assert tensor.format == model.checkpoint.info(weight).quantized
        assert str(tensor.format) == FORMATS[name]
        values = model.checkpoint.load(weight)
        np.testing.assert_array_equal(tensor.dequantize(), values)
        np.testing.assert_array_equal(model.checkpoint.load(weight, "bf16"), bf16_from_f32(values))
        found = np.ascontiguousarray(bits(values, expected["dtype"]))
        assert hashlib.sha256(found.tobytes()).hexdigest() == digest, weight
    ours = logits(model, RoundedWeights(model, expected["dtype"]), expected["ids"])
    theirs = np.array(expected["logits"], np.float32)
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())
    # the tool's own forward pass, with activations of 8 to 11 bits
    exact, own = logits(model, model.checkpoint, expected["ids"]), np.array(expected["own"], np.float32)
    assert np.abs(exact - own).max() < 0.05 * own.std()


def test_activation_order_permutes_the_inputs():
    model = import_model(FOLDER / "gptq_int4_act_order")
    assert model.checkpoint is not None
    for name, info in model.checkpoint.tensors.items():
        if info.quantized is not None:
            tensor = model.checkpoint.quantized(name)
            assert tensor is not None
            assert tensor.permutation is not None
            assert (np.diff(tensor.permutation) < 0).any()


@pytest.mark.parametrize("name", ["awq", "gptq_int4_act_order", "fp8_block"])
def test_runs_as_a_verified_kernel(name: str):
    expected = json.loads((FOLDER / name / "expected.json").read_text())
    model = import_model(FOLDER / name)
    with open_session(model, "reference") as session:
        steps = [session.executable.step(token, pos)[1].copy() for pos, token in enumerate(expected["ids"])]
    np.testing.assert_allclose(steps, logits(model, model.checkpoint, expected["ids"]), rtol=1e-4, atol=1e-4)
