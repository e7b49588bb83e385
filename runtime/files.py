"""Files and folders that appear whole or not at all, on a full disk and after Ctrl-C too."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..amk_ir.errors import StorageError


def storage_error(path: Path, error: OSError) -> StorageError:
    """The typed form of an `error` met while writing `path`."""
    what_to_do = {
        errno.ENOSPC: "free some space, or choose another place",
        errno.EDQUOT: "free some of the quota, or choose another place",
        errno.EACCES: "choose a place that you may write to",
        errno.EROFS: "choose a place that can be written to",
    }.get(error.errno or 0, "nothing was written")
    return StorageError(f"{path}: cannot write: {error.strerror or error}; {what_to_do}")


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that others see the old content or the new, never a part; raises StorageError."""
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as e:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise storage_error(path, e) from e
        raise


@contextmanager
def new_folder(path: Path) -> Generator[Path]:
    """A temporary folder to fill, which becomes `path` at the end of the block, or goes away if that fails.

    An existing `path` is replaced only by a rename, after the block; raises StorageError.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists():
            retired = temporary.with_name(temporary.name + ".old")
            os.rename(path, retired)
            os.rename(temporary, path)
            shutil.rmtree(retired)
        else:
            os.rename(temporary, path)
    except BaseException as e:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(e, OSError):
            raise storage_error(path, e) from e
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
