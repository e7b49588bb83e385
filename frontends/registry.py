"""The model families that AMK imports.

Another package adds one with an entry point of the group `amk.recipes` whose value names a `Recipe`:

    [project.entry-points."amk.recipes"]
    my-family = "my_package.my_family:RECIPE"

Nothing is imported before a model asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points

from ..amk_ir.errors import ConfigError
from .one_line import one_line
from .recipe import Recipe

ENTRY_POINT_GROUP = "amk.recipes"


def get_all_recipes() -> dict[str, Callable[[], Recipe]]:
    """The families of this package by name, alphabetically."""

    def get_llama() -> Recipe:
        from .llama import LLAMA

        return LLAMA

    return {"llama": get_llama}


def _recipes() -> Iterator[Recipe]:
    for get in get_all_recipes().values():
        yield get()
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        recipe = entry.load()
        if not isinstance(recipe, Recipe):
            raise ConfigError(f"entry point '{entry.name}' ({entry.value}): expected a Recipe, found {recipe!r}")
        yield recipe


def find_recipe(architecture: str, source: str) -> Recipe:
    """The family that handles a value of `architectures` in config.json; `source` names the file in messages.

    Raises:
        ConfigError: no family does.
    """
    return _find(architecture, source, lambda r: r.architectures)


def find_gguf_recipe(architecture: str, source: str) -> Recipe:
    """The family that handles a value of `general.architecture` in a GGUF file.

    Raises:
        ConfigError: no family does.
    """
    return _find(architecture, source, lambda r: (r.gguf_architecture,) if r.gguf_architecture else ())


def _find(architecture: str, source: str, handled_by: Callable[[Recipe], tuple[str, ...]]) -> Recipe:
    known: list[str] = []
    for recipe in _recipes():
        if architecture in handled_by(recipe):
            return recipe
        known += handled_by(recipe)
    raise ConfigError(f"{source}: unknown architecture '{one_line(architecture)}'; supported: {', '.join(known)}")
