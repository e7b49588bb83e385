"""The dialect pages are generated; this checks that the committed ones are up to date."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def _generator():
    spec = importlib.util.spec_from_file_location("generate_dialect_pages", DOCS / "generate_dialect_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("dialect", ["graph", "task", "queue"])
def test_dialect_page_is_what_the_generator_writes(dialect: str):
    committed = (DOCS / "dialects" / f"{dialect}.md").read_text(encoding="utf-8")
    assert committed == _generator().page(dialect), "run: python docs/generate_dialect_pages.py"


@pytest.mark.parametrize("dialect", ["graph", "task", "queue"])
def test_every_op_has_an_example(dialect: str):
    page = _generator().page(dialect)
    for section in page.split("\n## ")[1:]:
        assert "```mlir" in section, section.splitlines()[0]
