"""benchmarks/ that need a GPU, with fakes in its place: what they compile and record."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bench_fakes import FakeDevice
from cuda_models import llama_config, verified

from amk.amk_ir.targets import Target, get_target
from amk.backends.cuda.compile import compile_kernel
from amk.backends.cuda.nvrtc import Cubin, Resources
from amk.passes.verify_schedule import VerifiedKernel
from amk.tools.bench.shapes import SHAPES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = {
    **SHAPES["smollm2-135m"],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
Run = Callable[..., dict[str, Any]]


class FakeLoaded:
    """A kernel on a GPU: 0.1 ms a step, logits by token and position."""

    def __init__(self, plan: Any, *_: Any) -> None:
        self.plan = plan

    def time_steps(self, pos: int, repeats: int) -> list[float]:
        return [0.1] * repeats

    def step(self, inputs: dict[str, Any], pos: int) -> dict[str, Any]:
        return {"logits": np.array([[token, pos + row] for row, token in enumerate(inputs["token"])], np.float32)}

    def close(self) -> None:
        pass


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script called `name`."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Compiled:
    """Stands in for NVRTC: notes the kernels, whose compilations have to be under way at the same time."""

    def __init__(self, at_once: int) -> None:
        self.kernels: list[VerifiedKernel] = []
        self.barrier = threading.Barrier(at_once, timeout=60)

    def __call__(self, kernel: VerifiedKernel, **_: Any) -> Any:
        self.kernels.append(kernel)
        self.barrier.wait()
        plan = SimpleNamespace(ring=SimpleNamespace(stages=kernel.kernel.ring.data.stages))
        return SimpleNamespace(plan=plan, image=b"", resources=SimpleNamespace(registers=1))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a script on a small model; what it records, and the kernels that it compiled."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))

    def run(name: str, at_once: int, *args: str) -> dict[str, Any]:
        module = load(name, monkeypatch)
        compiled = Compiled(at_once)
        stand_ins = {
            "SHAPES": {"small": SMALL},
            "LoadedKernel": FakeLoaded,
            "CudaDevice": FakeDevice,
            "detect_target": lambda: get_target("sm_90a"),
            "packed_pieces": lambda _: (),
            "compile_kernel": compiled,
            "PairCompiler": lambda: SimpleNamespace(unchecked=lambda kernel: kernel),
        }
        for attribute, value in stand_ins.items():
            if hasattr(module, attribute):
                monkeypatch.setattr(module, attribute, value)
        out = tmp_path / "out.json"
        monkeypatch.setattr(sys, "argv", [name, "small", *args, "--json", str(out)])
        module.main()
        return {**json.loads(out.read_text())["results"], "kernels": compiled.kernels}

    return run


def in_flight(kernel: VerifiedKernel) -> int:
    return kernel.kernel.ring.data.in_flight


def test_long_contexts(run: Run):
    found = run("long_contexts", 2, "--context", "16", "100", "--repeat", "3", "--set", "in-flight=4")
    assert found["options"] == {"in_flight": 4}
    assert found["read_peak_bytes_per_s"] == 3e12, "that of a device, which opens a context for it"
    (model,) = found["models"]
    assert model["kernels"] == {
        name: {"16": [100.0] * 3, "100": [100.0] * 3} for name in ("one SM a KV head", "all SMs")
    }
    assert [in_flight(kernel) for kernel in found["kernels"]] == [4, 4]


def test_chunk_cost(run: Run):
    found = run("chunk_cost", 3, "--tokens", "4", "--checked", "8", "--set", "in-flight=3", "--set", "handoff=counter")
    assert found["options"] == {"in_flight": 3, "handoff": "counter"}
    (model,) = found["models"]
    assert set(model["steps_us"]) == {"1 tokens", "4 tokens", "4 tokens, no outputs"}
    assert model["equal_bits"] is True
    assert [in_flight(kernel) for kernel in found["kernels"]] == [3] * 3
    assert {kernel.kernel.tokens.value.data for kernel in found["kernels"]} == {1, 4}


def test_spin_price(run: Run):
    found = run("spin_price", 1, "--context", "16", "--rounds", "2", "--repeat", "3", "--set", "in-flight=2")
    assert found["options"] == {"in_flight": 2}
    (model,) = found["models"]
    assert model["steps_us"] == {"bounded": [100.0] * 6, "unchecked": [100.0] * 6}
    assert model["price"] == 0.0
    assert [in_flight(kernel) for kernel in found["kernels"]] == [2], "the other one is made of its source"


def test_unchecked_spins_are_other_ones(monkeypatch: pytest.MonkeyPatch):
    """The line that `spin_price` replaces is in the source of every kernel; where either spills, both have less in registers."""
    module = load("spin_price", monkeypatch)
    kernel = verified(llama_config(64, 64, 1, 2, 1, 64, 64), "sm_90a", sms=2)
    compiled: list[bool] = []

    def compile_cubin(source: str, target: Target, name: str) -> Cubin:
        compiled.append(is_unchecked := "__trap()" in source)
        spills = 4 if compiled == [False, True] else 0
        return Cubin(b"unchecked" if is_unchecked else b"bounded", Resources(168, spills, spills, 0, 0), "")

    monkeypatch.setattr(module, "compile_cubin", compile_cubin)
    compiler = module.PairCompiler()
    bounded = compile_kernel(kernel, compiler=compiler)
    other = compiler.unchecked(bounded)
    assert compiled == [False, True] * 2
    assert "__trap()" in other.source and "__trap()" not in bounded.source
    assert (bounded.image, other.image, other.plan) == (b"bounded", b"unchecked", bounded.plan)


def test_nothing_set(run: Run):
    assert run("chunk_cost", 3, "--tokens", "2", "--checked", "2")["options"] == {}


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("long_contexts", "parts=2", "--set: parts is what this benchmark varies"),
        ("long_contexts", "speed=2", "--set: no pass option 'speed'"),
        ("chunk_cost", "in-flight=many", "--set: in-flight: expected an integer, found 'many'"),
    ],
)
def test_options_that_are_refused(run: Run, capsys: pytest.CaptureFixture[str], name: str, option: str, message: str):
    with pytest.raises(SystemExit):
        run(name, 1, "--set", option)
    assert message in capsys.readouterr().err
