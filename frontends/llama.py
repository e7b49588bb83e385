"""The Llama family: Llama 2 and 3.x, SmolLM2, TinyLlama and all other checkpoints of `LlamaForCausalLM`.

The mathematics is that of `transformers.models.llama.modeling_llama`.
"""

from __future__ import annotations

from xdsl.builder import ImplicitBuilder
from xdsl.dialects.builtin import BFloat16Type, Float32Type, IndexType, ModuleOp, TensorType, bf16, f32, i32
from xdsl.ir import Block, Region

from ..amk_ir.attrs import CheckpointAttr, RopeFrequenciesAttr
from ..dialects.graph import (
    AddOp,
    ArgmaxOp,
    AttentionOp,
    CacheAppendOp,
    CacheOp,
    EmbeddingOp,
    LayersOp,
    LinearOp,
    ModelOp,
    ReturnOp,
    RmsNormOp,
    RopeOp,
    SiluMulOp,
    StepOp,
    WeightOp,
    YieldOp,
)
from .config_accounting import HARMLESS_KEYS, REQUIRED_VALUES, ConfigReader
from .recipe import DecoderConfig, ImportOptions, Recipe, Weight
from .rope_config import read_rope

_MUST_BE = {
    **REQUIRED_VALUES,
    "hidden_act": ("silu",),
    "pretraining_tp": (1, None),
    "rope_interleaved": (False, None),
    "sliding_window": (None,),
    "use_sliding_window": (False, None),
}
"""Settings that are supported with these values only, and have the first of them when absent."""


def read_config(config: ConfigReader) -> DecoderConfig:
    """The settings of a Llama model; absent ones are as in `transformers.LlamaConfig`."""
    for key, values in _MUST_BE.items():
        config.require(key, values, values[0])
    layers = config.integer("num_hidden_layers")
    kinds = config.take("layer_types")
    if kinds is not None and (
        not isinstance(kinds, list) or len(kinds) != layers or any(k != "full_attention" for k in kinds)
    ):
        config.fail(f'only {layers} times "full_attention" is supported, found {kinds}', "layer_types")
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        config.fail(f"expected a divisor of num_attention_heads = {heads}, found {kv_heads}", "num_key_value_heads")
    if config.take("head_dim") is None and hidden % heads:
        config.fail(f"{heads} does not divide hidden_size = {hidden}, and there is no head_dim", "num_attention_heads")
    head_dim = config.integer("head_dim", hidden // heads or None)
    if head_dim % 2 or head_dim > 256:
        config.fail(f"expected an even number up to 256, found {head_dim}", "head_dim")
    max_position = config.integer("max_position_embeddings", 2048)
    result = DecoderConfig(
        vocab=config.integer("vocab_size"),
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        max_position=max_position,
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rope=read_rope(config, head_dim, max_position),
        tied=config.boolean("tie_word_embeddings", False),
        attention_bias=config.boolean("attention_bias", False),
        mlp_bias=config.boolean("mlp_bias", False),
    )
    config.ignore(HARMLESS_KEYS.keys())
    return result


_LAYER, _BLK = "model.layers.{layer}.", "blk.{layer}."
_Q, _KV = ("heads", "head_dim"), ("kv_heads", "head_dim")

# fmt: off
WEIGHTS = (
    Weight("embed", "model.embed_tokens.weight", ("vocab", "hidden"), "token_embd.weight"),
    Weight("attn_norm", _LAYER + "input_layernorm.weight", ("hidden",), _BLK + "attn_norm.weight"),
    Weight("q_proj", _LAYER + "self_attn.q_proj.weight", (_Q, "hidden"), _BLK + "attn_q.weight", gguf_rotary="heads"),
    Weight("k_proj", _LAYER + "self_attn.k_proj.weight", (_KV, "hidden"), _BLK + "attn_k.weight", gguf_rotary="kv_heads"),
    Weight("v_proj", _LAYER + "self_attn.v_proj.weight", (_KV, "hidden"), _BLK + "attn_v.weight"),
    Weight("o_proj", _LAYER + "self_attn.o_proj.weight", ("hidden", _Q), _BLK + "attn_output.weight"),
    Weight("q_bias", _LAYER + "self_attn.q_proj.bias", (_Q,), _BLK + "attn_q.bias", "attention_bias", "heads"),
    Weight("k_bias", _LAYER + "self_attn.k_proj.bias", (_KV,), _BLK + "attn_k.bias", "attention_bias", "kv_heads"),
    Weight("v_bias", _LAYER + "self_attn.v_proj.bias", (_KV,), _BLK + "attn_v.bias", "attention_bias"),
    Weight("o_bias", _LAYER + "self_attn.o_proj.bias", ("hidden",), _BLK + "attn_output.bias", "attention_bias"),
    Weight("mlp_norm", _LAYER + "post_attention_layernorm.weight", ("hidden",), _BLK + "ffn_norm.weight"),
    Weight("gate_proj", _LAYER + "mlp.gate_proj.weight", ("intermediate", "hidden"), _BLK + "ffn_gate.weight"),
    Weight("up_proj", _LAYER + "mlp.up_proj.weight", ("intermediate", "hidden"), _BLK + "ffn_up.weight"),
    Weight("down_proj", _LAYER + "mlp.down_proj.weight", ("hidden", "intermediate"), _BLK + "ffn_down.weight"),
    Weight("gate_bias", _LAYER + "mlp.gate_proj.bias", ("intermediate",), _BLK + "ffn_gate.bias", "mlp_bias"),
    Weight("up_bias", _LAYER + "mlp.up_proj.bias", ("intermediate",), _BLK + "ffn_up.bias", "mlp_bias"),
    Weight("down_bias", _LAYER + "mlp.down_proj.bias", ("hidden",), _BLK + "ffn_down.bias", "mlp_bias"),
    Weight("norm", "model.norm.weight", ("hidden",), "output_norm.weight"),
    Weight("head", "lm_head.weight", ("vocab", "hidden"), "output.weight", "untied"),
)
# fmt: on


def build(config: DecoderConfig, options: ImportOptions) -> ModuleOp:
    """The module with the one `graph.model` of `config`; a step is `options.tokens` tokens."""
    element: dict[str, Float32Type | BFloat16Type] = {"f32": f32, "bf16": bf16}

    def activation(*dims: int) -> TensorType[Float32Type]:
        return TensorType(f32, (options.tokens, *dims))

    q_type = activation(config.heads, config.head_dim)
    kv_type = activation(config.kv_heads, config.head_dim)
    hidden, wide = activation(config.hidden), activation(config.intermediate)
    cache_type = TensorType(element[options.kv_dtype], (options.max_seq, config.kv_heads, config.head_dim))

    def attention_bias(name: str) -> str | None:
        return name if config.attention_bias else None

    def mlp_bias(name: str) -> str | None:
        return name if config.mlp_bias else None

    model = Block()
    with ImplicitBuilder(model):
        for weight in WEIGHTS:
            if weight.exists(config):
                shape = weight.graph_shape(config)
                # Vectors are a thousandth of the bytes and enter the sums in f32: rounding them would buy nothing.
                kind = element[options.weight_dtype] if len(weight.dims) > 1 else f32
                layers = config.layers if weight.per_layer else None
                WeightOp(weight.symbol, CheckpointAttr(weight.name), TensorType(kind, shape), layers)
        source = CheckpointAttr(options.rope_tensor) if options.rope_tensor else RopeFrequenciesAttr(config.rope)
        WeightOp("inv_freq", source, TensorType(f32, (config.head_dim // 2,)))
        CacheOp("k_cache", cache_type, config.layers)
        CacheOp("v_cache", cache_type, config.layers)

    layer = Block(arg_types=[hidden])
    step = Block(arg_types=[TensorType(i32, (options.tokens,)), IndexType()])
    token, pos = step.args

    with ImplicitBuilder(layer):
        (h,) = layer.args
        n = RmsNormOp(h, "attn_norm", config.norm_eps).result
        q = LinearOp(n, "q_proj", q_type, attention_bias("q_bias")).result
        k = LinearOp(n, "k_proj", kv_type, attention_bias("k_bias")).result
        v = LinearOp(n, "v_proj", kv_type, attention_bias("v_bias")).result
        q_rotated = RopeOp(q, "inv_freq", pos).result
        k_rotated = RopeOp(k, "inv_freq", pos).result
        keys = CacheAppendOp(k_rotated, "k_cache", pos, cache_type).result
        values = CacheAppendOp(v, "v_cache", pos, cache_type).result
        mixed = AttentionOp(q_rotated, keys, values, pos, config.head_dim**-0.5).result
        attended = AddOp(h, LinearOp(mixed, "o_proj", hidden, attention_bias("o_bias")).result).result
        m = RmsNormOp(attended, "mlp_norm", config.norm_eps).result
        gate = LinearOp(m, "gate_proj", wide, mlp_bias("gate_bias")).result
        up = LinearOp(m, "up_proj", wide, mlp_bias("up_bias")).result
        down = LinearOp(SiluMulOp(gate, up).result, "down_proj", hidden, mlp_bias("down_bias")).result
        out = AddOp(attended, down).result
        YieldOp([out])

    with ImplicitBuilder(step):
        embedded = EmbeddingOp(token, "embed", hidden).result
        (x,) = LayersOp(config.layers, [embedded], Region(layer)).outs
        normed = RmsNormOp(x, "norm", config.norm_eps).result
        logits = LinearOp(normed, "embed" if config.tied else "head", activation(config.vocab)).result
        next_token = ArgmaxOp(logits).result
        ReturnOp(logits, next_token)

    hints = {
        "token": token, "pos": pos, "x": embedded, "h": h, "n": n, "q": q, "k": k, "v": v, "qr": q_rotated,
        "kr": k_rotated, "keys": keys, "values": values, "mixed": mixed, "attended": attended, "m": m, "gate": gate,
        "up": up, "down": down, "out": out, "hidden": x, "normed": normed, "logits": logits, "next": next_token,
    }  # fmt: skip
    for hint, value in hints.items():
        value.name_hint = hint
    model.add_op(StepOp(Region(step)))
    return ModuleOp([ModelOp(options.name, options.max_seq, Region(model))])


LLAMA = Recipe(
    name="llama",
    architectures=("LlamaForCausalLM",),
    model_types=("llama",),
    gguf_architecture="llama",
    read_config=read_config,
    weights=WEIGHTS,
    build=build,
    harmless_tensors={
        r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq": "recomputed from the configuration",
    },
)
