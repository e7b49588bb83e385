"""What is measured: a model as `amk generate` takes it, or a shape by name with random weights."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from ...amk_ir.attrs import CheckpointAttr
from ...amk_ir.dtypes import FloatType
from ...amk_ir.errors import UsageError
from ...amk_ir.quantization import QuantizedFormat
from ...amk_ir.quantized_type import QuantizedType
from ...amk_ir.weight_choice import NONE
from ...dialects.graph import WeightOp
from ...frontends.import_model import ImportedModel, import_config
from ...frontends.registry import find_recipe
from ...runtime.backend import Weights
from ...runtime.footprint import model_of
from ...runtime.weight_formats import WeightFormat, parse_weight_format
from ..commands.options import import_named, quantize_shape, uses_importance
from .random_weights import RandomWeights, weight_shapes
from .shapes import SHAPES

_LEAST_MAX_SEQ = 1024
_SPARE = 64
"""Positions after the last context."""


@dataclass(frozen=True)
class BenchModel:
    """A model and where its weights are. name: as the user wrote it. is_random: it is a shape, its weights are random."""

    name: str
    model: ImportedModel
    weights: Weights
    is_random: bool

    @property
    def weights_text(self) -> str:
        """The dtype of its matrices, or their quantised formats."""
        choice = self.model.quantization
        if choice.is_nothing:
            return self.model.weight_dtype
        parts = (("", choice.weights), ("head ", choice.head), ("embedding ", choice.embedding))
        return ", ".join(f"{what}{text}" for what, text in parts if text != NONE)

    def quantized_types(self) -> dict[str, QuantizedType]:
        """The types of the matrices that are quantised, by their name in the checkpoint."""
        return _quantized_types(self.model)


def _quantized_types(model: ImportedModel) -> dict[str, QuantizedType]:
    types: dict[str, QuantizedType] = {}
    for op in model_of(model.module).body.block.ops:
        if isinstance(op, WeightOp) and isinstance(op.source, CheckpointAttr):
            element = op.type.get_element_type()
            if isinstance(element, QuantizedType):
                layers = range(op.layers.value.data) if op.layers is not None else (0,)
                types |= {op.source.data.replace("{layer}", str(layer)): element for layer in layers}
    return types


def _dtype(args: argparse.Namespace, option: str) -> FloatType:
    """bf16 unless something else is asked for; quantised formats, too, are of bf16 models."""
    return "f32" if getattr(args, option, "bf16") == "f32" else "bf16"


def open_models(args: argparse.Namespace, names: Sequence[str], contexts: Sequence[int]) -> list[BenchModel]:
    """Each of the models or shapes `names` in each format that --weights lists, with commas in between, with each that --head
    lists; as `open_model`.

    Of several formats, --keep and --importance are for those that they mean something to.
    """
    listed = {option: _listed(args, option) for option in ("weights", "head") if option in args}
    combined = [dict(zip(listed, texts, strict=True)) for texts in product(*listed.values())]
    return [
        open_model(argparse.Namespace(**_arguments_for(args, texts, combined)), name, contexts)
        for name in names
        for texts in combined
    ]


def _listed(args: argparse.Namespace, option: str) -> list[str]:
    """The formats that an option lists, which must differ."""
    given: str = getattr(args, option)
    texts = given.split(",")
    if "" in texts or len({_format(text) for text in texts}) < len(texts):
        example = "bf16,int8" if option == "weights" else f"{NONE},int8"
        raise UsageError(f"--{option} {given}: expected different formats with commas in between, such as {example}")
    return texts


def _format(text: str) -> WeightFormat | str:
    """The format that `text` names, however it is written; `text` if there is none: `open_model` will say so."""
    try:
        return parse_weight_format(text)
    except UsageError:
        return text


def _arguments_for(
    args: argparse.Namespace, texts: Mapping[str, str], combined: Sequence[Mapping[str, str]]
) -> dict[str, object]:
    """The arguments with the formats `texts`, without those that only others of the formats `combined` take."""
    embedding: str = getattr(args, "embedding", NONE)

    def keeps(texts: Mapping[str, str]) -> bool:
        return any(isinstance(_format(text), QuantizedFormat) for text in (embedding, *texts.values()))

    def uses(texts: Mapping[str, str]) -> bool:
        return any(map(uses_importance, (embedding, *texts.values())))

    left: dict[str, object] = {**vars(args), **texts}
    for option, takes in (("keep", keeps), ("importance", uses)):
        if not takes(texts) and any(map(takes, combined)):
            left.pop(option, None)
    return left


def open_model(args: argparse.Namespace, name: str, contexts: Sequence[int]) -> BenchModel:
    """The model or shape `name`, imported as the arguments of `add_import_options` say, with room for `contexts`.

    Raises:
        UsageError: a context that the model or --max-seq leaves no room for.
        ConfigError, CheckpointError: as `import_model`.
    """
    given: int | None = getattr(args, "max_seq", None)
    wanted = max(*contexts, _LEAST_MAX_SEQ) + _SPARE
    if name in SHAPES:
        shape = SHAPES[name]
        wanted = min(wanted, shape["max_position_embeddings"])
        model = import_config(
            shape, name=name, max_seq=given or wanted, weight_dtype=_dtype(args, "weights"), kv_dtype=_dtype(args, "kv")
        )
        model = quantize_shape(args, model)
        recipe = find_recipe(shape["architectures"][0], name)
        weights = RandomWeights(weight_shapes(recipe, model.config), _quantized_types(model))
        result = BenchModel(name, model, weights, is_random=True)
    else:
        positions = import_named(argparse.Namespace(**{**vars(args), "model": name}), "bf16").config.max_position
        again = {**vars(args), "model": name, "max_seq": given or min(wanted, positions)}
        model = import_named(argparse.Namespace(**again), "bf16")
        assert model.checkpoint is not None, "import_model finds one or raises"
        result = BenchModel(name, model, model.checkpoint, is_random=False)
    for context in contexts:
        if context >= model.max_seq:
            raise UsageError(
                f"--context {context}: {name} serves {model.max_seq} positions, so a context of at most "
                f"{model.max_seq - 1}" + ("; raise --max-seq" if given else "")
            )
    return result
