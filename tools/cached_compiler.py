"""NVRTC behind the compile cache."""

from __future__ import annotations

import threading

from ..amk_ir.targets import Target
from ..backends.cuda.nvrtc import Cubin, compile_cubin, nvrtc_version, parse_resources
from ..runtime.cache import CompileCache
from .compiled_folder import CUBIN, LOG


class CachedCompiler:
    """NVRTC behind the compile cache, for several threads. `compiled`: how many cubins were not found there."""

    def __init__(self, cache: CompileCache | None = None):
        self.cache = cache or CompileCache()
        self.compiled = 0
        self._count = threading.Lock()

    def __call__(self, source: str, target: Target, kernel: str) -> Cubin:
        """The cubin of `source`; CompileError as `compile_cubin`."""
        key = self.cache.key("cubin", source, target.name, kernel, str(nvrtc_version()))
        files = self.cache.get(key)
        if files is not None:
            return stored_cubin(files[CUBIN], files[LOG], kernel)
        cubin = compile_cubin(source, target, kernel)
        with self._count:
            self.compiled += 1
        self.cache.put(key, {CUBIN: cubin.image, LOG: cubin.log.encode()})
        return cubin


def stored_cubin(image: bytes, log: bytes, kernel: str) -> Cubin:
    """A cubin from its image and the compiler's log."""
    text = log.decode()
    return Cubin(image, parse_resources(text, kernel), text)
