"""What AMK adds to xDSL: dialects, passes and targets, each behind a getter that imports it when it is used.

`amk-opt` and the stock `xdsl-opt` know these through `universe.py`. Starting a tool must not import all of
AMK, so nothing is imported here but types. Alphabetical order; a test compares each key with the name of what
its getter returns, and the passes with the files in passes/.
"""

from __future__ import annotations

from collections.abc import Callable

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.utils.target import Target


def get_all_dialects() -> dict[str, Callable[[], Dialect]]:
    """All dialects of AMK by name."""

    def get_amk():
        from ..dialects.amk import Amk

        return Amk

    def get_graph():
        from ..dialects.graph import Graph

        return Graph

    def get_queue():
        from ..dialects.queue import Queue

        return Queue

    def get_task():
        from ..dialects.task import Task

        return Task

    return {
        "amk": get_amk,
        "graph": get_graph,
        "queue": get_queue,
        "task": get_task,
    }


def get_all_passes() -> dict[str, Callable[[], type[ModulePass]]]:
    """All passes of AMK by name."""

    def get_convert_graph_to_task():
        from ..passes.convert_graph_to_task import ConvertGraphToTaskPass

        return ConvertGraphToTaskPass

    def get_drop_outputs():
        from ..passes.drop_outputs import DropOutputsPass

        return DropOutputsPass

    def get_expand_queues():
        from ..passes.expand_queues import ExpandQueuesPass

        return ExpandQueuesPass

    def get_fuse_into_consumer():
        from ..passes.fuse_into_consumer import FuseIntoConsumerPass

        return FuseIntoConsumerPass

    def get_fuse_into_producer():
        from ..passes.fuse_into_producer import FuseIntoProducerPass

        return FuseIntoProducerPass

    def get_graph_to_queue():
        from ..passes.graph_to_queue import GraphToQueuePass

        return GraphToQueuePass

    def get_graph_to_task():
        from ..passes.graph_to_task import GraphToTaskPass

        return GraphToTaskPass

    def get_insert_missing_sync():
        from ..passes.insert_missing_sync import InsertMissingSyncPass

        return InsertMissingSyncPass

    def get_insert_sync():
        from ..passes.insert_sync import InsertSyncPass

        return InsertSyncPass

    def get_place_tasks():
        from ..passes.place_tasks import PlaceTasksPass

        return PlaceTasksPass

    def get_plan_stream():
        from ..passes.plan_stream import PlanStreamPass

        return PlanStreamPass

    def get_quantize_weights():
        from ..passes.quantize_weights import QuantizeWeightsPass

        return QuantizeWeightsPass

    def get_split_argmax():
        from ..passes.split_argmax import SplitArgmaxPass

        return SplitArgmaxPass

    def get_split_attention():
        from ..passes.split_attention import SplitAttentionPass

        return SplitAttentionPass

    def get_split_attention_output():
        from ..passes.split_attention_output import SplitAttentionOutputPass

        return SplitAttentionOutputPass

    def get_split_products():
        from ..passes.split_products import SplitProductsPass

        return SplitProductsPass

    def get_task_to_queue():
        from ..passes.task_to_queue import TaskToQueuePass

        return TaskToQueuePass

    def get_tile_tasks():
        from ..passes.tile_tasks import TileTasksPass

        return TileTasksPass

    def get_verify_schedule():
        from ..passes.verify_schedule import VerifySchedulePass

        return VerifySchedulePass

    return {
        "convert-graph-to-task": get_convert_graph_to_task,
        "drop-outputs": get_drop_outputs,
        "expand-queues": get_expand_queues,
        "fuse-into-consumer": get_fuse_into_consumer,
        "fuse-into-producer": get_fuse_into_producer,
        "graph-to-queue": get_graph_to_queue,
        "graph-to-task": get_graph_to_task,
        "insert-missing-sync": get_insert_missing_sync,
        "insert-sync": get_insert_sync,
        "place-tasks": get_place_tasks,
        "plan-stream": get_plan_stream,
        "quantize-weights": get_quantize_weights,
        "split-argmax": get_split_argmax,
        "split-attention": get_split_attention,
        "split-attention-output": get_split_attention_output,
        "split-products": get_split_products,
        "task-to-queue": get_task_to_queue,
        "tile-tasks": get_tile_tasks,
        "verify-schedule": get_verify_schedule,
    }


def get_all_targets() -> dict[str, Callable[[], type[Target]]]:
    """All output formats of AMK by name (`amk-opt -t NAME`)."""

    def get_cuda_source():
        from ..backends.cuda.target import CudaSourceTarget

        return CudaSourceTarget

    return {
        "cuda-source": get_cuda_source,
    }
