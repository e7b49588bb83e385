"""How long something takes, whatever else the machine does."""

import os


def cpu_seconds() -> float:
    """CPU time of this process and of the processes that it has waited for; the difference of two is what counts."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
