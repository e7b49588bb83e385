"""What others need for a step, on the same GPU in the same run: torch.compile, and the matrix products alone.

Both are captured in a CUDA graph and timed as AMK's launches are.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from ...backends.cuda.driver_api import driver_bindings
from ...backends.cuda.launch_gate import LaunchGate
from ...frontends.recipe import DecoderConfig
from .correctness import divergence
from .results import Baseline, NotRun, Times

COMPILE_MODES = ("default", "max-autotune-no-cudagraphs")
"""Modes of torch.compile that leave the CUDA graph to us; the second one takes about a minute longer a context."""

_WARM_UP = 3


def torch_compile_step(
    model: Any, ids: list[int], context: int, expected: NDArray[Any] | None, repeats: int, mode: str
) -> Baseline | NotRun:
    """A whole decode step of transformers, from token to next token, compiled and captured.

    model: in bf16 on the GPU. ids: more than `context` tokens, of which the first `context` fill its static KV cache,
    which has one place more. expected: float32 logits [vocab] of the step, for the error of the baseline.
    """
    try:
        return _torch_compile_step(model, ids, context, expected, repeats, mode)
    except Exception as e:  # whatever a compiler may raise: the rest of the run is worth having without it
        return NotRun(first_line(e))


def _torch_compile_step(
    model: Any, ids: list[int], context: int, expected: NDArray[Any] | None, repeats: int, mode: str
) -> Baseline:
    torch: Any = import_module("torch")
    transformers: Any = import_module("transformers")
    device = next(model.parameters()).device
    cache = transformers.StaticCache(config=model.config, max_cache_len=context + 1)
    cache_name = cache_argument(model)

    def step(token: Any, position: Any, cache: Any) -> tuple[Any, Any]:
        logits = model(token, position_ids=position, use_cache=True, **{cache_name: cache}).logits[:, -1]
        return logits, logits.argmax(-1)

    with torch.no_grad():
        first = torch.tensor([ids[:context]], device=device)
        model(first, use_cache=True, logits_to_keep=1, **{cache_name: cache})
        lengths = [layer.cumulative_length for layer in cache.layers]

        def rewind() -> None:
            for length in lengths:  # each step moves them on
                length.fill_(context)

        arguments = (
            torch.tensor([[ids[context]]], device=device),
            torch.tensor([[context]], device=device),
            cache,
        )
        compiled = torch.compile(step, fullgraph=True, dynamic=False, mode=mode)
        start = time.perf_counter()
        replay, outputs = capture(lambda: compiled(*arguments), rewind)
        prepared = time.perf_counter() - start
        times = time_replays(replay, repeats, rewind)
        error = None
        if expected is not None:
            logits = outputs[0].float().cpu().numpy()
            error = divergence(logits, expected[None]).relative_error
    what = f"transformers {transformers.__version__}, torch {torch.__version__}, torch.compile mode {mode}, CUDA graph"
    return Baseline(what, times, error, prepared)


def cache_argument(model: Any) -> str:
    """What transformers calls the KV cache in the arguments of `model`: the older name is a warning from 5.24 on, which breaks
    the graph of torch.compile."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def matmuls_alone(config: DecoderConfig, repeats: int) -> Baseline | NotRun:
    """The matrix products of a step and nothing else: no norm, no attention, no residual. Random bf16 weights."""
    try:
        return _matmuls_alone(config, repeats)
    except Exception as e:  # such as no memory: as above
        return NotRun(first_line(e))


def _matmuls_alone(config: DecoderConfig, repeats: int) -> Baseline:
    torch: Any = import_module("torch")
    start = time.perf_counter()
    shapes = matmul_shapes(config)
    weights = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) * 0.02 for shape in shapes]
    inputs = {k: torch.randn(1, k, device="cuda", dtype=torch.bfloat16) for _, k in set(shapes)}

    def run() -> None:
        for weight in weights:
            torch.nn.functional.linear(inputs[weight.shape[1]], weight)

    with torch.no_grad():
        replay, _ = capture(run, lambda: None)
        prepared = time.perf_counter() - start
        times = time_replays(replay, repeats, lambda: None)
    return Baseline(f"torch {torch.__version__}, cuBLAS, CUDA graph", times, None, prepared)


def matmul_shapes(c: DecoderConfig) -> list[tuple[int, int]]:
    """(rows, columns) of the matrices of a step, in order; fused where a careful hand would fuse: the fewest launches
    make the strongest baseline."""
    per_layer = [
        ((c.heads + 2 * c.kv_heads) * c.head_dim, c.hidden),
        (c.hidden, c.heads * c.head_dim),
        (2 * c.intermediate, c.hidden),
        (c.hidden, c.intermediate),
    ]
    return [*per_layer * c.layers, (c.vocab, c.hidden)]


def capture(run: Callable[[], Any], before: Callable[[], None]) -> tuple[Callable[[], None], Any]:
    """`run` as a CUDA graph: what replays it, and its outputs. `before` prepares each call."""
    torch: Any = import_module("torch")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            before()
            run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    before()
    with torch.cuda.graph(graph):
        outputs = run()
    return graph.replay, outputs


def time_replays(replay: Callable[[], None], repeats: int, before: Callable[[], None]) -> Times:
    """Microseconds of each of `repeats` calls of `replay`, after some that are not counted, as those of AMK's launches: by events
    around each, on a GPU that is idle before, and that has both events and the graph when it begins."""
    torch: Any = import_module("torch")
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(_WARM_UP):
        before()
        replay()
    times: list[float] = []
    with LaunchGate(driver_bindings(), torch.cuda.current_stream().cuda_stream) as gate:
        for _ in range(repeats):
            before()
            torch.cuda.synchronize()
            gate.close()
            start.record()
            replay()
            end.record()
            gate.open()
            end.synchronize()
            times.append(start.elapsed_time(end) * 1e3)
    return Times(tuple(times))


def release() -> None:
    """Gives back what torch keeps of memory on the GPU, and forgets what it compiled."""
    import gc

    torch: Any = import_module("torch")
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()  # nothing happens without a GPU


def first_line(error: Exception) -> str:
    """An error as the reason of a baseline that was not run."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
