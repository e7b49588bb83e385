"""The importance of inputs: measured on a text, kept in a file, used where matrices are quantised."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amk.amk_ir.errors import CheckpointError, ExecutionError, UsageError
from amk.amk_ir.quantization import parse_format, quantize
from amk.amk_ir.quantized_type import QuantizedRows, QuantizedType
from amk.amk_ir.quantized_weights import quantized_entry
from amk.frontends.import_model import ImportedModel, import_config, import_model
from amk.frontends.importance import ImportanceCheckpoint, importance_file
from amk.tools.calibration import measure_importance
from amk.tools.commands.calibrate import DEFAULT_TEXT
from amk.tools.quantize import with_importance

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
WINDOWS = [[5, 17, 40, 5], [99, 3]]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ImportedModel:
    return import_model(tiny_model)


@pytest.fixture
def measured(model: ImportedModel, tmp_path: Path) -> Path:
    file = tmp_path / "tiny.importance"
    file.write_bytes(importance_file(measure_importance(model, WINDOWS), {"text": "none"}))
    return file


def test_mean_squares_of_what_is_multiplied(model: ImportedModel) -> None:
    found = measure_importance(model, WINDOWS)
    checkpoint = model.checkpoint
    assert checkpoint is not None
    matrices = {name: info.shape for name, info in checkpoint.tensors.items() if len(info.shape) == 2}
    assert {name: vector.shape for name, vector in found.items()} == {n: shape[1:] for n, shape in matrices.items()}
    assert all(vector.dtype == np.float32 and (vector > 0).all() for vector in found.values())
    # the first layer multiplies normalised rows of the embedding
    rows = checkpoint.load("model.embed_tokens.weight")[[token for window in WINDOWS for token in window]].astype(
        np.float64
    )
    rows /= np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-5)
    mean = ((rows * checkpoint.load("model.layers.0.input_layernorm.weight")) ** 2).mean(axis=0)
    np.testing.assert_allclose(found[Q_PROJ], mean + 1e-3 * mean.mean(), rtol=1e-5)
    np.testing.assert_array_equal(found[Q_PROJ], found[Q_PROJ.replace("q_proj", "k_proj")])
    assert (found[Q_PROJ] != found[Q_PROJ.replace("layers.0", "layers.1")]).all()


def test_inputs_that_are_not_finite(model: ImportedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.checkpoint is not None
    load = model.checkpoint.load

    def damaged(name: str, dtype: Any = "f32") -> NDArray[Any]:
        return load(name, dtype) * (np.float32(np.nan) if name.startswith("model.layers.1.input") else 1)

    monkeypatch.setattr(model.checkpoint, "load", damaged)
    with pytest.raises(ExecutionError, match=r"'model.layers.1.self_attn.q_proj.weight' multiplies is not finite"):
        measure_importance(model, WINDOWS)


def test_the_file_is_what_the_safetensors_package_reads(measured: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    found = load_file(measured)
    assert found[Q_PROJ].dtype == np.float32
    with safe_open(measured, "np") as file:
        assert file.metadata() == {"text": "none"}


def test_matrices_are_quantised_by_it(model: ImportedModel, measured: Path) -> None:
    informed = with_importance(model, measured)
    assert model.checkpoint is not None and informed.checkpoint is not None
    assert model.checkpoint.importance(Q_PROJ) is None
    importance = informed.checkpoint.importance(Q_PROJ)
    assert importance is not None
    assert informed.checkpoint.importance("model.norm.weight") is None
    with pytest.raises(CheckpointError, match="no tensor 'model.other'"):
        informed.checkpoint.importance("model.other")
    # the values are those of the checkpoint, only the quantised ones change
    values = model.checkpoint.load(Q_PROJ)
    np.testing.assert_array_equal(informed.checkpoint.load(Q_PROJ), values)
    assert informed.checkpoint.quantized(Q_PROJ) is None
    type = QuantizedType(QuantizedRows(parse_format("int4:g16"), 32))
    plain, found = (quantized_entry(c, Q_PROJ, type, values.size) for c in (model.checkpoint, informed.checkpoint))
    np.testing.assert_array_equal(found.codes, quantize(values, type.format, importance).codes)
    assert (found.codes != plain.codes).any()
    # and with another number of tokens a step, too
    again = informed.with_tokens(2).with_tokens(3)
    assert again.tokens == 3
    assert again.checkpoint is informed.checkpoint


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({}, "expected a vector for each matrix of .*, found none"),
        ({"model.layers.9.mlp.up_proj.weight": np.ones(32)}, "has no matrix of this name: was it calibrated with another"),
        ({Q_PROJ: np.ones(31)}, r"expected F32 of shape \[32\], one number for each input .* found F32 of shape \[31\]"),
        ({Q_PROJ: np.ones((32, 32))}, r"expected F32 of shape \[32\].* found F32 of shape \[32, 32\]"),
        ({"model.norm.weight": np.ones(32)}, r"is no matrix, but of shape \[32\]"),
        ({Q_PROJ: np.array([1.0] * 30 + [np.nan, 1])}, "element 30: expected a mean square, 0 or more, found nan"),
        ({Q_PROJ: np.array([1.0, -2] + [1] * 30)}, "element 1: expected a mean square, 0 or more, found -2"),
        ({Q_PROJ: np.array([np.inf] + [1] * 31)}, "element 0: expected a mean square, 0 or more, found inf"),
    ],
)  # fmt: skip
def test_files_that_are_refused(
    model: ImportedModel, tmp_path: Path, vectors: dict[str, NDArray[Any]], message: str
) -> None:
    file = tmp_path / "bad.importance"
    file.write_bytes(importance_file({name: v.astype(np.float32) for name, v in vectors.items()}, {}))
    assert model.checkpoint is not None
    with pytest.raises(CheckpointError, match=f"bad.importance.*{message}"):
        ImportanceCheckpoint(model.checkpoint, file)


def test_damaged_files(model: ImportedModel, measured: Path) -> None:
    whole = measured.read_bytes()
    assert model.checkpoint is not None
    for content, message in (
        (b"", "the file is empty"),
        (whole[:5], "truncated"),
        (whole[:-4], "truncated: the tensors need"),
        (whole + b"\0\0\0\0", "corrupt: the tensors need"),
        (whole.replace(b"F32", b"I32", 1), "found I32 of shape"),
        (b"GGUF" + whole[4:], "tiny.importance"),
    ):
        measured.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            ImportanceCheckpoint(model.checkpoint, measured)
    measured.unlink()
    with pytest.raises(CheckpointError, match="tiny.importance: cannot be read: No such file"):
        ImportanceCheckpoint(model.checkpoint, measured)


def test_a_file_that_leaves_matrices_out(model: ImportedModel, measured: Path, tmp_path: Path) -> None:
    """Such as that of a model of fewer layers: the others would be quantised as if there were no file."""
    from safetensors.numpy import load_file

    file = tmp_path / "shallow.importance"
    file.write_bytes(importance_file({n: v for n, v in load_file(measured).items() if ".layers.1." not in n}, {}))
    message = "shallow.importance: has no vector for 'model.layers.1.mlp.down_proj.weight', one of 7 matrices of tiny"
    with pytest.raises(CheckpointError, match=message):
        with_importance(model, file)


def test_a_file_without_the_head(model: ImportedModel, measured: Path, tmp_path: Path, tool_here: Any) -> None:
    """It is enough for the layers."""
    from safetensors.numpy import load_file

    file = tmp_path / "headless.importance"
    vectors = load_file(measured)
    del vectors["model.embed_tokens.weight"]
    file.write_bytes(importance_file(vectors, {}))
    with_importance(model, file)
    message = "headless.importance: has no vector for 'model.embed_tokens.weight', one of 1 matrices of"
    with pytest.raises(CheckpointError, match=message):
        with_importance(model, file, head=True)
    assert model.checkpoint is not None
    args = ("import", model.checkpoint.path, "--weights", "int4:g16", "--importance", file)
    for head, status in (("none", 0), ("fp8", 0), ("int8", 2)):
        run = tool_here("amk", *args, *(("--head", head) if head != "none" else ()), "-o", tmp_path / f"{head}.mlir")
        assert run.returncode == status, run.stderr
    assert message in run.stderr


def test_a_file_of_a_tied_model(model: ImportedModel, measured: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Its vector for the embedding is of what the head multiplies; where there is another head, nothing multiplies it."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "untied"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"] + 1}, folder / "model.safetensors")
    untied = import_model(folder)
    message = (
        "tiny.importance: has a vector for 'model.embed_tokens.weight', which untied only looks up, as it has a head of its "
        "own: was it calibrated with a model whose embedding is also its head"
    )
    with pytest.raises(CheckpointError, match=message):
        with_importance(untied, measured)
    own = tmp_path / "untied.importance"
    own.write_bytes(importance_file(measure_importance(untied, WINDOWS), {}))
    informed = with_importance(untied, own).checkpoint
    assert informed is not None and informed.importance("lm_head.weight") is not None
    with pytest.raises(CheckpointError, match=r"lm_head.weight.*has no matrix of this name"):
        with_importance(model, own)


def test_a_shape_has_none(tiny_model: Path, measured: Path) -> None:
    with pytest.raises(UsageError, match="has no checkpoint"):
        with_importance(import_config(tiny_model), measured)
    with pytest.raises(UsageError, match="has no checkpoint"):
        measure_importance(import_config(tiny_model), WINDOWS)


def test_from_the_command_line(tool, tool_here, tiny_model: Path, tmp_path: Path) -> None:
    file, text, out = tmp_path / "tiny.importance", tmp_path / "text.txt", tmp_path / "result.json"
    text.write_text("He has refused his Assent to Laws, the most wholesome and necessary for the public good. " * 2)
    run = tool("amk", "calibrate", tiny_model, "--text", text, "--limit", "100", "-o", file)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"{file}: 15 matrices, 100 tokens of text.txt in 2 windows\n"
    formats = ("--format", "int4:g16", "--text", text, "--json", out)
    records: list[dict[str, Any]] = []
    for run_it, options in ((tool, ()), (tool_here, ("--importance", file))):
        run = run_it("amk", "eval", tiny_model, *formats, *options)
        assert (run.returncode, run.stderr) == (0, "")
        records.append(json.loads(out.read_text()))
    assert [record["importance"] for record in records] == [
        None,
        {"name": "tiny.importance", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
    ]
    (plain, int4), (again, informed) = (record["results"] for record in records)
    assert plain["perplexity"] == again["perplexity"]
    assert int4["kl_mean"] != informed["kl_mean"]
    run = tool_here(
        "amk", "generate", tiny_model, "--prompt", "a", "--max-tokens", "2", "--weights", "int4", "--importance", file
    )
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "MODEL", "--importance", "FILE"), "--importance goes with an int8 or int4 format"),
        (("import", "MODEL", "--importance", "FILE", "--weights", "fp8"), "--importance goes with an int8 or int4"),
        (("eval", "MODEL", "--importance", "FILE"), "--importance goes with an int8 or int4 format"),
        (("eval", "MODEL", "--importance", "FILE", "--format", "int8"), "FILE: cannot be read: No such file"),
        (("import", "MODEL", "--importance", "FILE", "--weights", "int8"), "FILE: cannot be read: No such file"),
        (("bench", "llama-3.2-1b", "--weights", "int8", "--importance", "FILE"), "--importance goes with a checkpoint"),
        (("calibrate", "MODEL", "-o", "FILE", "--text", "TEXT"), "--text TEXT: cannot be read: No such file"),
        (("calibrate", "MODEL", "-o", "FILE", "--limit", "1"), "the text has 1 tokens: expected 2 or more"),
        (("calibrate", "MODEL", "-o", "FILE", "--context", "1"), "context: expected 2 or more, found 1"),
        (("calibrate", "MODEL", "-o", "FILE", "--context", "1000"), "1000"),
        (("calibrate", "MODEL"), "-o/--output"),
        (("calibrate", "MODEL", "-o", "none/FILE"), "--output none/FILE: there is no folder none"),
        (("eval", "MODEL", "--json", "none/FILE"), "--json none/FILE: there is no folder none"),
        (("calibrate", "MODEL", "-o", "MODEL"), "is a folder; expected the name of a file"),
        (("eval", "MODEL", "--json", "MODEL"), "is a folder; expected the name of a file"),
        (
            ("eval", "MODEL", "--format", "int4:g64"),
            "int4:g64: model.layers.0.mlp.down_proj.weight: groups of 64 values do not",
        ),
    ],
)
def test_mistakes_are_named(tool_here, tiny_model: Path, arguments: tuple[str, ...], message: str) -> None:
    run = tool_here("amk", *(str(tiny_model) if part == "MODEL" else part for part in arguments))
    assert run.returncode == 2
    assert message in run.stderr and run.stderr.splitlines()[-1].startswith("amk")


def test_a_format_that_fits_no_matrix_is_refused_before_the_others_are_evaluated(tool_here, tiny_model: Path) -> None:
    run = tool_here("amk", "eval", tiny_model, "--format", "bf16,int4:g64")
    assert run.returncode == 2
    assert "int4:g64: model.layers.0.mlp.down_proj.weight: groups of 64 values do not" in run.stderr
    assert "f32 reference" not in run.stdout


def test_the_texts_differ() -> None:
    """What calibrates is not what accuracy is measured on."""
    from amk.tools.commands.eval_ import DEFAULT_TEXT as EVALUATED

    assert DEFAULT_TEXT.read_text(encoding="utf-8") != EVALUATED.read_text(encoding="utf-8")
