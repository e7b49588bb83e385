"""A compiled model on disk: a folder of files and a manifest with the SHA-256 of each.

| file           | what it is                                             |
|----------------|--------------------------------------------------------|
| manifest.json  | model, target, shapes, and size and digest of each file |
| plan.mlir      | the verified `queue.kernel`                            |
| kernel.cu      | the CUDA source, all device code included              |
| kernel.cubin   | what NVRTC made of it                                  |
| kernel.log     | its report: registers, spills, shared memory           |
| far.*, chunk.* | the same four files of the other kernels, if there are |
| weights.bin    | the weights as the kernels stream them                 |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..amk_ir.errors import ArtifactError
from .backend import Progress, no_progress
from .files import check_place, new_folder

FORMAT = 2
"""Version of the manifest; another one is refused."""
MANIFEST = "manifest.json"
KERNEL_FILES = ("plan.mlir", "kernel.cu", "kernel.cubin", "kernel.log")
"""Files of each kernel."""
KERNEL_PREFIXES = {"step": "", "far": "far.", "chunk": "chunk."}
"""What the names of a kernel's files begin with: of the kernel for one token, for later positions, for prompts."""
FILES = (*(prefix + name for prefix in KERNEL_PREFIXES.values() for name in KERNEL_FILES), "weights.bin")
"""All that AMK writes beside the manifest; a folder with other files in it is not replaced."""
_CHUNK = 1 << 24

Content: TypeAlias = bytes | Iterable[bytes | memoryview]
"""A file: its bytes, or pieces of it that are written as they come."""


@dataclass(frozen=True)
class Artifact:
    """A compiled model: its folder, and its manifest, whose digests were compared with the files."""

    folder: Path
    manifest: Mapping[str, Any]

    def path(self, name: str) -> Path:
        """The file called `name`; ArtifactError if it is not part of the artifact."""
        if name not in self.manifest["files"]:
            raise ArtifactError(f"{self.folder}: has no {name}; compile the model again")
        return self.folder / name

    def read(self, name: str) -> bytes:
        """The content of the file called `name`."""
        return self.path(name).read_bytes()


def is_artifact(folder: Path) -> bool:
    """Whether `folder` looks like a compiled model."""
    return (folder / MANIFEST).is_file()


def check_writable(folder: Path) -> None:
    """Raises, before long work, what `write_artifact` would raise for `folder` as it is now."""
    if folder.exists() and not is_artifact(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: exists and is not a compiled model; it is not overwritten: choose another name")
    if folder.exists() and (others := sorted(p.name for p in folder.iterdir() if p.name not in (MANIFEST, *FILES))):
        raise ArtifactError(
            f"{folder}: has files that are not of a compiled model, such as {others[0]}; it is not overwritten: "
            "choose another name"
        )
    check_place(folder)


def write_artifact(
    folder: Path, facts: Mapping[str, Any], files: Mapping[str, Content], progress: Progress = no_progress
) -> Artifact:
    """Writes a compiled model. `facts` go into the manifest (JSON values); `folder` is replaced if it is an artifact,
    whole or damaged.

    Raises:
        ArtifactError: `folder` exists and is something else, or has files that AMK does not write.
        StorageError: it cannot be written; what was there before is still there.
    """
    check_writable(folder)
    with new_folder(folder) as temporary:
        entries: dict[str, dict[str, object]] = {}
        for done, (name, content) in enumerate(files.items()):
            progress("writing", done, len(files))
            entries[name] = _write(temporary / name, content)
        manifest = {"format": FORMAT, **facts, "files": entries}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    progress("writing", len(files), len(files))
    return Artifact(folder, manifest)


def read_artifact(folder: Path, progress: Progress = no_progress) -> Artifact:
    """A compiled model, each file compared with the manifest.

    Raises:
        ArtifactError: not a compiled model, of another format version, or a file that is missing or was changed.
    """
    manifest = read_manifest(folder)
    files = manifest["files"]
    for done, (name, entry) in enumerate(files.items()):
        progress("checking", done, len(files))
        _check(folder / name, entry)
    progress("checking", len(files), len(files))
    return Artifact(folder, manifest)


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """The manifest of a compiled model, whose files are not looked at; ArtifactError as `read_artifact`."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no {MANIFEST}; expected a folder written by `amk compile`") from None
    except (OSError, ValueError) as e:
        raise ArtifactError(f"{folder / MANIFEST}: cannot be read: {e}; compile the model again") from e
    match manifest:
        case {"format": int(version), "files": dict()}:
            if version != FORMAT:
                raise ArtifactError(f"{folder}: expected manifest format {FORMAT}, found {version}; compile it again")
        case _:
            raise ArtifactError(f"{folder / MANIFEST}: not a manifest of AMK; compile the model again")
    return manifest


def _write(path: Path, content: Content) -> dict[str, object]:
    """Writes a file and returns its entry in the manifest."""
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in (content,) if isinstance(content, bytes) else content:
            file.write(piece)
            hasher.update(piece)
            size += memoryview(piece).nbytes
    return {"bytes": size, "sha256": hasher.hexdigest()}


def file_digest(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            hasher.update(piece)
    return hasher.hexdigest()


def _check(path: Path, entry: Any) -> None:
    try:
        found = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    except OSError as e:
        raise ArtifactError(f"{path}: cannot be read: {e.strerror or e}; compile the model again") from e
    if found != entry:
        raise ArtifactError(f"{path}: was changed or damaged since it was compiled; compile the model again")
