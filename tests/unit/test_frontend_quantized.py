"""Quantised model directories: what is refused, and by which name; what is left unquantised.

tests/oracle/test_quantized_checkpoints.py compares the values with those of the formats' own tools.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_tensors import Stored, Tensors, changed_copy, read_tensors, write_tensors
from tiny_models import make_plain_llama

from amk.amk_ir.errors import CheckpointError, ConfigError
from amk.frontends.import_model import import_config, import_model
from amk.frontends.quantized.registry import get_all_layouts, read_layout
from amk.frontends.quantized.settings import excluded_by

DATA = Path(__file__).parents[1] / "data" / "quantized"
Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


def settings(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes `quantization_config`."""
    return lambda config: config["quantization_config"].update(changes)


def weights(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes the weights of the one scheme of a compressed-tensors configuration."""
    return lambda config: config["quantization_config"]["config_groups"]["group_0"]["weights"].update(changes)


def scheme(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes that scheme."""
    return lambda config: config["quantization_config"]["config_groups"]["group_0"].update(changes)


def test_layouts_are_alphabetical():
    layouts = get_all_layouts()
    assert list(layouts) == sorted(layouts)
    assert all(isinstance(get().name, str) for get in layouts.values())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("awq", settings(quant_method="bitsandbytes"), "'quant_method': expected awq or compressed-tensors or fp8 or gptq, found 'bitsandbytes'"),
        ("awq", settings(quant_method=None), "'quant_method': expected awq .* found None"),
        ("awq", lambda c: c.update(quantization_config=[4]), r"'quantization_config': expected an object, found \[4\]"),
        ("awq", settings(bits=3), "'bits': only 4 is supported, found 3"),
        ("awq", settings(bits=True), "'bits': only 4 is supported, found true"),
        ("awq", settings(version="gemv"), "'version': only the layout 'gemm' is supported, found 'gemv'"),
        ("awq", settings(version=None), "'version': only the layout 'gemm' is supported, found None"),
        ("awq", settings(zero_point=1), "'zero_point': expected true or false, found 1"),
        ("awq", settings(sym=True), "'sym': found True, which contradicts 'zero_point'"),
        ("awq", settings(group_size=0), "'group_size': expected -1 .* found 0"),
        ("awq", settings(group_size="16"), "'group_size': expected -1 .* found '16'"),
        ("awq", settings(modules_to_not_convert="lm_head"), "'modules_to_not_convert': expected a list of module names"),
        ("awq", settings(smoothing=0.5), "'smoothing': unknown setting 0.5: it may change"),
        ("gptq_int4", settings(bits=3), "'bits': only 4 or 8 is supported, found 3"),
        ("gptq_int4", settings(format="marlin"), "'format': only \"gptq\" or \"gptq_v2\" is supported, found \"marlin\""),
        ("gptq_int4", settings(format="gptq_v2"), "'checkpoint_format': contradicts 'format'"),
        ("gptq_int4", settings(is_marlin_format=True), "'is_marlin_format'"),
        ("gptq_int4", settings(pack_dtype="int16"), "'pack_dtype': only \"int32\" is supported"),
        ("gptq_int4", settings(dynamic={"lm_head": {"bits": 8}}), "'dynamic'"),
        ("gptq_int4", settings(rotation="hadamard"), "'rotation'"),
        ("compressed_int4", settings(kv_cache_scheme={"num_bits": 8}), "'kv_cache_scheme'"),
        ("compressed_int4", settings(sparsity_config={"format": "sparse-24-bitmask"}), "'sparsity_config'"),
        ("compressed_int4", settings(transform_config={"R1": {}}), "'transform_config'"),
        ("compressed_int4", settings(quantization_status="calibration"), "'quantization_status'"),
        ("compressed_int4", settings(config_groups={"a": {}, "b": {}}), r"'config_groups': only one scheme .* found 2: \['a', 'b'\]"),
        ("compressed_int4", settings(ignore=["re:("]), "'ignore': 're:\\(' is not a regular expression"),
        ("compressed_int4", settings(config_groups=[]), r"'config_groups': expected an object of schemes, found \[\]"),
        ("compressed_int4", scheme(format="nvfp4-pack-quantized"), "'format': expected int-quantized or .* found 'nvfp4"),
        ("compressed_int4", scheme(targets=["re:.*"]), r"config_groups: 'group_0': 'targets': expected \[\"Linear\"\]"),
        ("compressed_int4", scheme(weights=None), "'weights': expected an object, found None"),
        ("compressed_int4", scheme(output_activations={}), "'output_activations'"),
        ("compressed_int4", scheme(format=0), "'format': expected int-quantized or float-quantized or .* found 0"),
        ("compressed_int4", settings(format="int-quantized"), "'format': found 'pack-quantized', but 'int-quantized' beside"),
        ("compressed_int4", weights(actorder="random"), "'actorder': only .* found \"random\""),
        ("compressed_int4", weights(dynamic=True), "'dynamic': only false is supported, found true"),
        ("gptq_int4", settings(desc_act="yes"), "'desc_act': expected true or false, found \"yes\""),
        ("compressed_int4", weights(num_bits=3), "'num_bits': only 4 or 8 is supported, found 3"),
        ("compressed_int4", weights(type="float"), "'type': expected int with the format 'pack-quantized', found float"),
        ("compressed_int4", weights(strategy="tensor_group"), "'strategy': only"),
        ("compressed_int4", weights(group_size=None), "'group_size': found 0 with the strategy 'group'"),
        ("compressed_int8", weights(num_bits=4), "'num_bits': only 8 is supported, found 4"),
        ("compressed_int8", weights(rounding="up"), "'rounding': unknown setting"),
        ("compressed_fp8", weights(symmetric=False), "'symmetric': float codes have no zero points"),
        ("compressed_fp8_block", weights(block_structure=None), "'block_structure': found None with the strategy 'block'"),
        ("compressed_fp8_block", weights(block_structure=[16]), "'block_structure': expected rows and columns of a block"),
        ("fp8_block", settings(fmt="e5m2"), "'fmt': only \"e4m3\""),
        ("fp8_block", settings(scale_fmt="ue8m0"), "'scale_fmt': only \"float\""),
        ("fp8_block", settings(weight_block_size=[128, 0]), "'weight_block_size': expected rows and columns of a block"),
        ("fp8_block", settings(modules_to_convert=["model.embed_tokens"]), "'modules_to_convert'"),
    ],
)  # fmt: skip
def test_refused_settings(tmp_path: Path, name: str, change: Any, message: str):
    directory = changed_copy(DATA / name, tmp_path / name, change)
    with pytest.raises(ConfigError, match=f"config.json: .*{message}"):
        import_model(directory)
    with pytest.raises(ConfigError, match=f"config.json: .*{message}"):
        import_config(directory)


JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -7,
    2**70,
    0.5,
    float("nan"),
    "",
    "re:(",
    "\n",
    [],
    [[]],
    ["re:("],
    [3],
    {},
    {"a": []},
    [1, 2],
)


def spoiled(value: Any) -> Iterator[Any]:
    """`value`, a JSON object, with one of its values at any depth replaced or missing."""
    for key in value:
        rest = {k: v for k, v in value.items() if k != key}
        yield rest
        yield from ({**rest, key: junk} for junk in JUNK)
        if isinstance(value[key], dict):
            yield from ({**rest, key: inner} for inner in spoiled(value[key]))


@pytest.mark.parametrize("name", sorted(p.parent.name for p in DATA.glob("*/config.json")))
def test_any_settings_are_read_or_refused(name: str):
    config = json.loads((DATA / name / "config.json").read_text())
    messages: list[str] = []
    for settings in spoiled(config["quantization_config"]):
        try:
            layout = read_layout({**config, "quantization_config": settings}, "config.json")
            assert layout is not None
            layout.excludes("lm_head")
        except ConfigError as e:
            messages.append(str(e))
    assert len(messages) > 50
    for message in messages:
        assert message.startswith("config.json: 'quantization_config': ")
        assert message.isprintable()


@pytest.mark.parametrize("name", sorted(p.parent.name for p in DATA.glob("*/config.json")))
def test_any_part_is_read_or_refused(tmp_path: Path, name: str):
    shutil.copytree(DATA / name, tmp_path, dirs_exist_ok=True)
    tensors = read_tensors(DATA / name / "model.safetensors")
    messages: list[str] = []
    original = import_model(tmp_path).checkpoint
    assert original is not None
    shape = original.info(f"{Q}.weight").shape
    for part in [n for n in tensors if n.startswith(f"{Q}.")]:
        stored = tensors[part]
        others = [
            Stored(dtype, np.zeros(stored.values.shape))
            for dtype in ("F32", "BF16", "I64", "I32", "I8", "F8_E4M3", "U8")
        ]
        others += [Stored(stored.dtype, np.zeros(shape)) for shape in ((), (0,), (1,), (2, 2), (0, 32), (1, 1, 1))]
        for other in others:
            write_tensors(tmp_path / "model.safetensors", {**tensors, part: other})
            try:
                checkpoint = import_model(tmp_path).checkpoint
                assert checkpoint is not None
                assert checkpoint.load(f"{Q}.weight").shape == shape
            except CheckpointError as e:
                messages.append(str(e))
    assert len(messages) > 20
    assert all(Q in message for message in messages)


def set_part(name: str, *at: int, value: Any) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name].values[at] = value

    return change


def cut(name: str, rows: int) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name].values = tensors[name].values[:rows]

    return change


def retype(name: str, dtype: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = Stored(dtype, np.zeros(tensors[name].values.shape))

    return change


def add(name: str, dtype: str, *shape: int) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: Stored(dtype, np.ones(shape))})


def drop(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("awq", drop(f"{Q}.qzeros"), f"model.safetensors: module '{Q}' is quantised, but its tensor '{Q}.qzeros' is missing"),
        ("awq", retype(f"{Q}.qweight", "F32"), rf"tensor '{Q}.qweight': expected type I32, found F32"),
        ("awq", retype(f"{Q}.scales", "I32"), rf"tensor '{Q}.scales': expected scales of type F32, F16, BF16, found I32"),
        ("awq", cut(f"{Q}.scales", 1), rf"'{Q}.scales': expected shape \[2, 32\] \(32 inputs in groups of 16\), found \[1, 32\]"),
        ("awq", cut(f"{Q}.qzeros", 1), rf"'{Q}.qzeros': expected shape \[2, 4\]"),
        ("awq", add(f"{Q}.weight", "F16", 32, 32), rf"'{Q}.weight': module '{Q}' has this tensor and 'qweight' of AWQ: expected one"),
        ("awq", add(f"{Q}.weight_scale", "F16", 32), rf"'{Q}.weight_scale': unexpected"),
        ("awq", add(f"{DOWN}.weight_packed", "I32", 32, 4), rf"'{DOWN}.weight_packed': unexpected"),
        ("awq", add(f"{Q}.bias", "F16", 32), rf"'{Q}.bias': unexpected: the configuration says attention_bias = false"),
        ("gptq_int4", cut(f"{Q}.g_idx", 16), rf"'{Q}.g_idx': expected shape \[32\], found \[16\]"),
        ("gptq_int4_act_order", drop(f"{Q}.g_idx"), f"'{Q}.g_idx' is missing"),
        ("gptq_int8", cut(f"{Q}.qweight", 4), rf"'{Q}.g_idx': expected shape \[16\], found \[32\]"),
        ("compressed_int4", drop(f"{Q}.weight_scale"), "'.*q_proj.weight_scale' is missing"),
        ("compressed_int4", drop(f"{Q}.weight_shape"), "'.*q_proj.weight_shape' is missing"),
        ("compressed_int4_asymmetric", drop(f"{Q}.weight_zero_point"), "'.*q_proj.weight_zero_point' is missing"),
        ("compressed_int8", cut(f"{Q}.weight_scale", 31), r"weight_scale': expected shape \[32, 1\] \(32 outputs"),
        ("compressed_fp8", retype(f"{Q}.weight", "I8"), rf"'{Q}.weight': expected type F8_E4M3, found I8"),
        ("compressed_fp8_tensor", add(f"{Q}.weight_scale", "F32", 2), r"weight_scale': expected shape \[1\] \(one scale for"),
        ("fp8_block", drop(f"{Q}.weight_scale_inv"), rf"'{Q}.weight'.*: (expected to be quantised as fp8|unsupported type F8_E4M3)"),
        ("fp8_block", add(f"{Q}.weight_scale", "F32"), rf"'{Q}.weight_scale': module '{Q}' has 'weight_scale_inv' too: expected one"),
        ("fp8_block", cut(f"{Q}.weight_scale_inv", 1), r"weight_scale_inv': expected shape \[2, 1\] \(blocks of 16 x 32\)"),
    ],
)  # fmt: skip
def test_refused_tensors(tmp_path: Path, name: str, change: Any, message: str):
    directory = changed_copy(DATA / name, tmp_path / name, change_tensors=change)
    with pytest.raises(CheckpointError, match=message):
        import_model(directory)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("awq", set_part(f"{Q}.scales", 1, 5, value=np.nan), r"int4:g16:zp:f16: scale \[5, 1\]: expected a finite number, found nan"),
        ("gptq_int8", set_part(f"{Q}.scales", 0, 5, value=np.inf), r"int8:f16: scale \[5, 0\]: expected a finite number, found inf"),
        ("compressed_int8", set_part(f"{Q}.weight_scale", 9, 0, value=0x7FC0), r"scale \[9, 0\]: expected a finite number"),
        ("fp8_block", set_part(f"{Q}.weight_scale_inv", 1, 0, value=-np.inf), r"scale \[1, 0\]: expected a finite .* found -inf"),
        ("compressed_int8", set_part(f"{Q}.weight_scale", 9, 0, value=0x7F00), r"scale \[9, 0\]: 1.70141e\+38 makes values that float32"),
        ("fp8_block", set_part(f"{Q}.weight", 3, 4, value=0xFF), r"fp8:b16x32: code \[3, 4\]: is NaN"),
        ("gptq_int4", set_part(f"{Q}.qzeros", 0, 1, value=0x77777778), "expected zero points of 8, as the configuration says .* found 9 for output 8, group 0"),
        ("gptq_int4", set_part(f"{Q}.qzeros", 0, 0, value=0x7777777F), "zero point 15 of output 0, group 0, means 16 to some .* convert the checkpoint"),
        ("awq_symmetric", set_part(f"{Q}.qzeros", 1, 0, value=0x11111111), "expected zero points of 8.* found 1 for output 0, group 1"),
        ("gptq_int4_act_order", set_part(f"{Q}.g_idx", 0, value=2), "g_idx': expected groups 0 to 1, found 0 to 2"),
        ("gptq_int4_act_order", set_part(f"{Q}.g_idx", slice(None), value=0), "g_idx': expected 16 inputs in group 0, found 32"),
        ("compressed_int4", set_part(f"{Q}.weight_shape", 1, value=31), r"weight_shape': expected \[32, 32\], found \[32, 31\]"),
    ],
)  # fmt: skip
def test_damaged_values(tmp_path: Path, name: str, change: Any, message: str):
    model = import_model(changed_copy(DATA / name, tmp_path / name, change_tensors=change))
    assert model.checkpoint is not None
    for read in (model.checkpoint.quantized, model.checkpoint.load):
        with pytest.raises(CheckpointError, match=rf"model.safetensors: tensor '{Q}\..*{message}"):
            read(f"{Q}.weight")
    assert np.isfinite(model.checkpoint.load(f"{DOWN}.weight")).all()


@pytest.mark.parametrize("order", ["group", "dynamic", True])
def test_activation_order_without_its_indices(tmp_path: Path, order: Any):
    """Groups of neighbours would be the wrong ones."""
    with pytest.raises(CheckpointError, match=r"module '.*' is quantised, but its tensor '.*.weight_g_idx' is missing"):
        import_model(changed_copy(DATA / "compressed_int4", tmp_path, weights(actorder=order)))


@pytest.mark.parametrize("order", ["weight", "static", False])
def test_activation_order_that_keeps_groups(tmp_path: Path, order: Any):
    model = import_model(changed_copy(DATA / "compressed_int4", tmp_path, weights(actorder=order)))
    assert model.checkpoint is not None and model.checkpoint.quantized(f"{Q}.weight") is not None


@pytest.mark.parametrize("group", [32, 8, -1])
def test_wrong_group_sizes(tmp_path: Path, group: int):
    directory = changed_copy(DATA / "awq", tmp_path / "awq", settings(group_size=group))
    inputs = f"96 inputs in groups of {group}" if group > 0 else "one group of 96 inputs"
    groups = 96 // group if group > 0 else 1
    with pytest.raises(CheckpointError, match=rf"qzeros': expected shape \[{groups}, 4\] \({inputs}\), found \[6, 4\]"):
        import_model(directory)


def test_quantized_tensors_without_a_configuration(tmp_path: Path):
    directory = changed_copy(DATA / "awq", tmp_path / "awq", lambda config: config.pop("quantization_config"))
    hint = "'qweight' is there: is 'quantization_config' missing in config.json"
    with pytest.raises(CheckpointError, match=rf"tensor '{Q}.weight' is missing, .*{hint}"):
        import_model(directory)


def test_a_configuration_without_quantized_tensors(tmp_path: Path):
    config = {"quant_method": "awq", "bits": 4, "group_size": 8, "version": "gemm", "zero_point": True}
    directory = make_plain_llama(tmp_path, quantization_config=config)
    with pytest.raises(CheckpointError, match=rf"'{Q}.weight': expected to be quantised as AWQ, .* found F32"):
        import_model(directory)


UNQUANTIZED = np.random.default_rng(0).normal(0, 1, (32, 32)).astype(np.float32)


def leave_unquantized(tensors: Tensors) -> None:
    for part in (
        "qweight",
        "qzeros",
        "scales",
        "g_idx",
        "weight_packed",
        "weight_scale",
        "weight_shape",
        "weight_scale_inv",
    ):
        tensors.pop(f"{Q}.{part}", None)
    tensors[f"{Q}.weight"] = Stored("F32", UNQUANTIZED)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("awq", settings(modules_to_not_convert=["q_proj"])),
        ("awq", settings(modules_to_not_convert=["model.layers.0.self_attn.q_proj", "lm_head"])),
        ("fp8_block", settings(modules_to_not_convert=[r"model\.layers\.\d+\.self_attn\.q.*"])),
        ("fp8_block", settings(modules_to_not_convert=None, ignored_layers=["q_proj"])),
        ("gptq_int4", settings(modules_to_not_convert=["self_attn.q_proj"])),
        ("compressed_int4", settings(ignore=["lm_head", Q])),
        ("compressed_int4", settings(ignore=["re:.*q_proj$"])),
    ],
)
def test_excluded_modules(tmp_path: Path, name: str, change: Any):
    model = import_model(changed_copy(DATA / name, tmp_path / "a", change, leave_unquantized))
    assert model.checkpoint is not None
    assert model.checkpoint.quantized(f"{Q}.weight") is None
    np.testing.assert_array_equal(model.checkpoint.load(f"{Q}.weight"), UNQUANTIZED)
    assert model.checkpoint.quantized(f"{DOWN}.weight") is not None
    with pytest.raises(
        CheckpointError, match=rf"'{Q}\..*: the configuration excludes it from quantisation, but it is stored"
    ):
        import_model(changed_copy(DATA / name, tmp_path / "b", change))
    with pytest.raises(CheckpointError, match=rf"'{Q}.weight': expected to be quantised as .*, found F32"):
        import_model(changed_copy(DATA / name, tmp_path / "c", change_tensors=leave_unquantized))


def test_static_activation_scales_are_not_used(tmp_path: Path):
    for name, part in (("compressed_fp8", "input_scale"), ("fp8_block", "activation_scale")):
        model = import_model(changed_copy(DATA / name, tmp_path / name, change_tensors=add(f"{Q}.{part}", "F32")))
        assert model.checkpoint is not None
        assert f"{Q}.{part}" not in model.checkpoint.tensors


def test_one_fp8_scale_a_matrix(tmp_path: Path):
    """As AutoFP8 writes it, and as transformers does without blocks."""
    expected = import_model(DATA / "compressed_fp8_tensor").checkpoint
    assert expected is not None
    fp8 = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
    for part in ("weight_scale", "weight_scale_inv"):

        def rename(tensors: Tensors, part: str = part) -> None:
            for name in [n for n in tensors if n.endswith("weight_scale")]:
                stored = tensors.pop(name)
                tensors[name.replace("weight_scale", part)] = Stored(stored.dtype, stored.values.reshape(()))

        directory = changed_copy(
            DATA / "compressed_fp8_tensor", tmp_path / part, lambda c: c.update(quantization_config=fp8), rename
        )
        found = import_model(directory).checkpoint
        assert found is not None
        for name in (f"{Q}.weight", f"{DOWN}.weight"):
            np.testing.assert_array_equal(found.load(name), expected.load(name))
            assert str(found.info(name).quantized) == "fp8:bf16"


def test_a_bias_of_zeros_is_nothing(tmp_path: Path):
    def change(tensors: Tensors) -> None:
        tensors[f"{Q}.bias"] = Stored("F16", np.zeros(32))

    assert import_model(changed_copy(DATA / "gptq_int4", tmp_path / "a", change_tensors=change)).checkpoint is not None


@pytest.mark.parametrize(
    ("pattern", "module", "excluded"),
    [
        ("lm_head", "lm_head", True),
        ("q_proj", Q, True),
        ("model.layers.0", Q, True),
        ("model.layers.0", "model.layers.01.x", False),
        ("mlp.gate", "model.layers.0.mlp.gate_proj", False),
        (r".*gate.*", "model.layers.0.mlp.gate_proj", True),
        ("(", Q, False),
    ],
)
def test_exclusion_patterns(pattern: str, module: str, excluded: bool):
    assert excluded_by(module, (pattern,)) == excluded


def test_bytes_and_format_are_known_without_reading(tmp_path: Path):
    checkpoint = import_model(DATA / "gptq_int4_act_order").checkpoint
    assert checkpoint is not None
    info = checkpoint.info(f"{Q}.weight")
    assert (info.shape, info.dtype) == ((32, 32), "INT4:G16:ZP:F16")
    assert info.nbytes == 32 * 32 // 2 + 2 * 32 // 2 + 2 * 32 * 2 + 32 * 4
    assert checkpoint.info("lm_head.weight").quantized is None
