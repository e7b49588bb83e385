"""The pages of dialects and passes are generated; this checks that the committed ones are up to date."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ["dialects/graph.md", "dialects/queue.md", "dialects/task.md", "passes.md"]


def generated() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate_pages", DOCS / "generate_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_the_list_of_pages_is_complete():
    assert sorted(generated()) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_page_is_what_the_generator_writes(page: str):
    committed = (DOCS / page).read_text(encoding="utf-8")
    assert committed == generated()[page], "run: python docs/generate_pages.py"


@pytest.mark.parametrize("page", [p for p in PAGES if p.startswith("dialects/")])
def test_every_op_has_an_example(page: str):
    for section in generated()[page].split("\n## ")[1:]:
        assert "```mlir" in section, section.splitlines()[0]


@pytest.mark.parametrize(
    "page", sorted(p.relative_to(ROOT).as_posix() for p in [ROOT / "README.md", *DOCS.rglob("*.md")])
)
def test_links_lead_somewhere(page: str):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (ROOT / page).parent.joinpath(link).exists(), f"{page} links to {link}"
