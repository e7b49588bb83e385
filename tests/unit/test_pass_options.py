"""Options of the pipeline from a command line, and the kernels that they make."""

from pathlib import Path

import pytest

from amk.amk_ir.errors import CompileError, UsageError
from amk.amk_ir.targets import get_target
from amk.frontends.import_model import import_model
from amk.runtime.compile import plan
from amk.runtime.pass_options import check_options, option_defaults, options_text, parse_options


def test_parse():
    assert parse_options(["in-flight=4", "rows = 16", "handoff=counter"], "--set") == {
        "in_flight": 4,
        "rows": 16,
        "handoff": "counter",
    }
    assert parse_options([], "--set") == {}


def test_text_is_what_is_parsed():
    options = {"in_flight": 4, "handoff": "counter"}
    assert options_text(options) == "handoff=counter in-flight=4"
    assert parse_options(options_text(options).split(), "--set") == options
    assert options_text({}) == "defaults"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows", "expected OPTION=VALUE, found 'rows'; the options are rows, tasks"),
        ("no-such=1", "no pass option 'no-such'; expected one of rows, tasks"),
        ("target=sm_80", "no pass option 'target'"),
        ("rows=many", "rows: expected an integer, found 'many'"),
        ("handoff=smoke", "handoff: expected auto or counter or tagged, found 'smoke'"),
    ],
)
def test_refused(text: str, message: str):
    with pytest.raises(UsageError, match=f"--set: .*{message}"):
        parse_options([text], "--set")


def test_given_twice():
    with pytest.raises(UsageError, match="--set: in-flight is given twice"):
        parse_options(["in-flight=2", "in_flight=3"], "--set")


def test_types_are_exact():
    """As they come from a JSON file."""
    for value in (True, 2.0, "2", None):
        with pytest.raises(UsageError, match="file.json: rows: expected an integer"):
            check_options({"rows": value}, "file.json")


def test_defaults_are_left_out():
    assert check_options(option_defaults(), "x") == {}


def test_the_kernel_has_them(tiny_model: Path):
    module = import_model(tiny_model, weight_dtype="bf16").module
    kernel = plan(module, get_target("sm_90a"), 4, {"stages": 5, "in_flight": 2}).kernel
    assert kernel.ring is not None
    assert (kernel.ring.data.stages, kernel.ring.data.in_flight) == (5, 2)
    with pytest.raises(CompileError, match="cannot compile for sm_90a with rows=0: tile-tasks: rows must be"):
        plan(module, get_target("sm_90a"), 4, {"rows": 0})
    with pytest.raises(UsageError, match="no pass option 'nonsense'"):
        plan(module, get_target("sm_90a"), 4, {"nonsense": 0})
