"""The cache and the writing of files: whole or not at all."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amk.amk_ir.errors import AmkWarning, StorageError
from amk.runtime import files
from amk.runtime.cache import CompileCache, cache_folder

FILES = {"kernel.cubin": b"\x7fELF", "plan.mlir": b"builtin.module {}"}


@pytest.fixture
def cache(tmp_path: Path) -> CompileCache:
    return CompileCache(tmp_path / "cache")


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def everything(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_put_is_got(cache: CompileCache):
    key = cache.key("model", "sm_90a")
    assert cache.get(key) is None
    cache.put(key, FILES)
    assert cache.get(key) == FILES
    assert cache.get(cache.key("model", "sm_80")) is None


def test_keys_tell_parts_apart(cache: CompileCache):
    assert cache.key("ab", "c") != cache.key("a", "bc") != cache.key("bc", "a")


@pytest.mark.parametrize("name", ["kernel.cubin", "checksums.json"])
@pytest.mark.parametrize("damage", [b"", b"{}x", None])
def test_a_damaged_entry_is_none(cache: CompileCache, name: str, damage: bytes | None):
    key = cache.key("model")
    cache.put(key, FILES)
    (path,) = (path for path in everything(cache.folder) if path.name == name)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert cache.get(key) is None
    cache.put(key, FILES)
    assert cache.get(key) == FILES, "and is replaced"


def test_a_full_disk_leaves_nothing(cache: CompileCache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.warns(AmkWarning, match=r"cache: the compile cache cannot be written to \(No space left on device\)"):
        cache.put(cache.key("model"), FILES)
    assert not everything(cache.folder)
    assert cache.get(cache.key("model")) is None


def test_an_unusable_cache_is_said_once(tmp_path: Path):
    (tmp_path / "file").touch()
    cache = CompileCache(tmp_path / "file" / "cache")
    with pytest.warns(AmkWarning, match=r"\(Not a directory\).*AMK_CACHE_DIR says where the cache is$"):
        cache.put(cache.key("model"), FILES)
    for number in range(3):  # a second warning would be an error here
        CompileCache(cache.folder).put(cache.key(str(number)), FILES)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model.mlir"
    files.write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(StorageError, match="model.mlir: cannot write: No space left"):
        files.write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["model.mlir"]
    assert path.read_bytes() == b"old"


def test_a_link_stays_a_link(tmp_path: Path):
    (tmp_path / "real").mkdir()
    link, target = tmp_path / "link.mlir", tmp_path / "real" / "model.mlir"
    link.symlink_to(target)
    for content in (b"first: the target is not there yet", b"second"):
        files.write_atomically(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    folder_link = tmp_path / "folder"
    folder_link.symlink_to(tmp_path / "real")
    with files.new_folder(folder_link) as folder:
        (folder / "new").touch()
    assert folder_link.is_symlink()
    assert [p.name for p in (tmp_path / "real").iterdir()] == ["new"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_fifo_is_written_and_stays(tmp_path: Path, linked: bool):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    if linked:
        (tmp_path / "link").symlink_to(fifo)
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(fifo.read_bytes)
        files.write_atomically(tmp_path / "link" if linked else fifo, b"text")
        assert reader.result(timeout=10) == b"text"
    assert fifo.is_fifo()
    assert len(list(tmp_path.iterdir())) == 1 + linked


def test_a_folder_is_not_a_file(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot write: Is a directory"):
        files.write_atomically(tmp_path, b"")


def test_an_old_file_keeps_its_mode(tmp_path: Path):
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o600)
    files.write_atomically(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_interrupt_leaves_the_old_folder(tmp_path: Path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(KeyboardInterrupt), files.new_folder(path) as folder:
        (folder / "new").touch()
        raise KeyboardInterrupt
    assert [p.name for p in everything(tmp_path)] == ["old"]


def test_a_folder_is_replaced(tmp_path: Path):
    path = tmp_path / "deep" / "out"
    for name in ("first", "second"):
        with files.new_folder(path) as folder:
            (folder / name).touch()
    assert [str(p.relative_to(tmp_path)) for p in everything(tmp_path)] == ["deep/out/second"]


def test_new_files_obey_the_umask(tmp_path: Path):
    """mkstemp makes files that only their owner can read."""
    before = os.umask(0o022)
    try:
        files.write_atomically(tmp_path / "file", b"")
        with files.new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMK_CACHE_DIR", "/a/b")
    assert cache_folder() == Path("/a/b")
    monkeypatch.delenv("AMK_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/amk")
