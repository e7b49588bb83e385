"""What the passes make of a model computes what the model computes, for many shapes, options and orders of execution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.parser import Parser
from xdsl.passes import ModulePass

from amk.amk_ir.attrs import RopeFrequencies
from amk.backends.reference.graph_interpreter import GraphInterpreter
from amk.backends.reference.interleavings import Seeded
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.backends.reference.task_interpreter import TaskInterpreter
from amk.dialects import task
from amk.dialects.amk import Amk
from amk.dialects.graph import Graph
from amk.frontends import llama
from amk.frontends.recipe import DecoderConfig, ImportOptions
from amk.passes import split_attention
from amk.passes.convert_graph_to_task import ConvertGraphToTaskPass
from amk.passes.expand_queues import ExpandQueuesPass
from amk.passes.fuse_into_consumer import FuseIntoConsumerPass
from amk.passes.fuse_into_producer import FuseIntoProducerPass
from amk.passes.graph_to_queue import GraphToQueuePass
from amk.passes.insert_sync import InsertSyncPass
from amk.passes.pipeline import run_passes
from amk.passes.place_tasks import PlaceTasksPass
from amk.passes.plan_stream import PlanStreamPass
from amk.passes.split_argmax import SplitArgmaxPass
from amk.passes.split_attention import SplitAttentionPass
from amk.passes.tile_tasks import TileTasksPass
from amk.passes.verify_schedule import verify

SMALL = DecoderConfig(
    vocab=37,
    hidden=12,
    intermediate=20,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=6,
    max_position=64,
    norm_eps=1e-5,
    rope=RopeFrequencies(6, 10000.0),
    tied=True,
)


def head_dim(config: DecoderConfig, size: int) -> DecoderConfig:
    return replace(config, head_dim=size, rope=replace(config.rope, head_dim=size))


CONFIGS = {
    "gqa": SMALL,
    "mha": replace(SMALL, kv_heads=4),
    "mqa": replace(SMALL, kv_heads=1),
    "one_head": replace(SMALL, heads=1, kv_heads=1),
    "biases": replace(SMALL, attention_bias=True, mlp_bias=True),
    "untied": replace(SMALL, tied=False),
    "odd_widths": replace(SMALL, hidden=13, intermediate=29, vocab=41, tied=False),
    "head_dim_2": head_dim(SMALL, 2),
    "head_dim_64": head_dim(SMALL, 64),
    "head_dim_256": head_dim(replace(SMALL, heads=2, kv_heads=1), 256),
    "three_kv_heads": replace(SMALL, heads=9, kv_heads=3),
    "one_layer": replace(SMALL, layers=1),
    "llama3_rope": replace(SMALL, rope=RopeFrequencies(6, 5e5, "llama3", 8.0, 1.0, 4.0, 16)),
}
TILINGS = [TileTasksPass(), TileTasksPass(rows=4, columns=5), TileTasksPass(tasks=3), TileTasksPass(tasks=1)]


class Weights:
    """Random values for any name, of the shape that the model declares."""

    def __init__(self, module: ModuleOp):
        rng = np.random.default_rng(5)
        self.values: dict[str, np.ndarray] = {}
        model = next(iter(module.ops))
        for op in model.body.block.ops:
            if op.name == "graph.weight" and op.source.name == "amk.checkpoint":
                for layer in range(1 if op.layers is None else op.layers.value.data):
                    values = rng.standard_normal(op.type.get_shape()).astype(np.float32)
                    # norms near one, everything else scaled to keep activations near one
                    scale = 1 / np.sqrt(values.shape[-1])
                    self.values[op.source.data.replace("{layer}", str(layer))] = (
                        1 + 0.1 * values if "norm" in op.sym_name.data else scale * values
                    )

    def load(self, name: str, dtype: str = "f32") -> np.ndarray:
        assert dtype == "f32"
        return self.values[name]


def model(config: DecoderConfig, max_seq: int = 4) -> ModuleOp:
    return llama.build(config, ImportOptions(name="model", max_seq=max_seq, weight_dtype="f32", kv_dtype="f32"))


def apply(module: ModuleOp, *passes: ModulePass) -> ModuleOp:
    run_passes(Context(), module, passes)
    return module


def logits(interpreter, vocab: int, max_seq: int = 4) -> np.ndarray:
    ids = np.random.default_rng(1).integers(0, vocab, max_seq)
    found = []
    for pos in range(max_seq):
        result = interpreter.step(ids[pos : pos + 1], pos)
        assert np.array_equal(result.next_tokens, result.logits.argmax(-1))
        found.append(result.logits)
    return np.concatenate(found)


def expected(config: DecoderConfig) -> tuple[np.ndarray, Weights]:
    module = model(config)
    weights = Weights(module)
    return logits(GraphInterpreter(next(iter(module.ops)), weights), config.vocab), weights


def assert_close(actual: np.ndarray, wanted: np.ndarray) -> None:
    assert np.linalg.norm(actual - wanted) < 1e-5 * np.linalg.norm(wanted)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_step_to_tasks_keeps_the_meaning(config: DecoderConfig):
    wanted, weights = expected(config)
    module = model(config)
    for step in (ConvertGraphToTaskPass(), FuseIntoConsumerPass(), FuseIntoProducerPass(), TileTasksPass()):
        apply(module, step)
        interpreter = TaskInterpreter(next(iter(module.ops)), weights, seed=3)
        assert_close(logits(interpreter, config.vocab), wanted)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("tiling", TILINGS, ids=repr)
def test_every_tiling_keeps_the_meaning(config: DecoderConfig, tiling: TileTasksPass):
    wanted, weights = expected(config)
    module = apply(model(config), ConvertGraphToTaskPass(), FuseIntoConsumerPass(), FuseIntoProducerPass(), tiling)
    assert_close(logits(TaskInterpreter(next(iter(module.ops)), weights, seed=3), config.vocab), wanted)


@pytest.mark.parametrize("tiling", TILINGS, ids=repr)
def test_tiles_without_fusion(tiling: TileTasksPass):
    """Every family kind alone: copies, rope, bias, elementwise, appends."""
    config = CONFIGS["biases"]
    wanted, weights = expected(config)
    module = apply(model(config), ConvertGraphToTaskPass(), tiling)
    assert_close(logits(TaskInterpreter(next(iter(module.ops)), weights, seed=3), config.vocab), wanted)


@pytest.mark.parametrize("handoff", ["auto", "counter"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_verified_kernels_keep_the_meaning(config: DecoderConfig, handoff):
    wanted, weights = expected(config)
    module = apply(model(config), GraphToQueuePass("reference", handoff=handoff))
    kernel = next(iter(module.ops))
    verify(kernel)
    assert_close(logits(QueueInterpreter(kernel, weights, interleaving=Seeded(2)), config.vocab), wanted)


@pytest.mark.parametrize("words", [1024, 16], ids=["whole heads", "slices"])
@pytest.mark.parametrize(("parts", "block"), [(2, 1), (3, 1), (2, 2), (5, 64)])
@pytest.mark.parametrize("name", ["gqa", "mha", "mqa", "head_dim_64", "three_kv_heads"])
def test_attention_in_parts_keeps_the_meaning(
    name: str, parts: int, block: int, words: int, monkeypatch: pytest.MonkeyPatch
):
    """At the task and at the queue level, with parts of no positions, and heads that are merged in slices."""
    monkeypatch.setattr(split_attention, "_WORDS", words)
    config = CONFIGS[name]
    wanted, weights = expected(config)
    to_tasks = (ConvertGraphToTaskPass(), FuseIntoConsumerPass(), FuseIntoProducerPass(), TileTasksPass(tasks=3))
    module = apply(model(config), *to_tasks, SplitAttentionPass(parts, block, sms=40))
    program = next(iter(module.ops))
    families = [call.family.string_value() for call in module.walk() if isinstance(call, task.CallOp)]
    assert {"attention_mixed_part", "attention_mixed"} <= {*families}
    assert_close(logits(TaskInterpreter(program, weights, seed=3), config.vocab), wanted)
    kernel = next(iter(apply(module, PlaceTasksPass("reference", 5), InsertSyncPass(), PlanStreamPass()).ops))
    verify(kernel)
    assert_close(logits(QueueInterpreter(kernel, weights, interleaving=Seeded(2)), config.vocab), wanted)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    sms=st.integers(1, 9),
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    tasks=st.integers(0, 9),
    handoff=st.sampled_from(["auto", "counter"]),
    fuse=st.tuples(st.booleans(), st.booleans()),
    parts=st.integers(1, 9),
    attention=st.tuples(st.integers(0, 5), st.integers(1, 3)),
    explicit=st.booleans(),
)
def test_random_options_give_verified_kernels(
    name, sms, rows, columns, tasks, handoff, fuse, parts, attention, explicit
):
    config = CONFIGS[name]
    wanted, weights = expected(config)
    fusions = [p for p, on in zip((FuseIntoConsumerPass(), FuseIntoProducerPass()), fuse, strict=True) if on]
    steps = [
        SplitArgmaxPass(parts, 3),
        SplitAttentionPass(*attention, sms),
        PlaceTasksPass("reference", sms),
        InsertSyncPass(handoff),
        PlanStreamPass(stages=3, in_flight=2),
    ]
    module = apply(model(config), ConvertGraphToTaskPass(), *fusions, TileTasksPass(rows, tasks, columns), *steps)
    if explicit:
        apply(module, ExpandQueuesPass())
    kernel = next(iter(module.ops))
    verify(kernel)
    assert_close(logits(QueueInterpreter(kernel, weights, interleaving=Seeded(2)), config.vocab), wanted)


def test_two_tokens_a_step():
    """The same model with T = 2: every pass handles any number of tokens, split-argmax too."""
    config = replace(CONFIGS["biases"], vocab=130)
    text = str(model(config)).replace("tensor<1x", "tensor<2x")
    context = Context()
    for dialect in (Builtin, Amk, Graph):
        context.load_dialect(dialect)

    def two() -> ModuleOp:
        module = Parser(context, text).parse_module()
        module.verify()
        return module

    weights = Weights(two())
    ids = np.array([3, 7, 1, 30])

    def run(interpreter) -> np.ndarray:
        results = [interpreter.step(ids[pos : pos + 2], pos) for pos in (0, 2)]
        assert all(np.array_equal(r.next_tokens, r.logits.argmax(-1)) for r in results)
        return np.concatenate([r.logits for r in results])

    wanted = run(GraphInterpreter(next(iter(two().ops)), weights))
    for handoff, parts in (("auto", 1), ("counter", 1), ("auto", 3)):
        module = apply(two(), GraphToQueuePass("reference", handoff=handoff, parts=parts, block=1))
        kernel = next(iter(module.ops))
        verify(kernel)
        assert "argmax_next_part" in kernel.families
        assert ("attention_mixed_part" in kernel.families) == (parts > 1)
        assert_close(run(QueueInterpreter(kernel, weights, interleaving=Seeded(2))), wanted)
