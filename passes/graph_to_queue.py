"""`graph-to-queue`: the whole way from a model to a kernel, ready for verify-schedule and a backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.errors import TargetError
from ..amk_ir.targets import get_target
from ..dialects.task import AttentionOp, MatmulOp
from .drop_outputs import DropOutputsPass
from .family_bodies import programs
from .graph_to_task import AttentionOutput, GraphToTaskPass
from .insert_sync import Handoff
from .pipeline import Pipeline, run_passes
from .place_tasks import grid_size
from .quantize_weights import QuantizeWeightsPass
from .scale_room import scale_room
from .split_products import SplitProductsPass
from .stage_size import USUAL_BYTES, stage_bytes
from .task_to_queue import TaskToQueuePass

FuseAttention = Literal["auto", "always", "never"]
"""Whether the tasks of the product that follows an attention attend themselves: `auto` does so on GPUs."""


@dataclass(frozen=True)
class GraphToQueuePass(ModulePass, Pipeline):
    """quantize-weights if any are to be, graph-to-task and task-to-queue, with their options.

    weights, head, embedding: as `format`, `head` and `embedding` of quantize-weights; `none` leaves them as they are.

    With tasks=0, targets that run on virtual SMs (`reference`) get one task an SM and family, because each task costs
    their interpreter much more than its arithmetic; GPUs get tiles of `rows` rows. fuse-attention: `auto` (on GPUs) fuses
    attention-output of graph-to-task, or splits it if attention is divided into parts; models whose tasks would have too many
    rows, or cut the groups of quantised weights, stay as they are (split-attention-output). `always` refuses these, `never`
    fuses nothing. bytes: of a ring stage; 0: 24576 on GPUs with shared memory for six of these if eight whole rows of every
    matrix, in bf16, fit into one, else 16384. product-values: as `values` of split-products, on GPUs. outputs=false:
    drop-outputs, all of them, between the two.
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
    bytes: int = 0
    in_flight: int = TaskToQueuePass.in_flight
    fuse_attention: FuseAttention = "auto"
    product_values: int = SplitProductsPass.values
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
        if self.fuse_attention == "always" or (self.fuse_attention == "auto" and target.is_cuda):
            attention_output = "fused" if self.parts == 1 else "split"
        bytes = self.bytes or (stage_bytes(op, target) if target.is_cuda else USUAL_BYTES)
        if chosen:
            run_passes(ctx, op, (QuantizeWeightsPass(self.weights, self.head, self.embedding),))
        product_values = self.product_values if target.is_cuda else 0
        tiles = GraphToTaskPass(
            self.rows, tasks, self.columns, self.widest, 0 if tasks else sms, attention_output, product_values
        )
        run_passes(ctx, op, (tiles,))
        if self.fuse_attention == "always" and attention_output == "fused":
            _check_fused(op)
        # with the outputs: a kernel without them shares weights with one that has them
        room = max((scale_room(program, bytes) for program in programs(op)), default=0) if target.is_cuda else 0
        run_passes(
            ctx,
            op,
            (
                *(() if self.outputs else (DropOutputsPass(),)),
                TaskToQueuePass(
                    self.target,
                    self.sms,
                    self.parts,
                    self.block,
                    self.handoff,
                    self.stages,
                    bytes,
                    self.in_flight,
                    room,
                ),
            ),
        )


def _check_fused(module: ModuleOp) -> None:
    """Raises PassFailedException if no task of a program of one token attends and multiplies."""
    for program in programs(module):
        bodies = [{type(op) for op in family.body.block.ops} for family in program.families.values()]
        if program.tokens.value.data == 1 and not any({AttentionOp, MatmulOp} <= kinds for kinds in bodies):
            raise PassFailedException(
                "graph-to-queue: fuse-attention=always: no product can take the attention before it: its tasks would have too "
                "many rows, or heads cut the groups of its quantised weights; with auto, it stays whole"
            )
