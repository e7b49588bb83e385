"""`graph-to-task`: the pipeline from the graph level to tiled and fused tasks."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.transforms.canonicalize import CanonicalizePass

from .convert_graph_to_task import ConvertGraphToTaskPass
from .fuse_into_consumer import FuseIntoConsumerPass
from .fuse_into_producer import FuseIntoProducerPass
from .pipeline import run_passes
from .tile_tasks import TileTasksPass


@dataclass(frozen=True)
class GraphToTaskPass(ModulePass):
    """canonicalize, convert-graph-to-task, fuse-into-consumer, fuse-into-producer, tile-tasks.

    rows, tasks, columns, widest, sms: as in tile-tasks.
    """

    name = "graph-to-task"

    rows: int = TileTasksPass.rows
    tasks: int = TileTasksPass.tasks
    columns: int = TileTasksPass.columns
    widest: int = TileTasksPass.widest
    sms: int = TileTasksPass.sms

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        run_passes(
            ctx,
            op,
            (
                CanonicalizePass(),
                ConvertGraphToTaskPass(),
                FuseIntoConsumerPass(),
                FuseIntoProducerPass(),
                TileTasksPass(self.rows, self.tasks, self.columns, self.widest, self.sms),
            ),
        )
