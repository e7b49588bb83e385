"""Executes a `graph.model`, whole tensors at a time, with xDSL's interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from xdsl.dialects.builtin import SymbolRefAttr, TensorType, bf16
from xdsl.interpreter import (
    Interpreter,
    InterpreterFunctions,
    PythonValues,
    ReturnedValues,
    TerminatorValue,
    impl,
    impl_terminator,
    register_impls,
)
from xdsl.ir import Operation

from ...amk_ir.dtypes import round_to_bf16
from ...amk_ir.errors import ExecutionError
from ...dialects import graph
from . import numerics
from .memory import is_poison, poison
from .numerics import F32
from .step import StepResult, check_position
from .weights import Progress, WeightProvider, load_weight, no_progress

Observe: TypeAlias = Callable[[SymbolRefAttr, int, F32], None]
"""Told of each linear op its weight, the number of the layer (0 outside of layers) and its input, [rows, ...]."""


def observe_nothing(weight: SymbolRefAttr, layer: int, x: F32) -> None:
    """The `Observe` of those who do not want to know."""


@register_impls
class GraphFunctions(InterpreterFunctions):
    """What each op of the graph dialect does. Holds the weights, the caches and the number of the current layer."""

    def __init__(
        self,
        model: graph.ModelOp,
        weights: WeightProvider,
        progress: Progress = no_progress,
        observe: Observe = observe_nothing,
    ):
        self.observe = observe
        self.weights: dict[str, list[F32]] = {}
        self.caches: dict[str, list[F32]] = {}
        self.layer = 0
        weight_ops = [op for op in model.body.block.ops if isinstance(op, graph.WeightOp)]
        for done, op in enumerate(weight_ops):
            progress("loading weights", done, len(weight_ops))
            layers = [None] if op.layers is None else range(op.layers.value.data)
            shape, element = op.type.get_shape(), op.type.get_element_type()
            self.weights[op.sym_name.data] = [
                load_weight(op.source, layer, shape, element, weights) for layer in layers
            ]
        progress("loading weights", len(weight_ops), len(weight_ops))
        for op in model.body.block.ops:
            if isinstance(op, graph.CacheOp):
                count = 1 if op.layers is None else op.layers.value.data
                self.caches[op.sym_name.data] = [np.empty(op.type.get_shape(), np.float32) for _ in range(count)]
        self.reset()

    def reset(self) -> None:
        """Forgets the caches."""
        for layers in self.caches.values():
            for cache in layers:
                poison(cache)

    def _entry(self, entries: dict[str, list[F32]], name: SymbolRefAttr) -> F32:
        layers = entries[name.string_value()]
        return layers[self.layer if len(layers) > 1 else 0]

    def _weight(self, name: SymbolRefAttr) -> F32:
        return self._entry(self.weights, name)

    @impl(graph.LayersOp)
    def run_layers(self, interpreter: Interpreter, op: graph.LayersOp, args: PythonValues) -> PythonValues:
        for self.layer in range(op.count.value.data):
            args = interpreter.run_ssacfg_region(op.body, args, "layer")
        self.layer = 0
        return args

    @impl(graph.EmbeddingOp)
    def run_embedding(self, interpreter: Interpreter, op: graph.EmbeddingOp, args: PythonValues) -> PythonValues:
        table = self._weight(op.table)
        ids: numerics.Ids = args[0]
        check_ids(op, ids, table.shape[0])
        return (numerics.gather(table, ids),)

    @impl(graph.LinearOp)
    def run_linear(self, interpreter: Interpreter, op: graph.LinearOp, args: PythonValues) -> PythonValues:
        self.observe(op.weight, self.layer, args[0])
        y = numerics.linear(args[0], self._weight(op.weight))
        return (y if op.bias is None else numerics.bias_add(y, self._weight(op.bias)),)

    @impl(graph.RmsNormOp)
    def run_rms_norm(self, interpreter: Interpreter, op: graph.RmsNormOp, args: PythonValues) -> PythonValues:
        return (numerics.rms_norm(args[0], self._weight(op.weight), op.eps.value.data),)

    @impl(graph.RopeOp)
    def run_rope(self, interpreter: Interpreter, op: graph.RopeOp, args: PythonValues) -> PythonValues:
        x: F32 = args[0]
        pairs = x.reshape(*x.shape[:-1], 2, -1)
        return (numerics.rope(pairs, self._weight(op.frequencies), args[1]).reshape(x.shape),)

    @impl(graph.CacheAppendOp)
    def run_cache_append(self, interpreter: Interpreter, op: graph.CacheAppendOp, args: PythonValues) -> PythonValues:
        rows: F32 = args[0]
        pos: int = args[1]
        cache = self._entry(self.caches, op.cache)
        element = op.result.type.get_element_type()
        cache[pos : pos + rows.shape[0]] = round_to_bf16(rows) if element == bf16 else rows
        return (cache,)

    @impl(graph.AttentionOp)
    def run_attention(self, interpreter: Interpreter, op: graph.AttentionOp, args: PythonValues) -> PythonValues:
        q: F32 = args[0]
        pos: int = args[3]
        length = pos + q.shape[0]
        k, v = (cast(F32, cache)[:length] for cache in args[1:3])
        for name, cache in (("keys", k), ("values", v)):
            if (missing := is_poison(cache)).any():
                raise ExecutionError(
                    f"'{op.name}' at position {pos} reads {name} of position {np.argwhere(missing)[0][0]}, "
                    "which was not run since the last reset"
                )
        return (numerics.attention(q, k[:pos], v[:pos], k[pos:], v[pos:], op.scale.value.data),)

    @impl(graph.AddOp)
    def run_add(self, interpreter: Interpreter, op: graph.AddOp, args: PythonValues) -> PythonValues:
        return (numerics.add(args[0], args[1]),)

    @impl(graph.SiluMulOp)
    def run_silu_mul(self, interpreter: Interpreter, op: graph.SiluMulOp, args: PythonValues) -> PythonValues:
        return (numerics.silu_mul(args[0], args[1]),)

    @impl(graph.ArgmaxOp)
    def run_argmax(self, interpreter: Interpreter, op: graph.ArgmaxOp, args: PythonValues) -> PythonValues:
        return (numerics.argmax(args[0]),)

    @impl_terminator(graph.YieldOp)
    def run_yield(
        self, interpreter: Interpreter, op: graph.YieldOp, args: PythonValues
    ) -> tuple[TerminatorValue, PythonValues]:
        return ReturnedValues(args), ()

    @impl_terminator(graph.ReturnOp)
    def run_return(
        self, interpreter: Interpreter, op: graph.ReturnOp, args: PythonValues
    ) -> tuple[TerminatorValue, PythonValues]:
        return ReturnedValues(args), ()


def check_ids(op: Operation, ids: numerics.Ids, rows: int) -> None:
    """Raises ExecutionError if an id is not in [0, rows)."""
    if (bad := (ids < 0) | (ids >= rows)).any():
        raise ExecutionError(f"'{op.name}' takes ids in [0, {rows}), found {ids[bad][0]}")


class GraphInterpreter:
    """A model with its weights and caches: one sequence at a time. observe: told what each linear op multiplies."""

    def __init__(
        self,
        model: graph.ModelOp,
        weights: WeightProvider,
        progress: Progress = no_progress,
        observe: Observe = observe_nothing,
    ):
        module = model.get_toplevel_object()
        self.model = model
        self._functions = GraphFunctions(model, weights, progress, observe)
        self._interpreter = Interpreter(cast(Any, module))
        self._interpreter.register_implementations(self._functions)

    def reset(self) -> None:
        """Forgets the caches: the next step is at position 0."""
        self._functions.reset()

    def step(self, tokens: Sequence[int], pos: int) -> StepResult:
        """Runs one step: `tokens` from position `pos` on.

        Raises:
            ExecutionError: position or token id out of range, or a position before `pos` was not run.
        """
        step = self.model.step
        ids = np.asarray(tokens, np.int32)
        expected = cast(TensorType[Any], step.tokens.type).get_shape()
        if ids.shape != expected:
            raise ExecutionError(f"a step of @{self.model.sym_name.data} takes {expected[0]} tokens, found {ids.size}")
        return self._run(ids, pos)

    def forward(self, tokens: Sequence[int], pos: int = 0) -> StepResult:
        """Runs any number of `tokens` from position `pos` on at once, whatever number a step of the model takes.

        Every op means the same for each of its rows, so that this is a loop over `step` up to the order of sums, at a
        fraction of its time.

        Raises:
            ExecutionError: as `step`.
        """
        ids = np.asarray(tokens, np.int32)
        if ids.ndim != 1 or not ids.size:
            raise ExecutionError(f"expected one token or more, found an array of shape {list(ids.shape)}")
        return self._run(ids, pos)

    def _run(self, ids: numerics.Ids, pos: int) -> StepResult:
        check_position(pos, self.model.max_seq.value.data - ids.size)
        logits, next_tokens = self._interpreter.run_ssacfg_region(self.model.step.body, (ids, pos), "step")
        return StepResult(logits, next_tokens)
