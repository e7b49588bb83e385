"""Model families: those of AMK, and those that other packages bring."""

from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from tiny_models import PLAIN_CONFIG

from amk.amk_ir.errors import ConfigError
from amk.frontends import registry
from amk.frontends.import_model import import_config
from amk.frontends.llama import LLAMA

COUSIN = replace(
    LLAMA, name="cousin", architectures=("CousinForCausalLM",), model_types=("cousin",), gguf_architecture=None
)
NOT_A_RECIPE = 3


def test_names_are_those_of_the_recipes():
    recipes = registry.get_all_recipes()
    assert list(recipes) == sorted(recipes)
    for name, get in recipes.items():
        assert get().name == name


def entry_points_of_others(monkeypatch: pytest.MonkeyPatch, attribute: str) -> None:
    entry = EntryPoint("cousin", f"{__name__}:{attribute}", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[attribute])
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == registry.ENTRY_POINT_GROUP else [])


def test_another_package_brings_a_family(monkeypatch: pytest.MonkeyPatch):
    config: dict[str, Any] = {**PLAIN_CONFIG, "architectures": ["CousinForCausalLM"], "model_type": "cousin"}
    with pytest.raises(ConfigError, match="unknown architecture 'CousinForCausalLM'"):
        import_config(config)
    entry_points_of_others(monkeypatch, "COUSIN")
    assert import_config(config, name="cousin").name == "cousin"
    assert registry.find_gguf_recipe("llama", "x") is LLAMA
    with pytest.raises(ConfigError, match="supported: LlamaForCausalLM, CousinForCausalLM"):
        registry.find_recipe("Unknown", "x")


def test_entry_point_that_is_no_recipe(monkeypatch: pytest.MonkeyPatch):
    entry_points_of_others(monkeypatch, "NOT_A_RECIPE")
    with pytest.raises(ConfigError, match=r"entry point 'cousin' \(.*\): expected a Recipe, found 3"):
        registry.find_recipe("Unknown", "x")
