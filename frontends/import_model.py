"""The importer: a model directory or GGUF file becomes a module with one `graph.model`, and the checkpoint it names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from xdsl.dialects.builtin import ModuleOp

from ..amk_ir.attrs import MAX_ELEMENTS, MAX_LAYERS
from ..amk_ir.dtypes import FloatType
from ..amk_ir.errors import CheckpointError, ConfigError, UsageError
from ..amk_ir.weight_choice import WeightChoice
from .checkpoint import Checkpoint
from .config_accounting import ConfigReader
from .json_file import read_json_object
from .locate import locate_model
from .quantized.registry import read_layout
from .recipe import DecoderConfig, ImportOptions, Recipe
from .registry import find_gguf_recipe, find_recipe
from .tensor_accounting import check_tensors, layer_matrices

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

DEFAULT_MAX_SEQ = 2048
"""Positions of the KV cache if nobody says otherwise and the model has as many."""


@dataclass(frozen=True)
class ImportedModel:
    """A model at the graph level.

    module: holds one `graph.model`, verified. checkpoint: where its weights are, by the names in the module; None after
    `import_config`. config: the checked settings. raw_config: all of them as transformers would write them. path: the
    directory or file it came from, None for a dictionary.
    tokens: of a step. with_tokens: makes the same model with another number of them. quantization: how matrices that are
    not of `weight_dtype` were chosen.
    """

    name: str
    module: ModuleOp
    checkpoint: Checkpoint | None
    config: DecoderConfig
    raw_config: Mapping[str, Any]
    path: Path | None
    max_seq: int
    weight_dtype: FloatType
    kv_dtype: FloatType
    tokens: int
    with_tokens: Callable[[int], ImportedModel] = field(repr=False, compare=False)
    quantization: WeightChoice = WeightChoice()

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer of the model.

        Raises:
            TokenizerError: there is none, or it cannot be used.
        """
        from .tokenizer import load_tokenizer

        if self.path is None:
            raise UsageError(f"{self.name}: imported from a configuration alone, which has no tokenizer")
        return load_tokenizer(self.path)


def import_model(
    model: str | os.PathLike[str],
    *,
    max_seq: int | None = None,
    weight_dtype: FloatType = "f32",
    kv_dtype: FloatType = "f32",
    tokens: int = 1,
) -> ImportedModel:
    """Imports a model by directory, GGUF file, bundled name or hub id (see `locate_model`).

    max_seq: positions to serve, at most what the model was made for; by default that, up to `DEFAULT_MAX_SEQ`.
    weight_dtype: element type of the matrices; norm weights and biases stay float32. tokens: of a step. No weight is
    read yet.

    Raises:
        CheckpointError: files or tensors that are missing, damaged, or not what the configuration says.
        ConfigError: a model that AMK does not support, or a contradiction in its configuration.
        UsageError: a wrong argument.
    """
    path = locate_model(model)
    source = _open_directory(path) if path.is_dir() else _open_gguf(path)
    return _build(source, max_seq, weight_dtype, kv_dtype, tokens)


def import_config(
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    name: str = "model",
    max_seq: int | None = None,
    weight_dtype: FloatType = "f32",
    kv_dtype: FloatType = "f32",
    tokens: int = 1,
) -> ImportedModel:
    """Imports the shape of a model from its configuration alone: a dictionary, a config.json, or a directory with one.

    Raises:
        ConfigError, UsageError: as `import_model`.
    """
    if isinstance(config, Mapping):
        raw, path, source = dict(config), None, "configuration"
    else:
        file = Path(config).expanduser()
        file = file / "config.json" if file.is_dir() else file
        raw, path, source = read_json_object(file, ConfigError), file.parent, str(file)
    recipe = _directory_recipe(raw, source)
    decoder = _read_config(recipe, ConfigReader(raw, source))
    read_layout(raw, source)  # to refuse what cannot be read later
    return _build(_Source(name, path, recipe, decoder, raw, None), max_seq, weight_dtype, kv_dtype, tokens)


@dataclass(frozen=True)
class _Source:
    """A model that was found, read and checked, before its graph is built."""

    name: str
    path: Path | None
    recipe: Recipe
    config: DecoderConfig
    raw_config: Mapping[str, Any]
    checkpoint: Checkpoint | None
    rope_tensor: str | None = None


def _open_directory(path: Path) -> _Source:
    from .quantized.checkpoint import QuantizedCheckpoint
    from .safetensors_checkpoint import INDEX_FILE, SINGLE_FILE, SafetensorsCheckpoint

    file = path / "config.json"
    raw = read_json_object(file, ConfigError)
    recipe = _directory_recipe(raw, str(file))
    config = _read_config(recipe, ConfigReader(raw, str(file)))
    layout = read_layout(raw, str(file))
    try:
        checkpoint = SafetensorsCheckpoint(path)
        if layout is not None:
            checkpoint = QuantizedCheckpoint(checkpoint, layout)
        check_tensors(checkpoint, recipe, config)
        if isinstance(checkpoint, QuantizedCheckpoint):
            checkpoint.check_coverage(layer_matrices(recipe, config))
    except CheckpointError as e:
        if (path / SINGLE_FILE).is_file() and (path / INDEX_FILE).is_file():
            raise CheckpointError(
                f"{e}; {SINGLE_FILE} was read, and not {INDEX_FILE} next to it: remove the one that is stale"
            ) from e
        raise
    return _Source(path.resolve().name, path, recipe, config, raw, checkpoint)


def _open_gguf(path: Path) -> _Source:
    from .gguf_checkpoint import INV_FREQ, GgufCheckpoint
    from .gguf_config import gguf_architecture, gguf_layout, read_gguf_config, stored_keys
    from .gguf_file import GgufFile

    file = GgufFile(path)
    architecture = gguf_architecture(file)
    recipe = find_gguf_recipe(architecture, str(path))
    raw = read_gguf_config(file, recipe)
    config = _read_config(recipe, ConfigReader(raw, str(path), stored_keys(architecture)))
    checkpoint = GgufCheckpoint(file, gguf_layout(recipe, config), config.rope)
    rope_tensor = INV_FREQ if INV_FREQ in checkpoint.tensors else None
    check_tensors(checkpoint, recipe, config, {rope_tensor: (config.head_dim // 2,)} if rope_tensor else None)
    return _Source(path.stem, path, recipe, config, raw, checkpoint, rope_tensor)


def _directory_recipe(config: Mapping[str, Any], source: str) -> Recipe:
    match config.get("architectures"):
        case [str(architecture)]:
            recipe = find_recipe(architecture, source)
        case other:
            raise ConfigError(f"{source}: 'architectures': expected a list of one name, found {other!r}")
    model_type = config.get("model_type")
    if model_type is not None and model_type not in recipe.model_types:
        known = " or ".join(recipe.model_types)
        raise ConfigError(f"{source}: 'model_type': expected {known} with {architecture}, found {model_type!r}")
    return recipe


def _read_config(recipe: Recipe, reader: ConfigReader) -> DecoderConfig:
    result = recipe.read_config(reader)
    reader.finish()
    if result.layers > MAX_LAYERS:
        reader.fail(f"expected at most {MAX_LAYERS}, found {result.layers}", "num_hidden_layers")
    for weight in recipe.weights:
        elements = prod(weight.stored_shape(result)) * (result.layers if weight.per_layer else 1)
        if weight.exists(result) and elements > MAX_ELEMENTS:
            raise ConfigError(f"{reader.source}: {weight.name} would have {elements} elements, more than any model has")
    return result


def _build(
    source: _Source, max_seq: int | None, weight_dtype: FloatType, kv_dtype: FloatType, tokens: int
) -> ImportedModel:
    for what, value in (("weight_dtype", weight_dtype), ("kv_dtype", kv_dtype)):
        if value not in get_args(FloatType):
            raise UsageError(f"{what}: expected {' or '.join(get_args(FloatType))}, found {value!r}")
    config = source.config
    if max_seq is None:
        max_seq = min(config.max_position, DEFAULT_MAX_SEQ)
    if not 1 <= max_seq <= config.max_position:
        raise UsageError(f"max_seq: expected 1 to {config.max_position}, the model's maximum position, found {max_seq}")
    if max_seq * config.kv_heads * config.head_dim * config.layers > MAX_ELEMENTS:
        raise UsageError(f"max_seq: a cache of {max_seq} positions would have more than {MAX_ELEMENTS} elements")
    if not 1 <= tokens <= max_seq:
        raise UsageError(f"tokens: a step takes 1 to max_seq = {max_seq} tokens, found {tokens}")
    symbol = re.sub(r"\W+", "_", source.name.lower()).strip("_")
    symbol = symbol if symbol[:1].isalpha() else f"model_{symbol}".rstrip("_")
    options = ImportOptions(symbol, max_seq, weight_dtype, kv_dtype, source.rope_tensor, tokens)
    module = source.recipe.build(config, options)
    module.verify()
    return ImportedModel(
        symbol,
        module,
        source.checkpoint,
        config,
        source.raw_config,
        source.path,
        max_seq,
        weight_dtype,
        kv_dtype,
        tokens,
        lambda tokens: _build(source, max_seq, weight_dtype, kv_dtype, tokens),
    )
