"""Quantised weights from the command line, and models quantised as their checkpoints are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from amk.amk_ir.errors import UsageError
from amk.amk_ir.quantization import QuantizedFormat, parse_format
from amk.amk_ir.quantized_type import QuantizedType
from amk.amk_ir.weight_choice import WeightChoice
from amk.dialects.graph import WeightOp
from amk.frontends.checkpoint import Checkpoint
from amk.frontends.import_model import ImportedModel, import_model
from amk.runtime.footprint import model_of
from amk.tools.quantize import is_stored_quantized, quantize_imported


def test_generate_and_import(tool_here, tiny_model: Path) -> None:
    run = tool_here(
        "amk", "generate", tiny_model, "--prompt", "a", "--max-tokens", "3", "--weights", "int8", "--head", "fp8"
    )
    assert (run.returncode, run.stderr) == (0, "")
    text = tool_here("amk", "import", tiny_model, "--weights", "int4:g16:zp", "--keep", "down_proj").stdout
    assert '@q_proj layers 2 from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.weight"> : ' in text
    assert text.count('!amk.quantized<"int4:g16:zp", columns = 32>') == 6
    assert "tensor<32x48xf32>" in text


def test_info_counts_the_bytes(tool_here, tiny_model: Path) -> None:
    text = tool_here("amk", "info", tiny_model, "--weights", "int8").stdout
    assert "weights as quantised" in text and "floor per token of the quantised weights" in text
    assert "quantised" not in tool_here("amk", "info", tiny_model).stdout


def test_compile_keeps_the_choice(tool_here, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    out = tmp_path / "tiny.amk"
    importance = tmp_path / "tiny.importance"
    assert tool_here("amk", "calibrate", tiny_model, "--limit", "20", "-o", importance).returncode == 0
    arguments = ("--weights", "int8:g16", "--head", "int8", "--keep", "down*", "--importance", importance, "--sms", "4")
    run = tool_here("amk", "compile", tiny_model, *arguments, "-o", out)
    assert (run.returncode, run.stderr) == (0, "")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["quantization"] == {"weights": "int8:g16", "head": "int8", "embedding": "none", "keep": ["down*"]}
    assert manifest["weight_dtype"] == "bf16"
    assert manifest["importance"] == hashlib.sha256(importance.read_bytes()).hexdigest()
    plain = tool_here("amk", "compile", tiny_model, "--sms", "4", "-o", tmp_path / "plain.amk")
    assert plain.returncode == 0
    sizes = [(tmp_path / name / "weights.bin").stat().st_size for name in ("tiny.amk", "plain.amk")]
    assert sizes[0] < 0.8 * sizes[1]
    assert json.loads((tmp_path / "plain.amk" / "manifest.json").read_text())["importance"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "int3"), "--weights: quantised format 'int3': expected int8, int4 or fp8"),
        (("--weights", "int8:g64"), "@q_proj: groups of 64 values do not fit rows of 32 columns; use smaller groups"),
        (("--head", "stored"), "--head: quantised format 'stored'"),
        (("--weights", "stored", "--head", "int8"), "--weights: 'stored' is said of all matrices"),
        (("--weights", "bf16", "--keep", "q_proj"), "--keep goes with a quantised format"),
        (("--weights", "int8", "--keep", "query"), "no weight is called 'query'; there are attn_norm, down_proj"),
    ],
)
def test_mistakes_are_named(tool_here, tiny_model: Path, arguments: tuple[str, ...], message: str) -> None:
    run = tool_here("amk", "import", tiny_model, *arguments)
    assert run.returncode == 2
    assert message in run.stderr and run.stderr.count("\n") == 1


class StoredFormats:
    """A checkpoint that says of some tensors that they are stored quantised."""

    def __init__(self, formats: dict[str, QuantizedFormat]):
        self.formats = formats
        self.tensors = dict.fromkeys(formats)

    def info(self, name: str) -> Any:
        return SimpleNamespace(quantized=self.formats.get(name))

    def quantized(self, name: str) -> Any:
        return SimpleNamespace(permutation=None)


def stored(model: ImportedModel, formats: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """(formats of the weights of `model` as if its tensors were stored in `formats`, notes)."""
    checkpoint = StoredFormats({name: parse_format(text) for name, text in formats.items()})
    given = replace(model, checkpoint=cast(Checkpoint, checkpoint))
    assert is_stored_quantized(given)
    notes: list[str] = []
    result = quantize_imported(given, WeightChoice("stored"), notes.append)
    assert result.quantization == WeightChoice("stored")
    weights = (op for op in model_of(result.module).body.block.ops if isinstance(op, WeightOp))
    elements = {op.sym_name.data: op.type.get_element_type() for op in weights}
    return {name: str(e.format) for name, e in elements.items() if isinstance(e, QuantizedType)}, notes


def test_as_stored(tiny_model: Path) -> None:
    model = import_model(tiny_model, weight_dtype="bf16")
    assert not is_stored_quantized(model)
    q = {f"model.layers.{layer}.self_attn.q_proj.weight": "int4:g16:zp:f16" for layer in range(2)}
    assert stored(model, q | {"model.embed_tokens.weight": "int8:g32:f16"}) == (
        {"q_proj": "int4:g16:zp:f16", "embed": "int8:g32:f16"},
        [],
    )
    # what cannot be one weight of all layers is said, and left as it is
    formats, notes = stored(model, {**q, "model.layers.1.self_attn.q_proj.weight": "int8"})
    assert formats == {}
    assert notes == ["@q_proj is stored in several formats (int4:g16:zp:f16, int8); it becomes bf16"]
    gate = {f"model.layers.{layer}.mlp.gate_proj.weight": "int8" for layer in range(2)}
    formats, notes = stored(model, {**q, **gate})
    assert formats == {"q_proj": "int4:g16:zp:f16"}
    assert notes == ["@gate_proj and @up_proj are stored in different formats; both become bf16"]


def test_a_model_without_checkpoint_has_nothing_stored(tiny_model: Path) -> None:
    model = replace(import_model(tiny_model), checkpoint=None)
    assert not is_stored_quantized(model)
    with pytest.raises(UsageError, match="has no checkpoint"):
        quantize_imported(model, WeightChoice("stored"))
