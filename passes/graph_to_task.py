"""`graph-to-task`: the pipeline from the graph level to tiled and fused tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.transforms.canonicalize import CanonicalizePass

from .convert_graph_to_task import ConvertGraphToTaskPass
from .family_bodies import steps_have_one_token
from .fuse_into_consumer import FuseIntoConsumerPass
from .fuse_into_producer import FuseIntoProducerPass
from .pipeline import Pipeline, run_passes
from .split_attention_output import SplitAttentionOutputPass
from .split_products import SplitProductsPass
from .tile_tasks import TileTasksPass

AttentionOutput = Literal["whole", "split", "fused"]
"""Whether the product that follows an attention is split by KV heads, and the attention then put before each of its tasks."""


@dataclass(frozen=True)
class GraphToTaskPass(ModulePass, Pipeline):
    """canonicalize, convert-graph-to-task, fuse-into-consumer, fuse-into-producer, tile-tasks.

    rows, tasks, columns, widest, sms: as in tile-tasks. attention_output=split: split-attention-output before tile-tasks, for as
    many tasks as there are SMs; of one token, also the sums of its parts into their readers (of several, each reader would
    wait for too many words). attention_output=fused: after tile-tasks also the attention into the products, which repeat it.
    product_values: as `values` of split-products, which comes last.
    """

    name = "graph-to-task"

    rows: int = TileTasksPass.rows
    tasks: int = TileTasksPass.tasks
    columns: int = TileTasksPass.columns
    widest: int = TileTasksPass.widest
    sms: int = TileTasksPass.sms
    attention_output: AttentionOutput = "whole"
    product_values: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        run_passes(
            ctx,
            op,
            (
                CanonicalizePass(),
                ConvertGraphToTaskPass(),
                FuseIntoConsumerPass(),
                FuseIntoProducerPass(),
            ),
        )
        if self.attention_output != "whole":
            steps: list[ModulePass] = [
                SplitAttentionOutputPass(self.tasks or self.sms or SplitAttentionOutputPass.tasks)
            ]
            if steps_have_one_token(op):
                steps.append(FuseIntoConsumerPass(("add", "sum_parts")))
            run_passes(ctx, op, steps)
        fused = (FuseIntoConsumerPass(("attention",)),) if self.attention_output == "fused" else ()
        run_passes(
            ctx,
            op,
            (
                TileTasksPass(self.rows, self.tasks, self.columns, self.widest, self.sms),
                *fused,
                SplitProductsPass(self.product_values, self.sms or SplitProductsPass.sms),
            ),
        )
