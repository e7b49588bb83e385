"""The NVRTC wrapper: the compiler's report, its failures, and the limits of a target."""

from typing import Any

import pytest

from amk.amk_ir.errors import CompileError
from amk.amk_ir.targets import get_target
from amk.backends.cuda import nvrtc
from amk.backends.cuda.nvrtc import Resources, check_resources, compile_cubin, inline_headers, parse_resources

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k' for 'sm_90a'
ptxas info    : Function properties for k
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 400 bytes smem, 376 bytes cmem[0]
ptxas info    : Function properties for helper
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""
TARGET = get_target("sm_90a")


def test_report_is_read() -> None:
    assert parse_resources(LOG, "k") == Resources(40, 4, 12, 24, 400)
    with pytest.raises(CompileError, match="no resources of kernel 'other'"):
        parse_resources(LOG, "other")


def test_failure_has_the_log() -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    with pytest.raises(CompileError, match='identifier "oops" is undefined'):
        compile_cubin('extern "C" __global__ void k() { oops(); }', TARGET, "k")


def test_unknown_architecture() -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    with pytest.raises(CompileError, match="cannot compile for reference"):
        compile_cubin("", get_target("reference"), "k")


def test_missing_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(nvrtc, "import_module", missing)
    with pytest.raises(CompileError, match=r"pip install -e '\.\[cuda\]'` in a checkout"):
        compile_cubin("", TARGET, "k")


@pytest.mark.parametrize(
    ("resources", "dynamic", "message"),
    [
        (Resources(100, 4, 4, 0, 0), 0, "spills 8 bytes"),
        (Resources(100, 0, 0, 0, 1024), 232000, "233024 bytes of shared memory"),
        (Resources(232, 0, 0, 0, 0), 0, "66816 registers"),
    ],
)
def test_limits(resources: Resources, dynamic: int, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        check_resources(resources, dynamic, 288, TARGET, "k")


def test_inlined_source_includes_each_file_once() -> None:
    text = inline_headers('#include "matvec.cuh"\n#include "attention.cuh"\n')
    assert "#include" not in text
    assert text.count("struct Spin {") == text.count("float silu(") == 1
