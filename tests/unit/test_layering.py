"""The house of DESIGN.md: imports only go down, only relative imports cross folders, every folder is installed."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BELOW = {
    "amk_ir": set[str](),
    "dialects": {"amk_ir"},
    "frontends": {"amk_ir", "dialects"},
    "passes": {"amk_ir", "dialects"},
    "backends": {"amk_ir", "dialects", "passes"},
    # A session knows backends by their interface (runtime/backend.py); the tools choose one.
    "runtime": {"amk_ir", "dialects", "passes", "frontends"},
    "tools": {"amk_ir", "dialects", "passes", "frontends", "backends", "runtime"},
}
"""What each floor may import, besides itself."""

FILES = sorted(path for floor in BELOW for path in (ROOT / floor).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, int, str]]:
    """Every import of a file, also those inside functions: (line, number of leading dots, module)."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                # `from .. import dialects` names a floor too
                yield node.lineno, node.level, ".".join(filter(None, (node.module, alias.name)))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, 0, alias.name


def violations(path: Path, floor: str, depth: int, source: Iterator[tuple[int, int, str]]) -> Iterator[str]:
    """What is wrong in a file whose folder is `depth` folders below the root."""
    for line, dots, module in source:
        top = module.split(".")[0]
        if dots == 0 and (top == "amk" or top in BELOW):
            yield f"{path}:{line}: absolute import of {module}; inside the package imports are relative"
        elif dots > depth and top in BELOW and top != floor and top not in BELOW[floor]:
            yield f"{path}:{line}: {floor} must not import {top}"
        elif dots > depth and top not in BELOW:
            yield f"{path}:{line}: {module} lies outside the floors"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path):
    parts = path.relative_to(ROOT).parts
    found = violations(path.relative_to(ROOT), parts[0], len(parts) - 1, imports(path))
    assert not list(found)


@pytest.mark.parametrize(
    ("dots", "module", "message"),
    [
        (2, "tools.registry", "passes must not import tools"),
        (2, "frontends.llama.RECIPE", "passes must not import frontends"),
        (0, "amk.dialects.task", "absolute import of amk.dialects.task"),
        (2, "__version__", "__version__ lies outside the floors"),
    ],
)
def test_a_violation_is_found(dots: int, module: str, message: str):
    """The test above would notice."""
    found = list(violations(Path("passes/x.py"), "passes", 1, iter([(7, dots, module)])))
    assert found == [found[0]]
    assert message in found[0]


def test_every_folder_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {".".join(("amk", *path.relative_to(ROOT).parent.parts)) for path in FILES} | {"amk"}
    assert settings["packages"] == sorted(folders)
    for name in settings["packages"]:
        assert (ROOT / Path(*name.split(".")[1:]) / "__init__.py").is_file()
