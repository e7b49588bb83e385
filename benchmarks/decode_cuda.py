"""Time per token on a GPU, beside its correctness and two baselines measured in the same run.

    python benchmarks/decode_cuda.py smollm2-135m-instruct llama-3.2-1b --context 128 1024 --json FILE

Each MODEL is a shape of shapes.py, with random weights, or what `amk generate` takes. Correctness: logits of the first
steps against torch in float32 on the same bf16-rounded weights, and beside it torch's own bf16 error. Baselines: the
matmuls of a step alone (cuBLAS, bf16, in a CUDA graph; no norm, no attention, no residual), and the read peak: a kernel
that only reads as many bytes as it can.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import zlib
from pathlib import Path
from typing import Any

import environment
import numpy as np
import torch
import transformers
from shapes import SHAPES

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hf_oracle import transformers_model
from read_peak import read_peak

from amk.backends.cuda.backend import CudaBackend, detect_target
from amk.frontends.import_model import import_config, import_model
from amk.runtime.compile import plan

CHECKED_POSITIONS = 24


class RandomCheckpoint:
    """Weights of a shape, normal with deviation 0.02 in bf16: the same for a name in every run."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.shapes = shapes

    def tensor(self, name: str) -> torch.Tensor:
        """The weight as bf16, on the GPU. Norm weights are about 1."""
        generator = torch.Generator("cuda").manual_seed(zlib.crc32(name.encode()))
        values = torch.randn(self.shapes[name], generator=generator, device="cuda") * 0.02
        return (values + 1 if "norm" in name else values).to(torch.bfloat16)

    def load(self, name: str, dtype: str = "f32") -> np.ndarray[Any, Any]:
        """As `Checkpoint.load`."""
        values = self.tensor(name)
        if dtype == "bf16":
            return values.view(torch.int16).cpu().numpy().view(np.uint16)
        return values.float().cpu().numpy()


def torch_model(model: Any, config: dict[str, Any] | None, checkpoint: Any) -> Any:
    """The float32 oracle on the GPU."""
    if config is None:
        return transformers_model(model, round_to_bf16=True).to("cuda")
    hf = transformers.LlamaConfig(**{k: v for k, v in config.items() if k != "architectures"})
    with torch.device("cuda"):
        oracle = transformers.LlamaForCausalLM(hf).float().eval()
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            parameter.copy_(checkpoint.tensor(name))
    return oracle


def random_checkpoint(config: dict[str, Any]) -> RandomCheckpoint:
    hf = transformers.LlamaConfig(**{k: v for k, v in config.items() if k != "architectures"})
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(hf)
    return RandomCheckpoint({name: tuple(p.shape) for name, p in model.named_parameters()})


@torch.no_grad()
def correctness(executable: Any, oracle: Any, vocab: int) -> dict[str, float]:
    """Greatest relative error of logits over the checked positions: ours, and torch's in bf16, against float32."""
    ids = np.random.default_rng(0).integers(0, vocab, CHECKED_POSITIONS).tolist()
    inputs = torch.tensor([ids], device="cuda")
    expected = oracle(inputs).logits[0].float()
    ours = torch.stack([torch.from_numpy(executable.step(t, p)[1]) for p, t in enumerate(ids)]).cuda()
    half = oracle.to(torch.bfloat16)(inputs).logits[0].float()

    def error(logits: torch.Tensor) -> float:
        return float(((logits - expected).norm(dim=1) / expected.norm(dim=1)).max())

    return {"relative_error": error(ours), "torch_bf16_relative_error": error(half)}


def matmuls_only(model: Any, repeats: int) -> list[float]:
    """Microseconds of a step's matrix products alone: cuBLAS, bf16, one CUDA graph."""
    c = model.config
    # fused where a careful hand would fuse: the fewest launches make the strongest baseline
    per_layer = [
        ((c.heads + 2 * c.kv_heads) * c.head_dim, c.hidden),
        (c.hidden, c.heads * c.head_dim),
        (2 * c.intermediate, c.hidden),
        (c.hidden, c.intermediate),
    ]
    shapes = [*per_layer * c.layers, (c.vocab, c.hidden)]
    weights = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) * 0.02 for shape in shapes]
    inputs = {k: torch.randn(1, k, device="cuda", dtype=torch.bfloat16) for _, k in set(shapes)}

    def run() -> None:
        for weight in weights:
            torch.nn.functional.linear(inputs[weight.shape[1]], weight)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times = []
    for _ in range(repeats + 5):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return times[5:]


def measure(name: str, contexts: list[int], repeats: int, kv_dtype: str) -> dict[str, Any]:
    target = detect_target()
    config = SHAPES.get(name)
    max_seq = max(*contexts, 1024) + 64
    if config is None:
        model = import_model(name, weight_dtype="bf16", kv_dtype=kv_dtype, max_seq=max_seq)
        checkpoint: Any = model.checkpoint
    else:
        model = import_config(config, name=name, weight_dtype="bf16", kv_dtype=kv_dtype, max_seq=max_seq)
        checkpoint = random_checkpoint(config)
    kernel = plan(model.module, target)
    compiled = CudaBackend().compile(kernel)
    executable = CudaBackend().load(kernel, checkpoint)
    result: dict[str, Any] = {
        "model": name,
        "kv_dtype": kv_dtype,
        # what a step reads: an embedding that is not the head as well is none of it
        "streamed_bytes": sum(stream.bytes for stream in compiled.plan.streams),
        "contexts": {},
    }
    oracle = torch_model(model, config, checkpoint)
    result |= correctness(executable, oracle, model.config.vocab)
    del oracle
    torch.cuda.empty_cache()
    result["matmuls_only_us"] = matmuls_only(model, repeats)
    torch.cuda.empty_cache()
    tokens = np.random.default_rng(1).integers(0, model.config.vocab, max(contexts)).tolist()
    executable.reset()
    for position, token in enumerate(tokens):
        executable.step(token, position)
    for context in contexts:
        executable.loaded.time_steps(context, 5)
        times = [t * 1e3 for t in executable.loaded.time_steps(context, repeats)]
        result["contexts"][str(context)] = times
    executable.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--context", type=int, nargs="+", default=[128])
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--kv", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False

    peak = read_peak()
    print(f"read peak {peak / 1e9:.0f} GB/s")
    results = [measure(name, options.context, options.repeat, options.kv) for name in options.models]
    print(f"{'model':24}{'context':>8}{'us':>9}{'% of peak':>11}{'matmuls us':>12}{'error':>10}{'torch bf16':>12}")
    for r in results:
        matmuls = statistics.median(r["matmuls_only_us"])
        for context, times in r["contexts"].items():
            median = statistics.median(times)
            share = 100 * r["streamed_bytes"] / (median * 1e-6) / peak
            print(
                f"{r['model']:24}{context:>8}{median:9.1f}{share:11.1f}{matmuls:12.1f}"
                f"{r['relative_error']:10.1e}{r['torch_bf16_relative_error']:12.1e}"
            )
    environment.write(options.json, "decode_cuda", {"read_peak_bytes_per_s": peak, "models": results})


if __name__ == "__main__":
    main()
