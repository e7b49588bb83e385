"""Files and folders that appear whole or not at all, on a full disk and after Ctrl-C too."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
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


def check_place(path: Path) -> None:
    """Raises StorageError, before long work, if no file or folder `path` can be made: where it, or the first of its folders
    that is missing, would be made is no folder, or one that may not be written to."""
    parent = Path(os.path.realpath(path)).parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise storage_error(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise storage_error(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that others see the old content or the new, never a part; raises StorageError.

    A symbolic link stays one: the file that it names is written. What is no regular file (a device, a fifo,
    /dev/stdout) is written as it is and never replaced.
    """
    temporary: str | None = None
    try:
        if is_special(path):
            with path.open("wb") as file:
                file.write(content)
            return
        final = Path(os.path.realpath(path))
        mode = final.stat().st_mode & 0o777 if final.exists() else 0o666 & ~_umask()
        descriptor, temporary = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(temporary, mode)
        os.replace(temporary, final)
    except BaseException as e:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(e, OSError) and not isinstance(e, BrokenPipeError):  # the reader of a fifo has seen enough
            raise storage_error(path, e) from e
        raise


def is_special(path: Path) -> bool:
    """Whether `path` is something else than a regular file, or a way to an open one (/dev/stdout)."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False
    return not regular or path.absolute().parts[1:2] in (("dev",), ("proc",))


@contextmanager
def new_folder(path: Path) -> Generator[Path]:
    """A temporary folder to fill, which becomes `path` at the end of the block, or goes away if that fails.

    An existing `path` is replaced only by a rename, after the block; of a symbolic link, what it names. Raises
    StorageError.
    """
    temporary: Path | None = None
    try:
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists():
            retired = temporary.with_name(temporary.name + ".old")
            os.rename(path, retired)
            try:
                os.rename(temporary, path)
            except OSError:
                with suppress(OSError):  # another process was quicker, or what was there comes back
                    os.rename(retired, path)
                shutil.rmtree(retired, ignore_errors=True)
                raise
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
    """The process's umask. To ask the system call for it is to set it, which other threads would notice."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except OSError:
        pass
    mask = os.umask(0)
    os.umask(mask)
    return mask
