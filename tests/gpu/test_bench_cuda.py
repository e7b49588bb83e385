"""amk bench and amk tune as a user runs them, on a model that takes microseconds."""

import json
from pathlib import Path

import pytest

from amk.amk_ir.targets import Target


def test_bench(tool, target: Target, tiny_model: Path, tmp_path: Path):
    """Right logits, the same every time, nothing lost; and torch's baselines where there is a torch for this GPU."""
    out = tmp_path / "bench.json"
    args = ["--context", "12", "40", "--repeat", "10", "--launches", "2000", "--compile-context", "12"]
    run = tool("amk", "bench", tiny_model, *args, "--compile-mode", "default", "--json", out)
    assert run.returncode == 0, run.stdout + run.stderr
    content = json.loads(out.read_text())
    assert content["target"] == target.name
    assert content["read_peak_bytes_per_s"] > 1e11
    (model,) = content["models"]
    assert model["ok"] and model["launches"] == {"count": 2000, "grown": 0}
    for context in model["contexts"]:
        assert context["is_deterministic"] and context["correctness"]["ok"]
        assert 1 < context["median_us"] < 1e5
    if model["contexts"][0]["correctness"]["against"].startswith("torch"):
        assert model["contexts"][0]["torch_compile"]["relative_error"] < 0.1
        assert model["matmuls_alone"]["median_us"] > 1


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize(("weights", "op"), [("int8", "int8: "), ("int4:g64", "int4: _weight_int4pack_mm")])
def test_products_with_quantised_weights(tool, tmp_path: Path, weights: str, op: str):
    out = tmp_path / "bench.json"
    args = ["--repeat", "5", "--launches", "0", "--weights", weights, "--baselines", "matmuls", "weight-only"]
    tool("amk", "bench", "smollm2-135m", "--context", "16", *args, "--compile-mode", "default", "--json", out)
    (model,) = json.loads(out.read_text())["models"]
    if model["contexts"][0]["correctness"]["against"].startswith("torch"):
        assert op in model["weight_only"]["what"]
        assert 1 < model["weight_only"]["median_us"] < 1e5


@pytest.mark.slow
@pytest.mark.usefixtures("target")
def test_tune(tool, tiny_model: Path, tmp_path: Path):
    """Whatever wins, compile uses it."""
    out, cache = tmp_path / "tune.json", {"AMK_CACHE_DIR": str(tmp_path / "cache")}
    args = ["--context", "12", "--budget", "60", "--options", "in-flight", "sms", "handoff"]
    run = tool("amk", "tune", tiny_model, *args, "--json", out, env=cache)
    assert run.returncode == 0, run.stdout + run.stderr
    content = json.loads(out.read_text())
    assert {trial["verdict"] for trial in content["trials"]} <= {"faster", "slower", "same kernel", "refused"}
    assert Path(content["kept_in"]).is_file()
    compiled = tool("amk", "compile", tiny_model, "-o", tmp_path / "out", env=cache)
    assert compiled.returncode == 0
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["options"] == content["best"]["options"]
