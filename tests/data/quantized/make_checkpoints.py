"""Makes the tiny quantised checkpoints of this folder, each with the public tool of its format, and what it computes.

    python make_checkpoints.py gptqmodel|autoawq|llmcompressor|transformers

Each tool wants another environment, so one call makes those of one tool; tests/ has to be on PYTHONPATH. Made with
torch 2.13.0 and transformers 5.23.0 on the CPU, and

    gptqmodel       gptqmodel 7.7.0 (GPTQMODEL_CPU_WORKERS=2)
    autoawq         autoawq 0.2.9: its quantiser and its WQLinear_GEMM; its own driver wants an older transformers
    llmcompressor   llmcompressor 0.14.0.1, compressed-tensors 0.20.0
    transformers    accelerate 1.15.0

A checkpoint is a folder with config.json and model.safetensors, and with expected.json:

    tool      who made it
    dtype     the type in which the tool's code gives dequantised weights
    sha256    of the bytes of each dequantised weight [N, K] in that type, by name
    ids       token ids
    logits    of transformers' LlamaForCausalLM in float32 with those weights, [ids, vocabulary]
    own       logits of the tool's own forward pass in its own precision, [ids, vocabulary]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tiny_models import Variant, make_llama
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

FOLDER = Path(__file__).parent
IDS = [1, 5, 9, 30, 2, 17, 17, 4]
SMALL = Variant(vocab=32, hidden=32, intermediate=96, layers=1, heads=2, kv_heads=2, head_dim=16, dtype="bfloat16")
# gptqmodel's AWQ wants multiples of 64 outputs
WIDE = Variant(vocab=32, hidden=64, intermediate=64, layers=1, heads=2, kv_heads=1, head_dim=64, dtype="bfloat16")


def linears(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The modules whose matrices are quantised, by their names in the checkpoint."""
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            yield name[name.index("model.layers") :], module


def write(name: str, saved: Path, tool: str, weights: Mapping[str, torch.Tensor], own: torch.Tensor) -> None:
    """Copies what is needed of a checkpoint, and writes what its tool makes of it."""
    target = FOLDER / name
    target.mkdir(exist_ok=True)
    config = json.loads((saved / "config.json").read_text())
    config["quantization_config"].get("meta", {}).pop("offload_to_disk_path", None)  # a path of this machine, as is
    config.pop("_name_or_path", None)
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shutil.copy(saved / "model.safetensors", target)
    (target / "model.safetensors").chmod(0o644)

    plain_config = AutoConfig.from_pretrained(target)
    del plain_config.quantization_config
    model = LlamaForCausalLM(plain_config).float().eval()
    from safetensors.torch import load_file

    state = {k: v.float() for k, v in load_file(saved / "model.safetensors").items() if k in model.state_dict()}
    state |= {k: v.float() for k, v in weights.items()}
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and not missing.missing_keys, missing
    (dtype,) = {w.dtype for w in weights.values()}
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0]
    difference = (logits - own.float()).abs().max() / logits.std()
    print(f"{name}: own logits differ by {difference:.2e}")
    assert difference < 0.1
    expected = {
        "tool": tool,
        "dtype": str(dtype).removeprefix("torch."),
        "sha256": {
            k: hashlib.sha256(w.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
            for k, w in weights.items()
        },
        "ids": IDS,
        "logits": [[round(x, 6) for x in row] for row in logits.tolist()],
        "own": [[round(x, 4) for x in row] for row in own.float().tolist()],
    }
    (target / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


def gptqmodel(base: Callable[[Variant], Path], work: Path) -> None:
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    from gptqmodel.nn_modules.qlinear.torch_awq import dequantize_gemm

    generator = torch.Generator().manual_seed(3)
    texts = torch.randint(0, 32, (64, 64), generator=generator).tolist()
    calibration = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in texts]
    for name, variant, settings in (
        ("gptq_int4", SMALL, {"bits": 4, "group_size": 32}),
        (
            "gptq_int4_act_order",
            SMALL,
            {"bits": 4, "group_size": 16, "desc_act": True, "sym": False, "format": "gptq_v2"},
        ),
        ("gptq_int8", SMALL, {"bits": 8, "group_size": -1, "act_group_aware": False}),
        ("awq_symmetric", WIDE, {"bits": 4, "group_size": 32, "quant_method": "awq", "format": "gemm"}),
    ):
        model = GPTQModel.load(str(base(variant)), QuantizeConfig(**settings), device="cpu")
        model.quantize(calibration, batch_size=1)
        model.save(str(work / name))
        is_awq = name.startswith("awq")
        backend = BACKEND.AWQ_TORCH if is_awq else BACKEND.GPTQ_TORCH
        # in the type of the scales, or it would round them first
        dtype = torch.bfloat16 if is_awq else torch.float16
        loaded = GPTQModel.load(str(work / name), backend=backend, device="cpu", dtype=dtype).model
        weights: dict[str, torch.Tensor] = {}
        for module_name, module in linears(loaded):
            if is_awq:
                w = dequantize_gemm(module.qweight, module.qzeros, module.scales, 4, module.group_size)
            else:
                w = module.dequantize_weight()
            weights[f"{module_name}.weight"] = w.T.contiguous().detach()
        with torch.no_grad():
            own = loaded(torch.tensor([IDS])).logits[0]
        write(name, work / name, "gptqmodel 7.7.0", weights, own)


def autoawq(base: Callable[[Variant], Path], work: Path) -> None:
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.quantize.quantizer import AwqQuantizer
    from awq.utils.packing_utils import dequantize_gemm
    from safetensors.torch import save_file

    group = 16
    quantizer = AwqQuantizer.__new__(AwqQuantizer)
    quantizer.w_bit, quantizer.group_size, quantizer.zero_point = 4, group, True
    model = AutoModelForCausalLM.from_pretrained(base(SMALL), dtype=torch.float16)
    weights: dict[str, torch.Tensor] = {}
    for name, module in list(linears(model)):
        module.weight.data, scales, zeros = quantizer.pseudo_quantize_tensor(module.weight.data)
        quantized = WQLinear_GEMM.from_linear(
            module, 4, group, scales=scales.T.contiguous(), zeros=zeros.T.contiguous()
        )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, quantized)
        parts = quantized.qweight, quantized.qzeros, quantized.scales
        weights[f"{name}.weight"] = dequantize_gemm(*parts, 4, group).T.contiguous()
    saved = work / "awq"
    saved.mkdir()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, saved / "model.safetensors")
    config = model.config.to_dict()
    config["quantization_config"] = {
        "bits": 4, "group_size": group, "modules_to_not_convert": None, "quant_method": "awq", "version": "gemm",
        "zero_point": True,
    }  # fmt: skip
    (saved / "config.json").write_text(json.dumps(config))
    with torch.no_grad():
        own = model(torch.tensor([IDS])).logits[0]
    write("awq", saved, "autoawq 0.2.9", weights, own)


def llmcompressor(base: Callable[[Variant], Path], work: Path) -> None:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import CompressedTensorsConfig

    token = {"strategy": "token", "dynamic": True, "symmetric": True, "num_bits": 8}
    group = {"strategy": "group", "group_size": 16, "type": "int"}
    fp8 = {"num_bits": 8, "type": "float"}
    for name, weight, activation in (
        ("compressed_int8", {"num_bits": 8, "type": "int", "strategy": "channel"}, {**token, "type": "int"}),
        ("compressed_int8_asymmetric", {"num_bits": 8, "symmetric": False, **group}, None),
        ("compressed_int4", {"num_bits": 4, "symmetric": True, **group}, None),
        ("compressed_int4_asymmetric", {"num_bits": 4, "symmetric": False, **group}, None),
        ("compressed_fp8", {**fp8, "strategy": "channel"}, {**token, "type": "float"}),
        ("compressed_fp8_tensor", {**fp8, "strategy": "tensor"}, None),
        ("compressed_fp8_block", {**fp8, "strategy": "block", "block_structure": [16, 32]}, None),
    ):
        model = AutoModelForCausalLM.from_pretrained(base(SMALL), dtype=torch.bfloat16)
        scheme = QuantizationScheme(
            targets=["Linear"],
            weights=QuantizationArgs(**weight),
            input_activations=activation and QuantizationArgs(**activation),
        )
        oneshot(model=model, recipe=QuantizationModifier(config_groups={"group_0": scheme}, ignore=["lm_head"]))
        model.save_pretrained(work / name, save_compressed=True)
        loaded = AutoModelForCausalLM.from_pretrained(
            work / name, quantization_config=CompressedTensorsConfig(run_compressed=False), dtype=torch.bfloat16
        )
        _write_dequantized(name, work / name, "llmcompressor 0.14.0.1", loaded)


def transformers(base: Callable[[Variant], Path], work: Path) -> None:
    from transformers import FineGrainedFP8Config
    from transformers.integrations.finegrained_fp8 import Fp8Quantize
    from transformers.quantizers.auto import AutoHfQuantizer

    for name, block in (("fp8_block", (16, 32)),):
        settings = FineGrainedFP8Config(weight_block_size=block, modules_to_not_convert=["lm_head"])
        quantize = Fp8Quantize(AutoHfQuantizer.from_config(settings, pre_quantized=True))
        model = AutoModelForCausalLM.from_pretrained(base(SMALL), dtype=torch.bfloat16)
        state = model.state_dict()
        for module, _ in linears(model):
            state |= quantize.convert({f"{module}.weight": state.pop(f"{module}.weight")})
        from safetensors.torch import save_file

        (work / name).mkdir()
        save_file({k: v.contiguous() for k, v in state.items()}, work / name / "model.safetensors")
        config = model.config.to_dict() | {"quantization_config": settings.to_dict()}
        (work / name / "config.json").write_text(json.dumps(config))
        loaded = AutoModelForCausalLM.from_pretrained(work / name, dtype=torch.bfloat16)
        _write_dequantized(name, work / name, "transformers 5.23.0", loaded)


def _write_dequantized(name: str, saved: Path, tool: str, loaded: Any) -> None:
    weights = {f"{n}.weight": module.weight.detach().contiguous() for n, module in linears(loaded)}
    with torch.no_grad():
        own = loaded(torch.tensor([IDS])).logits[0]
    write(name, saved, tool, weights, own)


def main() -> None:
    tools = {tool.__name__: tool for tool in (gptqmodel, autoawq, llmcompressor, transformers)}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("tool", choices=tools)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)

        def base(variant: Variant) -> Path:
            if not (work / f"base{variant.hidden}").exists():
                make_llama(work / f"base{variant.hidden}", variant)
            return work / f"base{variant.hidden}"

        tools[parser.parse_args().tool](base, work)


if __name__ == "__main__":
    main()
