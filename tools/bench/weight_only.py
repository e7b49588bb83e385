"""The matrix products of a step with torch's own int8 and int4 weights: what a library makes of quantised weights.

int4: tinygemm's `_weight_int4pack_mm`. int8: `_weight_int8pack_mm`, and what torch.compile makes of a product of the codes cast
to bf16, times a scale a row; the faster of the two counts. No norm, no attention, no residual, as in `baselines.matmuls_alone`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import prod
from typing import Any, cast

from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Attribute, SSAValue

from ...amk_ir.quantization import QuantizedFormat
from ...amk_ir.quantized_type import QuantizedType
from ...dialects.graph import LinearOp, WeightOp, enclosing_layers
from ...runtime.footprint import model_of
from . import baselines
from .results import Baseline, NotRun

GROUPS = (128, 64, 32)
"""Inputs of an int4 scale where the format has one a row: the first that divides a row."""
_TORCH_GROUPS = (32, 64, 128, 256)
_INNER_TILES = (8, 4, 2)
"""Tiles of 16 inputs that lie together in packed int4 weights: as many as a row allows."""

PREPARE_LIMIT_S = 60.0
"""Seconds after which a way of int8 is given up if a compiler is not done with the products."""


@dataclass(frozen=True)
class Product:
    """A matrix [rows, columns] that a step multiplies by a vector. format: None for bf16."""

    rows: int
    columns: int
    format: QuantizedFormat | None

    @property
    def storage(self) -> str:
        return "bf16" if self.format is None else self.format.storage


def products(module: ModuleOp) -> list[Product]:
    """Those of a step of an imported model, in order. Neighbours of one input and one format are fused, as a careful hand
    would: the fewest launches make the strongest baseline."""
    model = model_of(module)
    weights = {op.sym_name.data: op for op in model.body.block.ops if isinstance(op, WeightOp)}
    layers, inner, outer = 0, list[Product](), list[Product]()
    before: SSAValue | None = None
    for op in model.step.walk():
        if not isinstance(op, LinearOp):
            continue
        weight = weights[op.weight.string_value()]
        element, shape = weight.type.get_element_type(), weight.type.get_shape()
        columns = prod(cast("TensorType[Attribute]", op.x.type).get_shape()[1:])
        product = Product(
            prod(shape) // columns, columns, element.format if isinstance(element, QuantizedType) else None
        )
        found = outer if enclosing_layers(op) is None else inner
        if found is inner and weight.layers is not None:
            layers = weight.layers.value.data
        if found and op.x is before and found[-1].format == product.format:
            product = Product(found.pop().rows + product.rows, columns, product.format)
        found.append(product)
        before = op.x
    return [*inner * layers, *outer]


def has_weight_only(module: ModuleOp) -> bool:
    """Whether a step of an imported model multiplies by int8 or int4 weights."""
    return any(product.storage in ("int8", "int4") for product in products(module))


def weight_only_alone(module: ModuleOp, repeats: int, mode: str, device: str = "cuda") -> Baseline | NotRun:
    """The products of an imported model that `has_weight_only`, with random weights. mode: of torch.compile."""
    try:
        return _weight_only_alone(products(module), repeats, mode, device)
    except Exception as e:  # such as no memory, or shapes that an op does not take: the rest of the run is worth having
        return NotRun(baselines.first_line(e))


def _weight_only_alone(found: Sequence[Product], repeats: int, mode: str, device: str) -> Baseline:
    torch: Any = import_module("torch")
    results: dict[str, Baseline] = {}
    failures: dict[str, Exception] = {}
    has_int8 = any(product.storage == "int8" for product in found)
    with torch.no_grad():
        calls = list(_calls(found, device))
        kinds = list(dict(zip(found, calls, strict=True)).values())  # one of each
        for way, int8 in int8_ways(mode).items() if has_int8 else {"": None}.items():

            def run(int8: Any = int8) -> None:
                for call in calls:
                    call(int8)

            start = time.perf_counter()
            try:
                _prepare(kinds, int8, start + PREPARE_LIMIT_S)
                replay, _ = baselines.capture(run, lambda: None)
                prepared = time.perf_counter() - start
                times = baselines.time_replays(replay, repeats, lambda: None)
            except Exception as e:  # the other way may do
                failures[way] = e
                continue
            results[way] = Baseline("", times, None, prepared)
    if not results:
        raise next(iter(failures.values()))
    way = min(results, key=lambda name: results[name].times.median)
    others = [f"{name} took {result.times.median:.1f} us" for name, result in results.items() if name != way]
    others += [f"{name} failed: {baselines.first_line(e)}" for name, e in failures.items()]
    parts = [f"torch {torch.__version__}"]
    if any(product.storage == "int4" for product in found):
        parts.append("int4: _weight_int4pack_mm")
    if way:
        parts.append(f"int8: {way}" + (f" ({'; '.join(others)})" if others else ""))
    best = results[way]
    return Baseline(", ".join((*parts, "CUDA graph")), best.times, None, best.prepared_s)


def _prepare(calls: Sequence[Callable[[Any], Any]], int8: Any, deadline: float) -> None:
    """Makes `calls`, which compiles what they need; TimeoutError if one is left at `deadline`."""
    for done, call in enumerate(calls):
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{done} of {len(calls)} products were ready after {PREPARE_LIMIT_S:.0f} s")
        call(int8)


def int8_ways(mode: str) -> dict[str, Callable[..., Any]]:
    """Products of (x, codes, scales of rows), by name."""
    torch: Any = import_module("torch")

    def multiply(x: Any, codes: Any, scales: Any) -> Any:
        return torch.nn.functional.linear(x, codes.to(x.dtype)) * scales

    return {
        "_weight_int8pack_mm": torch.ops.aten._weight_int8pack_mm,
        f"torch.compile mode {mode} of linear(x, codes.to(bf16)) * scales": torch.compile(
            multiply, fullgraph=True, dynamic=False, mode=mode
        ),
    }


def _calls(found: Sequence[Product], device: str) -> Iterator[Callable[[Any], Any]]:
    """What makes each product, told how int8 is multiplied. Every product has weights of its own."""
    torch: Any = import_module("torch")
    options: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
    inputs = {columns: torch.randn(1, columns, **options) for columns in {product.columns for product in found}}
    for product in found:
        x, rows, columns = inputs[product.columns], product.rows, product.columns
        match product.storage:
            case "bf16":
                weight = torch.randn(rows, columns, **options) * 0.02
                yield lambda _, x=x, weight=weight: torch.nn.functional.linear(x, weight)
            case "int8":
                codes = torch.randint(-128, 128, (rows, columns), device=device, dtype=torch.int8)
                scales = torch.rand(rows, **options) * 1e-3
                yield lambda multiply, x=x, codes=codes, scales=scales: multiply(x, codes, scales)
            case "int4":
                group, inner = int4_layout(product)
                codes = torch.randint(0, 256, (rows, columns // 2), device=device, dtype=torch.uint8)
                packed = torch.ops.aten._convert_weight_to_int4pack(codes, inner)
                scales = torch.rand(columns // group, rows, 2, **options) * 1e-2  # and zero points
                yield lambda _, x=x, packed=packed, group=group, scales=scales: torch.ops.aten._weight_int4pack_mm(
                    x, packed, group, scales
                )
            case other:
                raise ValueError(f"torch has no product of {other} weights and bf16 activations")


def int4_layout(product: Product) -> tuple[int, int]:
    """Inputs that share a scale, and tiles that lie together; ValueError if torch has no product for this matrix."""
    assert product.format is not None, "a product of int4 weights"
    columns = product.columns
    group = product.format.group or next((g for g in GROUPS if columns % g == 0), GROUPS[-1])
    inner = next((n for n in _INNER_TILES if columns % (16 * n) == 0), None)
    if group not in _TORCH_GROUPS or columns % group or inner is None:
        raise ValueError(
            f"_weight_int4pack_mm multiplies whole groups of {', '.join(map(str, _TORCH_GROUPS))} inputs, not rows of "
            f"{columns} in groups of {group}"
        )
    return group, inner
