"""The compile cache stays within its size, and several processes may use it at once."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from amk.amk_ir.errors import AmkWarning, UsageError
from amk.runtime import cache_size, files
from amk.runtime.cache import CompileCache
from amk.runtime.cache_size import SIZE_VARIABLE, size_limit

SIZE = 10_000


def keys(count: int) -> list[str]:
    return [CompileCache.key(str(number)) for number in range(count)]


def age(cache: CompileCache, key: str, seconds: float) -> None:
    """Makes the entry of `key` one that was last used `seconds` ago."""
    then = time.time() - seconds
    os.utime(cache.folder / key[:2] / key[2:] / "checksums.json", (then, then))


def hidden(folder: Path) -> list[Path]:
    """What was left of entries that were being written or evicted."""
    return [path for path in folder.glob("*/*") if path.name.startswith(".")]


def test_what_was_not_used_for_the_longest_time_goes(tmp_path: Path):
    cache = CompileCache(tmp_path, limit=3 * SIZE + SIZE // 2)
    a, b, c, d, e = keys(5)
    for seconds, key in ((30, a), (20, b), (10, c)):
        cache.put(key, {"kernel.cubin": bytes(SIZE)})
        age(cache, key, seconds)
    assert cache.get(a) is not None, "which is a use"
    cache.put(d, {"kernel.cubin": bytes(SIZE)})
    assert [cache.get(key) is not None for key in (a, b, c, d)] == [True, False, True, True]
    cache.put(e, {"kernel.cubin": bytes(3 * SIZE)})
    assert [cache.get(key) is not None for key in (a, b, c, d, e)] == [False, False, False, False, True]
    assert not hidden(tmp_path)


def test_the_newest_is_kept_whatever_its_size(tmp_path: Path):
    cache = CompileCache(tmp_path, limit=SIZE)
    first, second = keys(2)
    cache.put(first, {"x": bytes(SIZE // 2)})
    cache.put(second, {"x": bytes(5 * SIZE)})
    assert cache.get(first) is None
    assert cache.get(second) == {"x": bytes(5 * SIZE)}


def test_no_cache_at_all(tmp_path: Path):
    cache = CompileCache(tmp_path, limit=0)
    (key,) = keys(1)
    cache.put(key, {"x": b"1"})
    assert cache.get(key) is None
    assert not any(tmp_path.iterdir())


def test_other_files_stay(tmp_path: Path):
    """What `amk tune` found lies in the same folder."""
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "gpu.json").write_bytes(bytes(2 * SIZE))
    (tmp_path / "readme").write_bytes(bytes(2 * SIZE))
    cache = CompileCache(tmp_path, limit=SIZE)
    for key in keys(3):
        cache.put(key, {"x": bytes(SIZE)})
    assert (tmp_path / "tuned" / "gpu.json").exists()
    assert (tmp_path / "readme").exists()
    assert [cache.get(key) is not None for key in keys(3)] == [False, False, True]


def test_damaged_entries_go_first(tmp_path: Path):
    cache = CompileCache(tmp_path, limit=2 * SIZE + SIZE // 2)
    a, b, c = keys(3)
    cache.put(a, {"x": bytes(SIZE)})
    cache.put(b, {"x": bytes(SIZE)})
    age(cache, a, 100)
    (tmp_path / b[:2] / b[2:] / "checksums.json").unlink()
    cache.put(c, {"x": bytes(SIZE)})
    assert [cache.get(key) is not None for key in (a, b, c)] == [True, False, True]
    assert not (tmp_path / b[:2] / b[2:]).exists()


def test_folders_of_killed_processes_go(tmp_path: Path):
    cache = CompileCache(tmp_path, limit=SIZE)
    (key,) = keys(1)
    old, fresh = tmp_path / key[:2] / ".old.x1", tmp_path / key[:2] / ".fresh.x2"
    for folder in (old, fresh):
        folder.mkdir(parents=True)
        (folder / "kernel.cubin").write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.put(key, {"x": b"1"})
    assert (old.exists(), fresh.exists()) == (False, True), "the other may still be written"


def test_what_cannot_be_removed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = CompileCache(tmp_path, limit=SIZE)
    first, second = keys(2)
    cache.put(first, {"x": bytes(SIZE)})
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(source).name == first[2:]:
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(cache_size.os, "rename", refuse)
    cache.put(second, {"x": bytes(SIZE)})
    assert cache.get(first) is not None
    assert cache.get(second) is not None
    assert not hidden(tmp_path)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000", 1000), ("3K", 3072), ("5m", 5 << 20), ("4G", 4 << 30), ("1TB", 1 << 40), ("", 2 << 30)],
)
def test_sizes(monkeypatch: pytest.MonkeyPatch, text: str, size: int):
    monkeypatch.setenv(SIZE_VARIABLE, text)
    assert size_limit() == size == CompileCache(Path("x")).limit


@pytest.mark.parametrize("text", ["-1", "big", "1.5G", "G"])
def test_what_is_no_size(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv(SIZE_VARIABLE, text)
    with pytest.raises(UsageError, match=r"AMK_CACHE_SIZE: expected a number of bytes.*found"):
        CompileCache()


def test_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(SIZE_VARIABLE, raising=False)
    assert size_limit() == 2 << 30


def test_another_process_was_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same entry appears between the look whether it is there and the rename."""
    cache = CompileCache(tmp_path, limit=SIZE)
    (key,) = keys(1)
    entry = tmp_path / key[:2] / key[2:]
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        if Path(target) == entry and not entry.exists():
            monkeypatch.setattr(files.os, "rename", rename)
            CompileCache(tmp_path, limit=SIZE).put(key, {"x": b"1"})
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", late)
    cache.put(key, {"x": b"1"})
    assert cache.get(key) == {"x": b"1"}
    assert not hidden(tmp_path)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(AmkWarning, match="No space left"):
        CompileCache(tmp_path, limit=SIZE).put(keys(1)[0], {"x": b"1"})


def put_and_get(folder: Path, number: int, failed: Callable[[str], None]) -> None:
    """Many entries, some the same as those of other processes, in a cache with room for three."""
    cache = CompileCache(folder, limit=3 * SIZE + SIZE // 2)
    try:
        for turn in range(60):
            name = (turn * 7 + number) % 8
            key = cache.key(str(name))
            content = {"kernel.cubin": bytes([name]) * SIZE, "kernel.log": str(name).encode()}
            found = cache.get(key)
            if found is None:
                cache.put(key, content)
            elif found != content:
                failed(f"process {number} found a part of entry {name}")
    except BaseException as e:
        failed(f"process {number}: {e!r}")


def test_processes_do_not_disturb_each_other(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        failures = manager.list()
        processes = [
            context.Process(target=put_and_get, args=(tmp_path, number, failures.append)) for number in range(4)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
            assert process.exitcode == 0
        assert list(failures) == []
    assert not hidden(tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size <= 5 * (SIZE + 500), "each process may have stored one since the last count"
