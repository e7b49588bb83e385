"""Compiled models on disk: what is written is read back, and nothing else is taken for it."""

import errno
import json
import os
from pathlib import Path

import pytest

from amk.amk_ir.errors import ArtifactError, StorageError
from amk.runtime.artifacts import MANIFEST, Artifact, check_writable, read_artifact, write_artifact

FACTS = {"model": "tiny", "target": "sm_90a"}


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    pieces = (bytes([i]) * 1000 for i in range(5))
    return write_artifact(tmp_path / "tiny.amk", FACTS, {"plan.mlir": b"plan", "weights.bin": pieces})


def test_what_was_written_is_read(artifact: Artifact):
    found = read_artifact(artifact.folder)
    assert found == artifact
    assert found.manifest["target"] == "sm_90a"
    assert found.read("plan.mlir") == b"plan"
    assert found.path("weights.bin").stat().st_size == found.manifest["files"]["weights.bin"]["bytes"] == 5000
    with pytest.raises(ArtifactError, match=r"has no kernel.cubin"):
        found.path("kernel.cubin")


def test_it_is_replaced(artifact: Artifact):
    write_artifact(artifact.folder, FACTS, {"plan.mlir": b"new"})
    assert {path.name for path in artifact.folder.iterdir()} == {MANIFEST, "plan.mlir"}


def test_other_folders_are_not_replaced(tmp_path: Path):
    (tmp_path / "precious").touch()
    for path in (tmp_path, tmp_path / "precious"):
        with pytest.raises(ArtifactError, match="not a compiled model; it is not overwritten"):
            write_artifact(path, FACTS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_place_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_writable(tmp_path / "some" / "deep" / "place")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file" / "x")
    for name in ("file/x", "file/deep/place", "link"):
        with pytest.raises(StorageError, match=f"{name}: cannot write: Not a directory"):
            check_writable(tmp_path / name)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(
        StorageError, match="new: cannot write: Permission denied; choose a place that you may write to"
    ):
        check_writable(tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}


def test_a_damaged_one_is_replaced(artifact: Artifact):
    (artifact.folder / MANIFEST).write_text("{")
    new = write_artifact(artifact.folder, FACTS, {"plan.mlir": b"new"})
    assert read_artifact(artifact.folder) == new


def test_others_files_are_not_lost(artifact: Artifact):
    (artifact.folder / "precious").touch()
    with pytest.raises(ArtifactError, match="files that are not of a compiled model, such as precious"):
        write_artifact(artifact.folder, FACTS, {})
    assert (artifact.folder / "precious").exists()


@pytest.mark.parametrize("size", [0, 4999, 5001])
def test_a_damaged_file(artifact: Artifact, size: int):
    artifact.path("weights.bin").write_bytes(bytes(size))
    with pytest.raises(ArtifactError, match="weights.bin: was changed or damaged"):
        read_artifact(artifact.folder)


def test_a_flipped_bit(artifact: Artifact):
    path = artifact.path("weights.bin")
    content = bytearray(path.read_bytes())
    content[1234] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="weights.bin: was changed or damaged"):
        read_artifact(artifact.folder)


def test_a_missing_file(artifact: Artifact):
    artifact.path("plan.mlir").unlink()
    with pytest.raises(ArtifactError, match="plan.mlir: cannot be read: No such file"):
        read_artifact(artifact.folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a folder written by `amk compile`"),
        ("{", "cannot be read"),
        ("[]", "not a manifest"),
        (json.dumps({"format": 1, "files": {}}), "expected manifest format 2, found 1; compile it again"),
        (json.dumps({"format": 99, "files": {}}), "expected manifest format 2, found 99"),
    ],
)
def test_a_bad_manifest(tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(tmp_path)


def test_a_full_disk(artifact: Artifact):
    """While the weights are written: the old model stays, the rest of the new one goes."""

    def pieces():
        yield b"x"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device; free some space"):
        write_artifact(artifact.folder, FACTS, {"weights.bin": pieces()})
    assert read_artifact(artifact.folder) == artifact
    assert list(artifact.folder.parent.iterdir()) == [artifact.folder]
