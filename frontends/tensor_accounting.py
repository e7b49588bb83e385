"""Every tensor of a checkpoint is used, known to be harmless, or refused; every weight of the model is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

import numpy as np

from ..amk_ir.errors import CheckpointError
from .checkpoint import LOADABLE_TYPES, Checkpoint, TensorInfo
from .recipe import DecoderConfig, Recipe, Weight

_PACKED = ("qweight", "weight_packed")
"""Tensors that layouts of quantised matrices have in place of `weight`."""


def check_tensors(
    checkpoint: Checkpoint, recipe: Recipe, config: DecoderConfig, extra: dict[str, tuple[int, ...]] | None = None
) -> None:
    """Compares the checkpoint with what `config` says the model consists of; `extra` are more tensors it uses.

    Raises:
        CheckpointError: a missing or unexpected tensor, or one of the wrong shape or an unsupported type.
    """
    expected: set[str] = set()
    for name, shape in chain((extra or {}).items(), _expected(recipe, config)):
        _check_tensor(checkpoint, name, shape)
        expected.add(name)
    for name, info in checkpoint.tensors.items():
        if name not in expected and not any(re.fullmatch(p, name) for p in recipe.harmless_tensors):
            _check_unused(checkpoint, info, recipe, config)


def layer_matrices(recipe: Recipe, config: DecoderConfig) -> Iterator[str]:
    """The names of all matrices of the layers: those that tools quantise if nobody excludes them."""
    for weight in recipe.weights:
        if weight.exists(config) and weight.per_layer and len(weight.dims) == 2:
            yield from (weight.name.format(layer=layer) for layer in range(config.layers))


def _expected(recipe: Recipe, config: DecoderConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all weights. Lazily: the number of layers may be absurd."""
    for weight in recipe.weights:
        if weight.exists(config):
            shape = weight.stored_shape(config)
            for layer in range(config.layers) if weight.per_layer else (0,):
                yield weight.name.format(layer=layer), shape


def _check_tensor(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> None:
    info = checkpoint.tensors.get(name)
    if info is None:
        hint = ""
        if packed := [
            p for p in _PACKED if name.endswith(".weight") and name[: -len("weight")] + p in checkpoint.tensors
        ]:
            hint = f"; '{packed[0]}' is there: is 'quantization_config' missing in config.json?"
        raise CheckpointError(
            f"{checkpoint.path}: tensor '{name}' is missing, but the configuration calls for it{hint}"
        )
    if info.shape != shape:
        raise CheckpointError(f"{info}: expected shape {list(shape)} by the configuration, found {list(info.shape)}")
    if info.dtype not in LOADABLE_TYPES and info.quantized is None:
        raise CheckpointError(f"{info}: unsupported type {info.dtype}; supported types: {', '.join(LOADABLE_TYPES)}")


def _check_unused(checkpoint: Checkpoint, info: TensorInfo, recipe: Recipe, config: DecoderConfig) -> None:
    match = _declared(info.name, recipe)
    if match is None:
        raise CheckpointError(
            f"{info}: unexpected: {recipe.name} models have no such tensor, and it may change the result"
        )
    weight, layer = match
    if layer is not None and layer >= config.layers:
        raise CheckpointError(f"{info}: unexpected: the configuration says {config.layers} layers")
    if weight.when != "untied":
        if len(info.shape) == 1 and info.dtype in LOADABLE_TYPES and not checkpoint.load(info.name).any():
            return  # a bias that adds nothing: AutoGPTQ writes one for every module
        raise CheckpointError(f"{info}: unexpected: the configuration says {weight.when} = false")
    _check_tied_copy(checkpoint, info, recipe)


def _check_tied_copy(checkpoint: Checkpoint, info: TensorInfo, recipe: Recipe) -> None:
    """A tied model may store its head too, if it is the embedding once more."""
    embedding = checkpoint.info(next(w.name for w in recipe.weights if w.symbol == "embed"))
    same = info.shape == embedding.shape and np.array_equal(
        checkpoint.load(info.name), checkpoint.load(embedding.name), equal_nan=True
    )
    if not same:
        raise CheckpointError(
            f"{info}: differs from '{embedding.name}', but the configuration says tie_word_embeddings = true"
        )


def _declared(name: str, recipe: Recipe) -> tuple[Weight, int | None] | None:
    """The weight of the family that has this name, and the layer."""
    for weight in recipe.weights:
        if match := re.fullmatch(re.escape(weight.name).replace(r"\{layer\}", "([0-9]{1,9})"), name):
            return weight, int(match[1]) if weight.per_layer else None
    return None
