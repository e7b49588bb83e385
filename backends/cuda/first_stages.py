"""How many ring stages of a task's weights come into registers before the activations that they are multiplied with."""

from __future__ import annotations

from ...passes.stage_size import USUAL_BYTES
from .activations import gather_of
from .context import EmitContext, attentions_of
from .fragments import FragmentLayout
from .placement import PlacedTasks
from .quantized_fragments import QuantizedLayout
from .values import CONSUMERS

MOST_VECTORS = 6
"""Vectors of bf16 or of codes of a stage that a thread keeps in registers while activations are waited for; of bf16 no more than its
even share of a ring stage, or of one of 16 KiB."""
VECTOR_BYTES = 16
MOST_COLUMNS = 2
"""Tokens whose activations are columns of the n side of mma; as LaneActivations, device/matvec.cuh."""


def first_stages(context: EmitContext, run: PlacedTasks) -> int:
    """How many stages of a task come into registers by a call of their own: the first one, and of bf16 the whole ones after it
    that there is room for."""
    layout, tokens = context.streams[run.name].layout, context.tokens
    if context.segments(run.name, run.most) is not None or not context.loads.is_early:
        return 0
    if isinstance(layout, QuantizedLayout):
        # of more tokens, codes and as many activations are more than fit the registers
        return int(tokens <= MOST_COLUMNS and layout.stage_vectors <= MOST_VECTORS)
    share = max(context.ring.stage_bytes, USUAL_BYTES) // (CONSUMERS * VECTOR_BYTES)
    if layout.stage_vectors > min(MOST_VECTORS, share):
        return 0
    return held_stages(context, layout, layout.k_blocks // layout.chunk_blocks) if tokens == 1 else 1


def held_stages(context: EmitContext, layout: FragmentLayout, stages: int) -> int:
    """How many of so many whole stages fit the registers for weights; at least one."""
    return max(1, min(stages, context.loads.weights // layout.stage_vectors))


def early_bytes(context: EmitContext, run: PlacedTasks) -> int:
    """Bytes of an SM's first weights in a run that are not in its ring any more while it waits for activations."""
    layout = context.streams[run.name].layout
    if not isinstance(layout, FragmentLayout) or attentions_of(run.family) or gather_of(context, run) is not None:
        return 0  # codes may need the scales beside them; else activations are there before weights are taken
    return min(layout.task_bytes, first_stages(context, run) * layout.chunk_bytes)
