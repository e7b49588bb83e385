"""How many tasks of several runs an SM has, against counting them."""

from itertools import pairwise

import pytest
from cuda_models import CONFIGS, verified

from amk.backends.cuda.placement import PlacedTasks, most_of_all
from amk.dialects.queue import RunOp


def placed(sms: int, name: str = "gqa") -> list[PlacedTasks]:
    """All runs of the one program of a kernel that have a placement."""
    kernel = verified(CONFIGS[name], sms=sms).kernel
    (program,) = kernel.programs
    families = kernel.families
    return [
        PlacedTasks(op, families[op.family_name], range(sms), number)
        for number, op in enumerate(program.body.walk())
        if isinstance(op, RunOp) and op.placement is not None
    ]


def counted(runs: list[PlacedTasks], layer: int) -> int:
    """The tasks of the SM with the most, one by one."""
    sms = len(runs[0].sms)
    tasks = [0] * sms
    for run in runs:
        offset = run.op.placement.data.offset.evaluate({"layer": layer}) if run.op.placement else 0
        for number in range(run.count):
            tasks[(number + offset) % sms] += 1
    return max(tasks)


@pytest.mark.parametrize("sms", [3, 5, 9, 16, 37])
def test_tasks_of_an_sm(sms: int) -> None:
    runs = placed(sms)
    for first, second in pairwise(runs):
        for layer in (0, 1):
            assert counted([first, second], layer) <= most_of_all([first, second])
        loops = [run.op.placement.data.offset.names for run in (first, second) if run.op.placement]
        if loops[0] == loops[1] and most_of_all([first, second]) < first.most + second.most:
            assert counted([first, second], 1) == most_of_all([first, second])
    q, k, v = (run for run in runs if run.name in ("linear_q", "linear_k", "linear_v"))
    assert most_of_all([q, k, v]) == counted([q, k, v], 1)
