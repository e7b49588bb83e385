"""`task-to-queue`: the pipeline from tasks to a synchronised kernel for one target."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.errors import TargetError
from ..amk_ir.targets import get_target
from .family_bodies import steps_have_one_token
from .fuse_into_consumer import FuseIntoConsumerPass
from .insert_sync import Handoff, InsertSyncPass
from .pipeline import Pipeline, run_passes
from .place_tasks import PlaceTasksPass, grid_size
from .plan_stream import PlanStreamPass
from .split_argmax import SplitArgmaxPass
from .split_attention import SplitAttentionPass


@dataclass(frozen=True)
class TaskToQueuePass(ModulePass, Pipeline):
    """split-argmax into as many parts as there are SMs, then split-attention, place-tasks, insert-sync, plan-stream.

    parts, block: of split-attention, with 0 parts as many as it chooses; of one token, what merges them is put into products
    that read the result, if fuse-into-consumer can. The others: options of these passes.
    """

    name = "task-to-queue"

    target: str = PlaceTasksPass.target
    sms: int = PlaceTasksPass.sms
    parts: int = 1
    block: int = SplitAttentionPass.block
    handoff: Handoff = InsertSyncPass.handoff
    stages: int = PlanStreamPass.stages
    bytes: int = PlanStreamPass.bytes
    in_flight: int = PlanStreamPass.in_flight
    room: int = PlanStreamPass.room

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        try:
            target = get_target(self.target)
        except TargetError as e:
            raise PassFailedException(f"task-to-queue: {e}") from e
        sms = grid_size(self.name, target, self.sms)
        merges = self.parts != 1 and steps_have_one_token(op)
        merged = (FuseIntoConsumerPass(("attention_merge",), ("matmul",)),) if merges else ()
        run_passes(
            ctx,
            op,
            (
                SplitArgmaxPass(parts=sms),
                SplitAttentionPass(self.parts, self.block, sms),
                *merged,
                PlaceTasksPass(self.target, self.sms),
                InsertSyncPass(self.handoff),
                PlanStreamPass(self.stages, self.bytes, self.in_flight, self.room),
            ),
        )
