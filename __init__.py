"""AMK: compiles a Hugging Face causal language model into one persistent GPU kernel.

    import amk

    for piece in amk.generate("smollm2-135m-instruct", "Hello"):   # streams text
        print(piece, end="")

    model = amk.import_model("path/to/model", weight_dtype="bf16")  # a graph.model with its checkpoint
    amk.compile(model, "sm_90a", directory="build")                 # plan, kernel, cubin, packed weights, manifest
    with amk.open_session(model) as session:                        # token ids in, token ids out
        ids = list(session.generate([1, 2, 3], max_tokens=8))

Everything is imported when it is first used: `import amk` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .amk_ir.errors import AmkError
    from .frontends.import_model import ImportedModel, import_model
    from .frontends.tokenizer import load_tokenizer
    from .runtime.sampling import Sampling
    from .runtime.session import Session
    from .tools.api import compile, generate, open_compiled, open_session

__version__ = "0.1.0"

_HOME = {
    "AmkError": "amk_ir.errors",
    "ImportedModel": "frontends.import_model",
    "Sampling": "runtime.sampling",
    "Session": "runtime.session",
    "compile": "tools.api",
    "generate": "tools.api",
    "import_model": "frontends.import_model",
    "load_tokenizer": "frontends.tokenizer",
    "open_compiled": "tools.api",
    "open_session": "tools.api",
}
"""The module of each public name, relative to this package."""

__all__ = [
    "AmkError",
    "ImportedModel",
    "Sampling",
    "Session",
    "compile",
    "generate",
    "import_model",
    "load_tokenizer",
    "open_compiled",
    "open_session",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
