"""The compile cache: what was compiled once, found again by the content of everything that decided it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ..amk_ir.errors import AmkWarning, StorageError
from .cache_size import STAMP, evict, mark_used, size_limit
from .files import new_folder

CACHE_VARIABLE = "AMK_CACHE_DIR"
_CHECKSUMS = STAMP
_unusable: set[Path] = set()
"""Folders of caches that could not be written to, of which a warning has said so."""
_lock = threading.Lock()


def digest(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def cache_folder() -> Path:
    """AMK_CACHE_DIR, or amk/ in the user's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amk"


@cache
def compiler_fingerprint() -> str:
    """A digest of AMK's own code and device code, so that a changed compiler never finds what an older one made."""
    root = Path(__file__).parents[1]
    hasher = hashlib.sha256()
    for folder in ("amk_ir", "backends", "dialects", "frontends", "passes", "runtime"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".cuh"):
                hasher.update(str(path.relative_to(root)).encode())
                hasher.update(path.read_bytes())
    return hasher.hexdigest()


class CompileCache:
    """Sets of named files by key. Entries appear whole; a damaged one is as good as none.

    limit: bytes that all entries may have (None: what AMK_CACHE_SIZE says); beyond it, those go that were not used for the
    longest time (cache_size.py). With 0, nothing is stored.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None):
        self.folder = folder or cache_folder()
        self.limit = size_limit() if limit is None else limit

    @staticmethod
    def key(*parts: str) -> str:
        """The key of what is decided by `parts`, in this order, and by AMK's own code."""
        return digest(json.dumps([compiler_fingerprint(), *parts]).encode())

    def get(self, key: str) -> dict[str, bytes] | None:
        """The files stored under `key`; None if there are none, or if they are not what was stored."""
        entry = self._entry(key)
        try:
            checksums = json.loads((entry / _CHECKSUMS).read_bytes())
            files = {name: (entry / name).read_bytes() for name in checksums}
        except (OSError, ValueError, TypeError):
            return None
        if any(digest(files[name]) != checksums[name] for name in files):
            return None
        mark_used(entry)
        return files

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Stores `files` under `key`, and evicts others if they are too many.

        Where that is not possible nothing is stored, and an AmkWarning says so once: what was compiled is not lost for it.
        """
        if self.limit == 0:
            return
        entry = self._entry(key)
        try:
            with new_folder(entry) as folder:
                for name, content in files.items():
                    (folder / name).write_bytes(content)
                checksums = {name: digest(content) for name, content in files.items()}
                (folder / _CHECKSUMS).write_text(json.dumps(checksums))
        except StorageError as e:
            # Another process stored the same at the same time: its entry is as good, or was evicted since.
            cause = e.__cause__
            if not isinstance(cause, OSError) or cause.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                _warn(self.folder, cause.strerror if isinstance(cause, OSError) and cause.strerror else str(e))
                return
        evict(self.folder, self.limit, entry)

    def _entry(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]


def _warn(folder: Path, reason: str) -> None:
    with _lock:
        is_known = folder in _unusable
        _unusable.add(folder)
    if not is_known:
        warnings.warn(
            f"{folder}: the compile cache cannot be written to ({reason}), so that what is compiled now is compiled again "
            f"next time; {CACHE_VARIABLE} says where the cache is",
            AmkWarning,
            stacklevel=3,
        )
