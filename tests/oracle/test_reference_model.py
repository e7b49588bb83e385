"""Every level of the reference backend against transformers in float32: all variants of tiny models, all positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hf_oracle import all_logits, transformers_model
from tiny_models import VARIANTS, make_llama, reference_logits

from amk.amk_ir.targets import get_target
from amk.backends.reference.backend import ReferenceBackend
from amk.backends.reference.graph_interpreter import GraphInterpreter
from amk.backends.reference.interleavings import Priority, Seeded
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.backends.reference.task_interpreter import TaskInterpreter
from amk.frontends.import_model import ImportedModel, import_model
from amk.passes.convert_graph_to_task import ConvertGraphToTaskPass
from amk.passes.graph_to_task import GraphToTaskPass
from amk.runtime.compile import new_context, plan

Logits = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture(scope="module")
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(directory, token ids for every position, transformers' logits at every position)."""
    variant = VARIANTS[request.param]
    directory = make_llama(tmp_path_factory.mktemp("model") / request.param, variant)
    ids = [int(i) for i in np.random.default_rng(0).integers(0, variant.vocab, variant.max_position)]
    return directory, ids, reference_logits(directory, ids)


def by_graph(model: ImportedModel) -> Any:
    return GraphInterpreter(model.module.body.block.first_op, model.checkpoint)


def by_tasks(lowering: Any, seed: int | None) -> Callable[[ImportedModel], Any]:
    def make(model: ImportedModel) -> Any:
        module = model.module.clone()
        lowering.apply(new_context(), module)
        module.verify()
        return TaskInterpreter(module.body.block.first_op, model.checkpoint, seed=seed)

    return make


def by_queues(target: str, sms: int, **options: Any) -> Callable[[ImportedModel], Any]:
    def make(model: ImportedModel) -> Any:
        kernel = plan(model.module, get_target(target), sms)
        return QueueInterpreter(kernel.kernel, model.checkpoint, **options)

    return make


# With the greatest position that a level runs to (None: the model's): many tiles, every event simulated, take long.
LEVELS: dict[str, tuple[Callable[[ImportedModel], Any], int | None]] = {
    "graph": (by_graph, None),
    "converted": (by_tasks(ConvertGraphToTaskPass(), None), None),
    "fused and tiled": (by_tasks(GraphToTaskPass(), 0), 16),
    "reference": (by_queues("reference", 4), None),
    "reference, unchecked": (by_queues("reference", 2, checked=False), None),
    "sm_90a, seeded": (by_queues("sm_90a", 7, interleaving=Seeded(0)), 16),
    "sm_90a, adversarial": (by_queues("sm_90a", 5, interleaving=Priority((2, 0, 4, 3, 1), late_signals=True)), 16),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("variant", VARIANTS, indirect=True)
def test_logits_at_every_position(variant: tuple[Path, list[int], Logits], level: str):
    directory, ids, expected = variant
    make, max_seq = LEVELS[level]
    interpreter = make(import_model(directory, max_seq=max_seq))
    for pos, token in enumerate(ids[:max_seq]):
        result = interpreter.step([token], pos)
        error = np.linalg.norm(result.logits[0] - expected[pos]) / np.linalg.norm(expected[pos])
        assert error < 1e-5, f"position {pos}"  # required: 1e-4
        assert result.next_tokens[0] == result.logits[0].argmax()


def test_the_backend_generates_what_transformers_does(tmp_path: Path):
    directory = make_llama(tmp_path / "model", VARIANTS["odd_everything"])
    model = import_model(directory)
    assert model.checkpoint is not None
    executable = ReferenceBackend().load(plan(model.module, get_target("reference")), model.checkpoint)
    for _ in range(2):
        ids = [1]
        for pos in range(20):
            next_token, logits = executable.step(ids[pos], pos)
            assert next_token == logits.argmax()
            ids.append(next_token)
        assert ids[1:] == reference_logits(directory, ids[:-1]).argmax(-1).tolist()
        executable.reset()


@pytest.mark.parametrize("name", ["gqa", "odd_everything", "bf16"])
def test_bf16_weights_are_those_of_transformers_rounded(tmp_path: Path, name: str):
    directory = make_llama(tmp_path / "model", VARIANTS[name])
    model = import_model(directory, weight_dtype="bf16", max_seq=16)
    ids = list(range(3, 19))
    expected = all_logits(transformers_model(model, round_to_bf16=True), ids)
    for make in (by_graph, by_queues("sm_90a", 3)):
        interpreter = make(model)
        actual = np.concatenate([interpreter.step([token], pos).logits for pos, token in enumerate(ids)])
        assert np.linalg.norm(actual - expected) < 1e-5 * np.linalg.norm(expected)


def test_a_bf16_cache_rounds_keys_and_values(tmp_path: Path):
    model = import_model(make_llama(tmp_path / "model", VARIANTS["gqa"]), kv_dtype="bf16", max_seq=8)
    expected = import_model(tmp_path / "model", max_seq=8)
    graph, queues, exact = by_graph(model), by_queues("sm_90a", 3)(model), by_graph(expected)
    for pos in range(8):
        rounded, of_queues, whole = (i.step([pos + 5], pos).logits for i in (graph, queues, exact))
        # sums in another order may round to the other neighbour, by 2^-8 of one key
        assert np.linalg.norm(rounded - of_queues) < 2e-3 * np.linalg.norm(rounded)
        assert 0 < np.linalg.norm(rounded - whole) < 2e-2 * np.linalg.norm(whole)
