"""What `amk tune` found: for a GPU, a target and a shape, the pass options that were fastest. One JSON file each.

They lie in the folder `tuned` of the compile cache, and count only for the AMK that wrote them: another one may lower
the same options to another kernel.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..amk_ir.errors import StorageError, UsageError
from ..dialects.graph import WeightOp
from ..frontends.import_model import ImportedModel
from .cache import CACHE_VARIABLE, cache_folder, compiler_fingerprint, digest
from .files import check_place, storage_error, write_atomically
from .footprint import model_of

if TYPE_CHECKING:
    from .pass_options import PassOptions

FORMAT = 1
"""Version of the records; others are not read."""

_NO_MATTER = ("norm_eps", "rope", "max_position", "untied")
"""Fields of a `DecoderConfig` that do not change what a step costs."""


@dataclass(frozen=True)
class TunedRecord:
    """The fastest options that were found.

    gpu: the driver's name of it. num_sms: SMs that it has. shape: see `tuned_shape`. options: those that are not
    defaults. sms: size of the grid, None for all. contexts: the positions at which steps were timed, and the
    microseconds of a step at each, of the defaults and of these options.
    """

    gpu: str
    target: str
    num_sms: int
    shape: Mapping[str, Any]
    options: PassOptions
    sms: int | None
    contexts: tuple[int, ...]
    default_us: tuple[float, ...]
    tuned_us: tuple[float, ...]
    path: Path | None = None


def tuned_shape(model: ImportedModel) -> dict[str, Any]:
    """What a model's best options depend on: its dimensions and dtypes, by name, in a fixed order.

    weight_types: a digest of the types of all weights, which do not all have the same one.
    """
    shape = {f.name: getattr(model.config, f.name) for f in dataclasses.fields(model.config)}
    shape = {name: value for name, value in shape.items() if name not in _NO_MATTER}
    types = [
        f"{op.sym_name.data} {op.type}" for op in model_of(model.module).body.block.ops if isinstance(op, WeightOp)
    ]
    digits = digest("\n".join(types).encode())[:12]
    return shape | {"weights": model.weight_dtype, "kv": model.kv_dtype, "weight_types": digits}


class TunedStore:
    """Records by GPU, target and shape. One that is damaged, or of another AMK, is as good as none."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder or cache_folder() / "tuned"

    def path(self, gpu: str, target: str, shape: Mapping[str, Any]) -> Path:
        """Where the record of (gpu, target, shape) is, or would be."""
        return self.folder / f"{_slug(gpu)}.{target}.{_key(shape)}.json"

    def find(self, gpu: str, target: str, shape: Mapping[str, Any]) -> TunedRecord | None:
        """The record for a GPU of this name."""
        record = _read(self.path(gpu, target, shape))
        return record if record is not None and (record.gpu, record.target) == (gpu, target) else None

    def find_all(self, target: str, shape: Mapping[str, Any]) -> Iterator[TunedRecord]:
        """The records of all GPUs of a target."""
        for path in sorted(self.folder.glob(f"*.{target}.{_key(shape)}.json")):
            record = _read(path)
            if record is not None and record.target == target:
                yield record

    def check(self) -> None:
        """Raises StorageError, before long work, if `put` could not store anything."""
        try:
            check_place(self.folder / "record.json")
        except StorageError as e:
            raise StorageError(f"{e} ({CACHE_VARIABLE} says where the cache is)") from e

    def put(self, record: TunedRecord) -> Path:
        """Stores `record` in place of an older one; returns its path. Raises StorageError."""
        path = self.path(record.gpu, record.target, record.shape)
        content = {
            "amk_tuned": FORMAT,
            "amk": compiler_fingerprint(),
            "gpu": record.gpu,
            "target": record.target,
            "num_sms": record.num_sms,
            "shape": dict(record.shape),
            "options": dict(record.options),
            "sms": record.sms,
            "contexts": list(record.contexts),
            "default_us": list(record.default_us),
            "tuned_us": list(record.tuned_us),
        }
        try:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise storage_error(path.parent, e) from e
            write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
        except StorageError as e:
            raise StorageError(f"{e} ({CACHE_VARIABLE} says where the cache is)") from e
        return path


def _key(shape: Mapping[str, Any]) -> str:
    return digest(json.dumps([compiler_fingerprint(), shape], sort_keys=True, default=str).encode())[:16]


def _slug(gpu: str) -> str:
    return re.sub(r"\W+", "-", gpu).strip("-").lower() or "gpu"


def _read(path: Path) -> TunedRecord | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    match content:
        case {
            "amk_tuned": int(version),
            "amk": str(amk),
            "gpu": str(gpu),
            "target": str(target),
            "num_sms": int(num_sms),
            "shape": dict(shape),
            "options": dict(options),
            "sms": int() | None as sms,
            "contexts": [*contexts],
            "default_us": [*default_us],
            "tuned_us": [*tuned_us],
        } if version == FORMAT and amk == compiler_fingerprint():
            pass
        case _:
            return None
    if not all(isinstance(n, int | float) for n in (*contexts, *default_us, *tuned_us)):
        return None
    if not len(contexts) == len(default_us) == len(tuned_us) or (sms is not None and not 1 <= sms <= num_sms):
        return None
    from .pass_options import check_options  # which imports the passes

    try:
        options = check_options({str(name): value for name, value in options.items()}, str(path))
    except UsageError:
        return None
    return TunedRecord(
        gpu, target, num_sms, shape, options, sms, tuple(contexts), tuple(default_us), tuple(tuned_us), path
    )
