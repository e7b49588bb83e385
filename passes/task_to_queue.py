"""`task-to-queue`: the pipeline from tasks to a synchronised kernel for one target."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from .insert_sync import Handoff, InsertSyncPass
from .pipeline import run_passes
from .place_tasks import PlaceTasksPass
from .plan_stream import PlanStreamPass


@dataclass(frozen=True)
class TaskToQueuePass(ModulePass):
    """place-tasks, insert-sync, plan-stream, with their options."""

    name = "task-to-queue"

    target: str = PlaceTasksPass.target
    sms: int = PlaceTasksPass.sms
    handoff: Handoff = InsertSyncPass.handoff
    stages: int = PlanStreamPass.stages
    bytes: int = PlanStreamPass.bytes
    in_flight: int = PlanStreamPass.in_flight

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        run_passes(
            ctx,
            op,
            (
                PlaceTasksPass(self.target, self.sms),
                InsertSyncPass(self.handoff),
                PlanStreamPass(self.stages, self.bytes, self.in_flight),
            ),
        )
