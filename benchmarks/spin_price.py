"""What the bounded spins cost: steps of kernels as they are, and of the same ones whose waits never look at the time.

    python benchmarks/spin_price.py smollm2-135m llama-3.2-1b --json FILE

Each MODEL is a shape of `amk bench` with random weights. Waits of the other kernel trap after 2^24 polls, some ten seconds, and do
nothing else: no clock, no flag of the grid, no record of what was waited for. Both are loaded at once and timed by turns. Nothing
is checked here: correctness is that of `amk bench` and of tests/gpu.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import environment
import kernel_options
from random_weights import packed_pieces

from amk.amk_ir.targets import Target
from amk.backends.cuda.backend import detect_target
from amk.backends.cuda.compile import CompiledKernel, compile_kernel
from amk.backends.cuda.driver import LoadedKernel
from amk.backends.cuda.emit import ENTRY
from amk.backends.cuda.nvrtc import Cubin, compile_cubin
from amk.frontends.import_model import import_config
from amk.runtime.compile import plan
from amk.tools.bench.shapes import SHAPES

_CHECKED = "return (++polls & 63u) == 0;"
_UNCHECKED = "if (++polls == 1u << 24) __trap(); return false;"


class PairCompiler:
    """Compiles each kernel with and without the checks, as much of it in registers, for `compile_kernel`: which tries on while either
    spills, since kernels with less in registers are no measure of what the checks cost."""

    def __init__(self) -> None:
        self.pairs: dict[str, tuple[str, Cubin]] = {}

    def __call__(self, source: str, target: Target, name: str) -> Cubin:
        assert source.count(_CHECKED) == 1, "Spin::is_due in device/spin.cuh is another one"
        text = source.replace(_CHECKED, _UNCHECKED)
        bounded, other = (compile_cubin(one, target, name) for one in (source, text))
        self.pairs[source] = text, other
        return replace(bounded, resources=other.resources) if other.resources.spill_stores else bounded

    def unchecked(self, bounded: CompiledKernel) -> CompiledKernel:
        """The same kernel, whose waits never look at the time."""
        source, cubin = self.pairs[bounded.source]
        return replace(bounded, source=source, image=cubin.image, resources=cubin.resources, log=cubin.log)


def measure(name: str, context: int, rounds: int, repeats: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Microseconds of the steps of both kernels, every repetition, and by how much one is slower: of medians."""
    model = import_config(SHAPES[name], name=name, weight_dtype="bf16", kv_dtype="bf16", max_seq=context + 64)
    kernel = plan(model.module, detect_target(), options=options)
    compiler = PairCompiler()
    bounded = compile_kernel(kernel, compiler=compiler)
    compiled = {"bounded": bounded, "unchecked": compiler.unchecked(bounded)}
    loaded = {kind: LoadedKernel(c.plan, c.image, packed_pieces(c.plan), ENTRY) for kind, c in compiled.items()}
    times: dict[str, list[float]] = {kind: [] for kind in loaded}
    for _ in range(rounds):
        for kind, one in loaded.items():
            times[kind] += [t * 1e3 for t in one.time_steps(context, repeats)]
    for one in loaded.values():
        one.close()
    medians = {kind: statistics.median(t) for kind, t in times.items()}
    price = medians["bounded"] / medians["unchecked"] - 1
    registers = {kind: c.resources.registers for kind, c in compiled.items()}
    print(
        f"{name:16} bounded {medians['bounded']:8.1f} us, unchecked {medians['unchecked']:8.1f} us: {100 * price:+.2f}% "
        f"({registers['bounded']} and {registers['unchecked']} registers)",
        flush=True,
    )
    return {"model": name, "context": context, "steps_us": times, "price": price, "registers": registers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=sorted(SHAPES), metavar="MODEL")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=20)
    kernel_options.add_set(parser)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    options = kernel_options.chosen(parser, args)
    results = [measure(name, args.context, args.rounds, args.repeat, options) for name in args.models]
    environment.write(args.json, "spin_price", {"options": options, "models": results})


if __name__ == "__main__":
    main()
