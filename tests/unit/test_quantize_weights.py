"""Quantised weights on the reference backend: all levels compute with exactly the dequantised values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_models import CONFIGS, RandomWeights, lower
from numpy.typing import NDArray
from quantized_models import EVERY_FORMAT
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import PassFailedException

from amk.amk_ir.attrs import CheckpointAttr
from amk.amk_ir.errors import CheckpointError
from amk.amk_ir.quantization import QuantizedTensor, parse_format, quantize
from amk.amk_ir.quantized_type import QuantizedRows, QuantizedType
from amk.amk_ir.quantized_weights import quantized_entry
from amk.backends.reference.graph_interpreter import GraphInterpreter
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.backends.reference.task_interpreter import TaskInterpreter
from amk.dialects.graph import ModelOp, WeightOp
from amk.dialects.task import ProgramOp
from amk.frontends.import_model import import_config
from amk.passes.graph_to_task import GraphToTaskPass
from amk.passes.quantize_weights import QuantizeWeightsPass
from amk.passes.verify_schedule import verify
from amk.runtime.compile import new_context
from amk.runtime.footprint import footprint


def quantized_model(config: dict[str, Any], weights: str, head: str = "none", embedding: str = "none") -> ModuleOp:
    module = import_config(config, weight_dtype="bf16", kv_dtype="f32").module
    QuantizeWeightsPass(weights, head, embedding).apply(new_context(), module)
    module.verify()
    return module


def only(module: ModuleOp, kind: type[Any]) -> Any:
    return next(op for op in module.ops if isinstance(op, kind))


class DequantizedWeights:
    """What quantised types of a model make of its weights, computed apart from any backend."""

    def __init__(self, model: ModelOp, weights: RandomWeights):
        self.weights = weights
        self.types: dict[str, QuantizedType] = {}
        for op in model.body.block.ops:
            if isinstance(op, WeightOp) and isinstance(element := op.type.get_element_type(), QuantizedType):
                assert isinstance(op.source, CheckpointAttr)
                for layer in range(1 if op.layers is None else op.layers.value.data):
                    self.types[op.source.data.replace("{layer}", str(layer))] = element

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        if (type := self.types.get(name)) is None:
            return self.weights.load(name, dtype)
        values = self.weights.load(name)
        return quantize(values.reshape(-1, type.columns), type.format).dequantize().reshape(values.shape)


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_all_levels_mean_the_dequantised_values(name: str) -> None:
    config_name, options = EVERY_FORMAT[name]
    config = CONFIGS[config_name]
    kernel = lower(config, "reference", sms=2, kv_dtype="f32", **options)
    verify(kernel)
    weights = RandomWeights(kernel)
    module = quantized_model(config, **options)
    plain = import_config(config, weight_dtype="f32", kv_dtype="f32").module
    program = module.clone()
    GraphToTaskPass(tasks=2).apply(new_context(), program)
    model = only(module, ModelOp)
    expected = GraphInterpreter(only(plain, ModelOp), DequantizedWeights(model, weights))
    interpreters = (
        GraphInterpreter(model, weights),
        TaskInterpreter(only(program, ProgramOp), weights, seed=1),
        QueueInterpreter(kernel, weights),
    )
    for pos, token in enumerate((5, 17)):
        wanted = expected.step([token], pos).logits
        for interpreter in interpreters:
            found = interpreter.step([token], pos).logits
            assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    # and they are not those of the weights as they were
    before = GraphInterpreter(only(plain, ModelOp), weights).step([5], 0).logits
    interpreters[0].reset()
    assert np.abs(interpreters[0].step([5], 0).logits - before).max() > 1e-4 * np.abs(before).max()


def types_of(module: ModuleOp) -> dict[str, str]:
    """The formats of the quantised weights, by name."""
    weights = (op for op in only(module, ModelOp).body.block.ops if isinstance(op, WeightOp))
    elements = {op.sym_name.data: op.type.get_element_type() for op in weights}
    return {name: str(e.format) for name, e in elements.items() if isinstance(e, QuantizedType)}


def test_kinds_of_matrices() -> None:
    layers = {f"{name}_proj": "int8" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    assert types_of(quantized_model(CONFIGS["mha"], "int8")) == layers
    # a table that is also the head is one weight, and a head
    assert types_of(quantized_model(CONFIGS["gqa"], "int8", "fp8", "int4")) == layers | {"embed": "fp8"}
    assert types_of(quantized_model(CONFIGS["mha"], "none", "fp8", "int4")) == {"head": "fp8", "embed": "int4"}


def test_keep() -> None:
    module = import_config(CONFIGS["gqa"], weight_dtype="bf16").module
    QuantizeWeightsPass("int8", keep=("?_proj", "down_proj")).apply(new_context(), module)
    assert set(types_of(module)) == {"gate_proj", "up_proj"}
    with pytest.raises(PassFailedException, match=r"no weight is called 'q'; there are .*q_proj"):
        QuantizeWeightsPass("int8", keep=("q",)).apply(new_context(), module)


def test_bytes_of_a_token() -> None:
    """The footprint counts codes and scales as they are streamed."""
    plain = footprint(only(import_config(CONFIGS["gqa"], weight_dtype="bf16").module, ModelOp))
    assert plain.typed_bytes == plain.weight_bytes(2)
    found = footprint(only(quantized_model(CONFIGS["gqa"], "int4:g32:f16", "int8"), ModelOp))
    layers, hidden, mlp = 2, 64, 96
    rows = {hidden: (64 + 2 * 32 + 64) + 2 * mlp, mlp: hidden}
    linear = sum(n * (k // 2 + -(-k // 32) * 2) for k, n in rows.items())
    assert found.typed_bytes == layers * linear + 300 * (hidden + 4) + plain.vectors * 4


class Provider:
    def __init__(self, values: NDArray[np.float32], stored: QuantizedTensor | None = None):
        self.values, self.stored = values, stored

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        return self.values

    def quantized(self, name: str) -> QuantizedTensor | None:
        return self.stored


def test_entries_are_taken_as_stored_or_quantised() -> None:
    values = np.random.default_rng(0).standard_normal((6, 32), np.float32)
    int8, int4 = parse_format("int8"), parse_format("int4:g16")
    stored = quantize(values, int8)
    wanted = QuantizedType(QuantizedRows(int8, 32))
    assert quantized_entry(Provider(values, stored), "w", wanted, 192) is stored
    # another format: what is stored counts, by its values
    other = quantized_entry(Provider(stored.dequantize(), stored), "w", QuantizedType(QuantizedRows(int4, 32)), 192)
    assert np.array_equal(other.codes, quantize(stored.dequantize(), int4).codes)
    # other dimensions are other rows
    assert quantized_entry(Provider(values.reshape(12, 16)), "w", wanted, 192).shape == (6, 32)


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        (Provider(np.zeros((5, 32), np.float32)), r"tensor 'w' has shape 5x32, the program declares 6 rows of 32"),
        (
            Provider(np.full((6, 32), np.nan, np.float32)),
            r"tensor 'w': quantize to int8: element \[0, 0\] is not finite",
        ),
        (
            Provider(np.zeros((6, 32)), quantize(np.zeros((5, 32)), parse_format("int8"))),
            "tensor 'w' has shape 5x32, the program declares 6 rows",
        ),
    ],
)
def test_wrong_entries_are_refused_by_name(provider: Provider, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        quantized_entry(provider, "w", QuantizedType(QuantizedRows(parse_format("int8"), 32)), 192)
