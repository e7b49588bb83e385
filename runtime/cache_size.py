"""The size that the compile cache may have, and what goes when it has more: what was not used for the longest time.

Several processes may store, use and evict at the same time. An entry goes by a rename, so that nobody finds a part of
one; who was about to read it finds none, and compiles again.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..amk_ir.errors import UsageError

SIZE_VARIABLE = "AMK_CACHE_SIZE"
DEFAULT_SIZE = "2G"
STAMP = "checksums.json"
"""The file of an entry whose modification time is when the entry was last used."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_ABANDONED_S = 24 * 3600.0
"""Age from which a temporary folder is one that a process left behind when it was killed."""


@dataclass(frozen=True)
class _Entry:
    folder: Path
    used: int  # nanoseconds
    size: int


def size_limit() -> int:
    """Bytes that the cache may have: AMK_CACHE_SIZE, such as 500M or 4G; UsageError if that is not a size."""
    text = os.environ.get(SIZE_VARIABLE) or DEFAULT_SIZE
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise UsageError(
            f"{SIZE_VARIABLE}: expected a number of bytes, or one with K, M, G or T such as {DEFAULT_SIZE}, found {text!r}"
        )
    return int(match[1]) * _UNITS[match[2]]


def mark_used(entry: Path) -> None:
    """Notes that `entry` is used now. In a cache that cannot be written to nothing is noted, or evicted."""
    with suppress(OSError):
        os.utime(entry / STAMP)


def evict(cache: Path, limit: int, keep: Path) -> list[Path]:
    """Removes entries of the folder `cache` until they have `limit` bytes at most; those that went.

    Those that were not used for the longest time go first; `keep`, the one just stored, goes never. What cannot be
    removed stays: whoever compiles is not to fail for it.
    """
    entries = sorted(_entries(cache), key=lambda entry: entry.used)
    size = sum(entry.size for entry in entries)
    gone: list[Path] = []
    for entry in entries:
        if size <= limit:
            break
        if entry.folder != keep and _remove(entry.folder):
            size -= entry.size
            gone.append(entry.folder)
    return gone


def _entries(cache: Path) -> Iterator[_Entry]:
    """The entries. Folders that were abandoned half-written are removed on the way."""
    for shelf in cache.glob("[0-9a-f][0-9a-f]"):
        with suppress(OSError):  # of a folder that goes meanwhile
            for folder in shelf.iterdir():
                if folder.name.startswith("."):
                    _remove_abandoned(folder)
                elif (entry := _entry(folder)) is not None:
                    yield entry


def _entry(folder: Path) -> _Entry | None:
    try:
        size = sum(path.stat().st_size for path in folder.iterdir())
    except OSError:  # another process evicts it now
        return None
    try:
        used = (folder / STAMP).stat().st_mtime_ns
    except OSError:  # damaged: of no use to anyone
        used = 0
    return _Entry(folder, used, size)


def _remove(folder: Path) -> bool:
    """Removes an entry; whether this process did it."""
    try:
        grave = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError:
        return False
    try:
        os.rename(folder, grave)  # onto an empty folder: no other process has this name
    except OSError:
        with suppress(OSError):
            grave.rmdir()
        return False
    shutil.rmtree(grave, ignore_errors=True)
    return True


def _remove_abandoned(folder: Path) -> None:
    with suppress(OSError):
        if time.time() - folder.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(folder, ignore_errors=True)
