"""What a measurement was made with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "amk",
    "xdsl",
    "numpy",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
    "torch",
    "transformers",
)

_ROOT = Path(__file__).parents[2]
_GPU_FACTS = "name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.mem"


def environment() -> dict[str, Any]:
    """Machine, GPU (as nvidia-smi describes it), versions and commit; None for what cannot be found out."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "gpu": _run("nvidia-smi", f"--query-gpu={_GPU_FACTS}", "--format=csv,noheader"),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of AMK's checkout; None where it is installed, whatever repository the folder lies in."""
    top = _run("git", "-C", str(_ROOT), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != _ROOT.resolve():
        return None
    return _run("git", "-C", str(_ROOT), "describe", "--always", "--dirty")


def _run(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str | None:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return None
