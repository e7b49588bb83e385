"""The Python API in a few lines, as a user would write them."""

from contextlib import suppress
from pathlib import Path

import pytest

import amk


def test_generate_is_open_session_with_a_tokenizer(tiny_model: Path):
    text = "".join(amk.generate(tiny_model, "Hello", max_tokens=6))
    model = amk.import_model(tiny_model)
    tokenizer = amk.load_tokenizer(tiny_model)
    with amk.open_session(model) as session:
        ids = list(session.generate(tokenizer.encode("Hello"), 6, stop=tokenizer.eos_ids))
        assert tokenizer.decode(ids) == text
        session.reset()
        assert list(session.generate(tokenizer.encode("Hello"), 6, stop=tokenizer.eos_ids)) == ids


def test_any_target_runs_on_the_reference_backend(tiny_model: Path):
    """The schedule of a GPU and that of the virtual SMs choose the same tokens."""
    tokens: list[list[int]] = []
    for target, sms in (("reference", None), ("reference", 1), ("sm_90a", 12)):
        with amk.open_session(tiny_model, target=target, sms=sms) as session:
            tokens.append(list(session.generate([1, 2, 3], 12)))
    assert tokens[0] == tokens[1] == tokens[2]


def test_compile(tiny_model: Path, tmp_path: Path):
    result = amk.compile(tiny_model, "sm_90a", tmp_path / "tiny.amk")
    assert result.artifact.manifest["target"] == "sm_90a"
    assert result.artifact.path("weights.bin").stat().st_size == result.artifact.manifest["weights"]["bytes"]


def test_an_edited_plan_is_verified_again(tiny_model: Path, tmp_path: Path):
    """Editing the plan and its digest does not get an unsafe schedule onto a GPU."""
    import json

    from amk.amk_ir.errors import ScheduleError
    from amk.runtime.cache import digest
    from amk.tools.compiled import load_compiled

    artifact = amk.compile(tiny_model, "sm_90a", tmp_path / "tiny.amk").artifact
    plan = artifact.read("plan.mlir").decode()
    signal = next(line for line in plan.splitlines() if "queue.signal" in line)
    edited = plan.replace(signal + "\n", "", 1).encode()
    artifact.path("plan.mlir").write_bytes(edited)
    manifest = json.loads((artifact.folder / "manifest.json").read_text())
    manifest["files"]["plan.mlir"] = {"bytes": len(edited), "sha256": digest(edited)}
    (artifact.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ScheduleError, match="rejected"):
        load_compiled(artifact.folder)


def test_a_configuration_alone_cannot_run(tiny_model: Path):
    from amk.frontends.import_model import import_config

    model = import_config(tiny_model)
    with pytest.raises(amk.AmkError, match="no weights to run"):
        amk.open_session(model)


def test_several_steps_a_launch_need_a_kernel_with_the_loop(tiny_model: Path, tmp_path: Path):
    from amk.amk_ir.errors import ArtifactError, DeviceError

    plain, loop = tmp_path / "plain.amk", tmp_path / "loop.amk"
    assert amk.compile(tiny_model, "sm_90a", plain).artifact.manifest["token_loop"] is False
    assert amk.compile(tiny_model, "sm_90a", loop, token_loop=True).artifact.manifest["token_loop"] is True
    with pytest.raises(ArtifactError, match="one step a launch; compile it with --token-loop"):
        amk.open_compiled(plain, steps_per_launch=4)
    for folder, steps in ((plain, 1), (loop, 1), (loop, 4)):
        # both kernels are found and checked; what is missing is a GPU, or there is one
        with suppress(DeviceError):
            amk.open_compiled(folder, steps_per_launch=steps).close()


def test_several_steps_a_launch_on_the_reference_backend(tiny_model: Path):
    with amk.open_session(tiny_model) as session:
        expected = list(session.generate([1, 2, 3], 12))
    with amk.open_session(tiny_model, steps_per_launch=5) as session:
        assert list(session.generate([1, 2, 3], 12)) == expected


def test_prompts_in_chunks_on_the_reference_backend(tiny_model: Path):
    prompt = list(range(1, 30))
    with amk.open_session(tiny_model) as session:
        expected = list(session.generate(prompt, 8))
    for chunk in (2, 8, 28, 40):
        with amk.open_session(tiny_model, chunk=chunk) as session:
            assert session.executable.chunk == chunk
            assert list(session.generate(prompt, 8)) == expected
    with pytest.raises(amk.AmkError, match="chunk: expected 1 token or more, found 0"):
        amk.open_session(tiny_model, chunk=0)


def test_chunks_share_weights_and_cache(tiny_model: Path):
    """The second kernel has arrays of its own for activations only."""
    with amk.open_session(tiny_model, chunk=4) as session:
        first, second = session.executable.interpreter.memory, session.executable._chunk.memory
        shared = {name for name, array in second.arrays.items() if array is first.arrays.get(name)}
        kept = {name for name, b in second.buffers.items() if b.kind.data.value in ("weight", "state")}
        assert shared == kept > {"k_cache", "v_cache", "q_proj", "embed"}
