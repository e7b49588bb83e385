"""The pages about a command name all of its options."""

import argparse
from pathlib import Path

import pytest

from amk.tools.commands import bench, tune

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("command", [bench, tune], ids=lambda c: c.NAME)
def test_every_option_is_documented(command):
    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)
    page = (DOCS / f"{command.NAME}.md").read_text()
    options = [name for action in parser._actions for name in action.option_strings]
    undocumented = {"--target"}  # nothing else than the GPU at hand can be measured
    assert not [name for name in options if name not in page and name not in undocumented]
