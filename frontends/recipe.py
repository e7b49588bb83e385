"""What a model family has to declare to be importable: its settings, its weights, and its graph.

A family is one `Recipe` in a module of its own (see `llama.py`), named in `registry.py`. The rest of the importer is
shared: it reads the settings through a `ConfigReader`, compares the declared weights with the checkpoint, and builds
the module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

from xdsl.dialects.builtin import ModuleOp

from ..amk_ir.attrs import RopeFrequencies
from ..amk_ir.dtypes import FloatType
from .config_accounting import ConfigReader


@dataclass(frozen=True)
class DecoderConfig:
    """The settings that the mathematics of a decoder depends on, all checked."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_position: int
    norm_eps: float
    rope: RopeFrequencies
    tied: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    untied: bool = field(init=False)
    """`not tied`, so that a weight can be declared to exist only then."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "untied", not self.tied)


Dimension = str | tuple[str, ...]
"""A field of `DecoderConfig`, or several that the checkpoint stores merged into one dimension."""


@dataclass(frozen=True)
class Weight:
    """One weight, or one for each layer.

    symbol: its name in the graph. name: its Hugging Face name, with `{layer}` if there is one for each layer.
    dims: its shape, outermost first. gguf: its name in a GGUF file. when: the field of `DecoderConfig` that must be true
    for it to exist. gguf_rotary: the field with its number of heads, if GGUF files store its rows as rotation pairs.
    """

    symbol: str
    name: str
    dims: tuple[Dimension, ...]
    gguf: str
    when: str | None = None
    gguf_rotary: str | None = None

    @property
    def per_layer(self) -> bool:
        """Whether there is one for each layer."""
        return "{layer}" in self.name

    def exists(self, config: DecoderConfig) -> bool:
        """Whether a model with this configuration has it."""
        return self.when is None or bool(getattr(config, self.when))

    def stored_shape(self, config: DecoderConfig) -> tuple[int, ...]:
        """Its shape in the checkpoint."""
        return tuple(prod(_extents(d, config)) for d in self.dims)

    def graph_shape(self, config: DecoderConfig) -> tuple[int, ...]:
        """Its shape in the graph, merged dimensions apart; the elements are in the same order."""
        return tuple(extent for d in self.dims for extent in _extents(d, config))


def _extents(dimension: Dimension, config: DecoderConfig) -> tuple[int, ...]:
    names = (dimension,) if isinstance(dimension, str) else dimension
    return tuple(getattr(config, name) for name in names)


@dataclass(frozen=True)
class ImportOptions:
    """How the importer is to build the graph.

    max_seq: positions of the KV cache. weight_dtype: element type of the matrices (norm weights, biases and rotary
    frequencies stay f32). kv_dtype: element type of the caches. rope_tensor: the checkpoint entry with the rotary
    frequencies, where they are not computed from the configuration. tokens: of a step.
    """

    name: str
    max_seq: int
    weight_dtype: FloatType
    kv_dtype: FloatType
    rope_tensor: str | None = None
    tokens: int = 1


@dataclass(frozen=True)
class Recipe:
    """A model family.

    architectures, model_types: the values of these keys of config.json it handles. gguf_architecture: the value of
    `general.architecture` in a GGUF file. read_config: reads all settings (the importer then refuses what it left over).
    weights: every tensor of a checkpoint. build: makes the module. harmless_tensors: patterns of tensors that may be
    present and are not used, with the reason.
    """

    name: str
    architectures: tuple[str, ...]
    model_types: tuple[str, ...]
    gguf_architecture: str | None
    read_config: Callable[[ConfigReader], DecoderConfig]
    weights: tuple[Weight, ...]
    build: Callable[[DecoderConfig, ImportOptions], ModuleOp]
    harmless_tensors: Mapping[str, str] = field(default_factory=dict[str, str])
