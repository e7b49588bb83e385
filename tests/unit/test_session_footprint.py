"""What a token reads, against numbers counted by hand."""

from pathlib import Path

from amk.frontends.import_model import import_model
from amk.runtime.footprint import footprint, model_of


def test_tied_model(tiny_model: Path):
    counts = footprint(model_of(import_model(tiny_model).module))
    vocab, layer = 258 * 32, 32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 48 * 32
    assert counts.matrices == vocab + 2 * layer, "the table is read whole by the head"
    assert counts.vectors == 5 * 32
    assert counts.parameters == counts.matrices + counts.vectors
    assert counts.kv_per_position == 2 * 2 * 16
    assert counts.weight_bytes(2) == counts.matrices * 2 + counts.vectors * 4


def test_separate_head(tiny_model: Path):
    """Of an embedding table that is not the head, a token reads one row."""
    import json

    from amk.frontends.import_model import import_config

    config = json.loads((tiny_model / "config.json").read_text())
    tied = footprint(model_of(import_config(config).module))
    untied = footprint(model_of(import_config({**config, "tie_word_embeddings": False}).module))
    assert untied.parameters == tied.parameters + 258 * 32
    assert untied.matrices == tied.matrices + 32
