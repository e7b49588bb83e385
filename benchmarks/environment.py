"""What a measurement was made with, and where it is written."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "xdsl",
    "numpy",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
    "torch",
    "transformers",
)


def environment() -> dict[str, Any]:
    """Machine, GPU, driver, versions and commit."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "gpu": _run("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _run("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
    }


def write(path: str | None, benchmark: str, results: Any) -> None:
    """Writes `results` with the environment to `path`, through a temporary name; nothing without a path."""
    if path is None:
        return
    target = Path(path)
    temporary = target.with_name(target.name + ".partial")
    record = {"benchmark": benchmark, "environment": environment(), "results": results}
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(target)


def _run(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
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
