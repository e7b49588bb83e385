"""Quantising imported models: as the user says, or as their checkpoints are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.attrs import CheckpointAttr
from ..amk_ir.errors import CheckpointError, UsageError
from ..amk_ir.quantization import QuantizedFormat
from ..amk_ir.weight_choice import NONE, STORED, WeightChoice
from ..dialects.graph import ModelOp, WeightOp
from ..frontends.checkpoint import Checkpoint
from ..frontends.import_model import ImportedModel
from ..frontends.importance import ImportanceCheckpoint
from ..passes.quantize_weights import QuantizeWeightsPass, matrices, quantize_model
from ..runtime.compile import new_context
from ..runtime.footprint import model_of
from ..runtime.weight_formats import Matrices

Note = Callable[[str], None]
"""Told in one line what was not done as it might be expected."""


def no_note(line: str) -> None:
    """The `Note` of those who do not want to know."""


def with_importance(model: ImportedModel, file: Path, *, head: bool = False) -> ImportedModel:
    """`model`, whose matrices are quantised by the importance of their inputs in `file` (see `frontends.importance`).

    head: whether the head is to be quantised, too.

    Raises:
        UsageError: a model without a checkpoint.
        CheckpointError: see `ImportanceCheckpoint`; or a matrix of the layers, or the head if that is to be quantised, has no
            vector, or a table that is only looked up has one: then the file is of another model.
    """
    if model.checkpoint is None:
        raise UsageError(f"{model.name}: has no checkpoint, so that no input of its matrices is of importance")
    checkpoint = ImportanceCheckpoint(model.checkpoint, file)
    op = model_of(model.module)
    weights = {w.sym_name.data: w.source for w in op.body.block.ops if isinstance(w, WeightOp)}
    names = set(Matrices.of(op).linear)
    for symbol, (kind, _) in matrices(op).items():
        source = weights[symbol]
        if not isinstance(source, CheckpointAttr):
            continue
        if kind == "head" and head:
            names.add(source.data)
        if kind == "embedding" and checkpoint.importance(source.data) is not None:
            raise CheckpointError(
                f"{file}: has a vector for '{source.data}', which {model.name} only looks up, as it has a head of its own: was "
                "it calibrated with a model whose embedding is also its head?"
            )
    if missing := [name for name in sorted(names) if checkpoint.importance(name) is None]:
        raise CheckpointError(
            f"{file}: has no vector for '{missing[0]}', one of {len(missing)} matrices of {model.name} that it leaves out: was "
            "it calibrated with another model?"
        )

    def with_checkpoint(model: ImportedModel) -> ImportedModel:
        def with_tokens(tokens: int) -> ImportedModel:
            return with_checkpoint(model.with_tokens(tokens))

        return replace(model, checkpoint=checkpoint, with_tokens=with_tokens)

    return with_checkpoint(model)


def is_stored_quantized(model: ImportedModel) -> bool:
    """Whether a matrix of the checkpoint is quantised."""
    checkpoint = model.checkpoint
    return checkpoint is not None and any(stored_format(checkpoint, name) for name in checkpoint.tensors)


def stored_format(checkpoint: Checkpoint, name: str) -> QuantizedFormat | None:
    """The format of the tensor `name` of a checkpoint, None if it is not quantised, or the checkpoint knows of none."""
    return cast("QuantizedFormat | None", getattr(checkpoint.info(name), "quantized", None))


def quantize_imported(model: ImportedModel, choice: WeightChoice, note: Note = no_note) -> ImportedModel:
    """`model` with the types of its matrices as `choice` says; its values are quantised when they are loaded.

    Raises UsageError: a format that does not exist, or does not fit a matrix, or a name to keep that no weight has.
    """
    choice.check()
    if choice.is_nothing:
        return model
    module = model.module.clone()
    try:
        if choice.weights == STORED:
            _quantize_as_stored(model_of(module), model, note)
        else:
            chosen = QuantizeWeightsPass(choice.weights, choice.head, choice.embedding, choice.keep)
            chosen.apply(new_context(), module)
    except PassFailedException as e:
        raise UsageError(f"{model.name}: {e}") from e
    module.verify()

    def with_tokens(tokens: int) -> ImportedModel:
        return quantize_imported(model.with_tokens(tokens), choice)

    return replace(model, module=module, quantization=choice, with_tokens=with_tokens)


def _quantize_as_stored(op: ModelOp, model: ImportedModel, note: Note) -> None:
    checkpoint = model.checkpoint
    if checkpoint is None:
        raise UsageError(f"{model.name}: has no checkpoint, so that no matrix is stored in any format")
    weights = {w.sym_name.data: w for w in op.body.block.ops if isinstance(w, WeightOp)}
    formats = {name: _one_format(checkpoint, weights[name], note) for name in matrices(op)}
    if formats.get("gate_proj") != formats.get("up_proj"):
        # one task multiplies rows of both
        note(f"@gate_proj and @up_proj are stored in different formats; both become {model.weight_dtype}")
        formats["gate_proj"] = formats["up_proj"] = None
    quantize_model(op, lambda weight, _: formats[weight.sym_name.data])


def _one_format(checkpoint: Checkpoint, weight: WeightOp, note: Note) -> QuantizedFormat | None:
    """The format that all layers of a weight have; None, with a note, if they differ."""
    source = weight.source
    if not isinstance(source, CheckpointAttr):
        return None
    layers = [None] if weight.layers is None else range(weight.layers.value.data)
    names = [source.data if layer is None else source.data.replace("{layer}", str(layer)) for layer in layers]
    formats = [stored_format(checkpoint, name) for name in names]
    kinds = dict.fromkeys(formats)
    if len(kinds) == 1:
        if formats[0] is None or not _is_reordered(checkpoint, names[0], formats[0]):
            return formats[0]
        element = weight.type.get_element_type()
        note(f"@{weight.sym_name.data} is stored with groups of reordered columns (act-order); it becomes {element}")
        return None
    text = ", ".join(NONE if kind is None else str(kind) for kind in kinds)
    note(f"@{weight.sym_name.data} is stored in several formats ({text}); it becomes {weight.type.get_element_type()}")
    return None


def _is_reordered(checkpoint: Checkpoint, name: str, format: QuantizedFormat) -> bool:
    """Whether the groups of a tensor are not of neighbouring columns, which no kernel multiplies."""
    if not format.group:
        return False
    tensor = checkpoint.quantized(name)
    return tensor is not None and tensor.permutation is not None
