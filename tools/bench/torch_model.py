"""A model in torch, by transformers, with the same weights: the float32 oracle and the bf16 model of the baselines.

torch is no dependency of AMK; without it, or without its view of the GPU, nothing here is called (`torch_problem`).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.quantization import QuantizedTensor, group_spans
from ...amk_ir.quantized_weights import quantized_entry
from ...runtime.backend import Progress, no_progress
from .models import BenchModel


def torch_problem() -> str | None:
    """Why torch cannot be used on the GPU; None if it can."""
    try:
        torch: Any = import_module("torch")
    except ImportError:
        return "torch is not installed"
    except OSError as e:  # a library of CUDA that it was built for is missing
        return f"torch cannot be loaded ({e})"
    return None if torch.cuda.is_available() else "torch sees no GPU"


def build_model(source: BenchModel, device: str, progress: Progress = no_progress) -> Any:
    """The causal language model of `source` in float32 on `device`, its matrices rounded or quantised as `source` has
    them."""
    torch: Any = import_module("torch")
    transformers: Any = import_module("transformers")
    raw = dict(source.model.raw_config)
    (architecture,) = raw.pop("architectures")
    raw.pop("model_type", None)
    cls = getattr(transformers, architecture)
    config = cls.config_class(**raw)
    with torch.device("meta"):
        model = cls(config)
    model = model.to_empty(device=device).float()
    model.tie_weights()
    _compute_buffers(model, device)
    parameters = list(model.named_parameters())
    quantized = source.quantized_types()
    with torch.no_grad():
        for done, (name, parameter) in enumerate(parameters):
            progress("loading weights into torch", done, len(parameters))
            if (type := quantized.get(name)) is not None:
                weights: Any = source.weights
                dequantize_into(parameter, quantized_entry(weights, name, type, parameter.numel()))
            else:
                parameter.copy_(
                    _tensor(source, name, parameter).to(device)
                )  # which is not to be cast before it is there
    progress("loading weights into torch", len(parameters), len(parameters))
    return model.eval().requires_grad_(False)


def to_bf16(model: Any) -> Any:
    """`model` in bf16, in place, as it would be loaded in bf16: the frequencies of its rotations stay float32."""
    torch: Any = import_module("torch")
    model.to(torch.bfloat16)
    _compute_buffers(model, next(model.parameters()).device)
    return model


def _compute_buffers(model: Any, device: Any) -> None:
    """What is computed from the configuration and in no checkpoint: `to_empty` and casts leave nothing good of it."""
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(model.config).to(device)


def _tensor(source: BenchModel, name: str, parameter: Any) -> Any:
    torch: Any = import_module("torch")
    weights: Any = source.weights
    if parameter.ndim > 1 and source.model.weight_dtype == "bf16":
        bits: NDArray[Any] = weights.load(name, "bf16").view(np.int16)
        return torch.from_numpy(np.require(bits, requirements=["C", "W"])).view(torch.bfloat16)
    return torch.from_numpy(np.require(weights.load(name), requirements=["C", "W"]))


def dequantize_into(parameter: Any, tensor: QuantizedTensor) -> None:
    """Fills a float32 `parameter` with what `tensor.dequantize()` says, to the bit: the same operations, on its device."""
    torch: Any = import_module("torch")

    def there(array: NDArray[Any]) -> Any:
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(parameter.device)

    format, (rows, columns) = tensor.format, tensor.shape
    codes = there(tensor.codes)
    values = parameter.view(rows, columns)
    values.copy_(codes.view(torch.float8_e4m3fn) if format.storage == "fp8_e4m3" else codes)
    for span, groups in group_spans(format, columns):

        def per_element(array: NDArray[Any], groups: slice = groups) -> Any:
            return there(array[:, groups]).repeat_interleave(format.block_rows, 0)[:rows, :, None]

        part = values[:, span].unflatten(1, (groups.stop - groups.start, -1))
        if tensor.zeros is not None:
            part.sub_(per_element(tensor.zeros))
        part.mul_(per_element(tensor.scales))
        if tensor.minimums is not None:
            part.add_(per_element(tensor.minimums))
    if tensor.permutation is not None:
        values[:, there(tensor.permutation).long()] = values.clone()


def prefill_logits(model: Any, ids: list[int], positions: list[int]) -> NDArray[np.float32]:
    """Logits [len(positions), vocab] after the tokens up to each of `positions`, from one pass over `ids`."""
    torch: Any = import_module("torch")
    device = next(model.parameters()).device
    with torch.no_grad():
        wanted = torch.tensor(positions, device=device)
        found = model(torch.tensor([ids], device=device), use_cache=False, logits_to_keep=wanted).logits[0]
    return found.float().cpu().numpy()
