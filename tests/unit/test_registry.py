"""The registry is complete, in order and tells the truth."""

import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import Universe
from xdsl.utils.target import Target

from amk.tools import registry

ROOT = Path(__file__).parents[2]
DIALECTS = registry.get_all_dialects()
PASSES = registry.get_all_passes()
TARGETS = registry.get_all_targets()


@pytest.mark.parametrize("entries", [DIALECTS, PASSES, TARGETS], ids=["dialects", "passes", "targets"])
def test_alphabetical_order(entries: dict[str, object]):
    assert list(entries) == sorted(entries)


@pytest.mark.parametrize("name", DIALECTS)
def test_dialect_name(name: str):
    dialect = DIALECTS[name]()
    assert isinstance(dialect, Dialect)
    assert dialect.name == name


@pytest.mark.parametrize("name", PASSES)
def test_pass_name(name: str):
    found = PASSES[name]()
    assert issubclass(found, ModulePass)
    assert found.name == name
    assert found.__module__ == f"amk.passes.{name.replace('-', '_')}"
    assert found.__doc__, "a pass says what it does"


@pytest.mark.parametrize("name", TARGETS)
def test_target_name(name: str):
    found = TARGETS[name]()
    assert issubclass(found, Target)
    assert found.name == name


def test_every_pass_is_registered():
    """A file of passes/ that defines a pass is named after it and registered."""
    defining = {
        path.stem.replace("_", "-") for path in (ROOT / "passes").rglob("*.py") if "(ModulePass" in path.read_text()
    }
    assert defining == set(PASSES)


def test_every_dialect_is_registered():
    defining = {
        path.relative_to(ROOT / "dialects").parts[0].removesuffix(".py")
        for path in (ROOT / "dialects").rglob("*.py")
        if " = Dialect(" in path.read_text()
    }
    assert defining == set(DIALECTS)


def test_xdsl_finds_amk():
    """The Universe entry point is installed and clashes with nothing."""
    universe = Universe.get_multiverse()
    assert set(DIALECTS) <= set(universe.all_dialects)
    assert set(PASSES) <= set(universe.all_passes)
    assert set(TARGETS) <= set(universe.all_targets)


def test_registry_imports_nothing():
    """Starting a tool imports no dialect, pass or backend, and nothing heavy."""
    heavy = ["numpy", "transformers", "torch", "amk.dialects.graph", "amk.passes.tile_tasks", "amk.frontends"]
    code = f"""
import sys, amk, amk.tools.universe, amk.tools.amk_opt, amk.tools.amk
print([name for name in {heavy} if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert run.stdout.strip() == "[]", run.stdout


def test_public_api_is_lazy_and_whole():
    import amk

    assert sorted(amk.__all__) == amk.__all__
    for name in amk.__all__:
        assert getattr(amk, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        amk.nonsense  # noqa: B018 (reading it is the test)


def test_public_names_are_documented():
    import amk

    for name in chain(amk.__all__):
        assert getattr(amk, name).__doc__, name
