"""Memory that is asked for before it is taken: a few words of a kernel can stand for more than a machine has."""

from __future__ import annotations

import os

from ...amk_ir.errors import UsageError


def require_room(size: int, what: str) -> None:
    """UsageError if `size` bytes for `what` are more than this process can have."""
    if size > (room := available_memory()):
        raise UsageError(
            f"{what} take {size / 2**30:.1f} GiB, this process can have {room / 2**30:.1f} GiB; "
            "use a smaller max_seq or model, or a machine with more memory"
        )


def available_memory() -> int:
    """Bytes that the machine has free for this process, within its limit of addresses (`ulimit -v`)."""
    page = os.sysconf("SC_PAGE_SIZE")
    room = page * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    room = min(room, int(line.split()[1]) << 10)
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            with open("/proc/self/statm", encoding="ascii") as file:
                room = min(room, limit - page * int(file.read().split()[0]))
    except (OSError, ImportError):
        pass  # not Linux: what the machine has in all
    return max(0, room)
