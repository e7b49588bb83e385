"""`graph-to-queue`: the whole way from a model to a kernel, ready for verify-schedule and a backend."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.traits import SymbolTable
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.errors import TargetError
from ..amk_ir.quantized_type import QuantizedType
from ..amk_ir.targets import get_target
from ..dialects import graph
from .drop_outputs import DropOutputsPass
from .graph_to_task import AttentionOutput, GraphToTaskPass
from .insert_sync import Handoff
from .pipeline import run_passes
from .place_tasks import grid_size
from .quantize_weights import QuantizeWeightsPass
from .task_to_queue import TaskToQueuePass


@dataclass(frozen=True)
class GraphToQueuePass(ModulePass):
    """quantize-weights if any are to be, graph-to-task and task-to-queue, with their options.

    weights, head, embedding: as `format`, `head` and `embedding` of quantize-weights; `none` leaves them as they are.

    With tasks=0, targets that run on virtual SMs (`reference`) get one task an SM and family, because each task costs
    their interpreter much more than its arithmetic; GPUs get tiles of `rows` rows. fuse-attention=true: attention-output of
    graph-to-task is fused, or split if attention is divided into parts; that leaves models alone whose tasks would have too
    many rows (split-attention-output), and refuses those whose attention is multiplied by quantised weights.
    outputs=false: drop-outputs, all of them, between the two.
    """

    name = "graph-to-queue"

    target: str = TaskToQueuePass.target
    sms: int = TaskToQueuePass.sms
    rows: int = GraphToTaskPass.rows
    tasks: int = GraphToTaskPass.tasks
    columns: int = GraphToTaskPass.columns
    widest: int = GraphToTaskPass.widest
    parts: int = TaskToQueuePass.parts
    block: int = TaskToQueuePass.block
    handoff: Handoff = TaskToQueuePass.handoff
    stages: int = TaskToQueuePass.stages
    bytes: int = TaskToQueuePass.bytes
    in_flight: int = TaskToQueuePass.in_flight
    fuse_attention: bool = False
    outputs: bool = True
    weights: str = "none"
    head: str = QuantizeWeightsPass.head
    embedding: str = QuantizeWeightsPass.embedding

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        try:
            target = get_target(self.target)
        except TargetError as e:
            raise PassFailedException(f"graph-to-queue: {e}") from e
        sms = grid_size(self.name, target, self.sms)
        tasks = sms if not self.tasks and not target.is_cuda else self.tasks
        chosen = {self.weights, self.head, self.embedding} != {"none"}
        attention_output: AttentionOutput = "whole"
        if self.fuse_attention:
            attention_output = "fused" if self.parts == 1 else "split"
        if chosen:
            run_passes(ctx, op, (QuantizeWeightsPass(self.weights, self.head, self.embedding),))
        if self.fuse_attention:
            _check_attention_output(op)
        run_passes(
            ctx,
            op,
            (
                GraphToTaskPass(self.rows, tasks, self.columns, self.widest, 0 if tasks else sms, attention_output),
                *(() if self.outputs else (DropOutputsPass(),)),
                TaskToQueuePass(
                    self.target,
                    self.sms,
                    self.parts,
                    self.block,
                    self.handoff,
                    self.stages,
                    self.bytes,
                    self.in_flight,
                ),
            ),
        )


def _check_attention_output(module: ModuleOp) -> None:
    """Raises PassFailedException if what multiplies an attention has quantised weights: their tiles are whole rows, which
    split-attention-output cannot divide by heads."""
    for op in module.walk():
        if not isinstance(op, graph.LinearOp) or not isinstance(op.x.owner, graph.AttentionOp):
            continue
        weight = SymbolTable.lookup_symbol(op, op.weight)
        assert isinstance(weight, graph.WeightOp), "the module was verified"
        element = weight.type.get_element_type()
        if isinstance(element, QuantizedType):
            name = weight.sym_name.data
            raise PassFailedException(
                f"graph-to-queue: fuse-attention=true: @{name}, which multiplies the attention, is {element.format}: "
                f"quantised weights cannot be divided by heads; leave fuse-attention out, or keep @{name}"
            )
