"""Addresses as C++ text, evaluated as Python: the same element as NumPy's indexing."""

import random
from math import prod

import numpy as np
import pytest

from amk.amk_ir.access import Access, Dim
from amk.amk_ir.linear import Linear
from amk.backends.cuda.coordinates import Coordinates, Segment, address_of


def _evaluate(text: str, **names: int) -> int:
    python = text.replace("/", "//").replace("&&", "and").replace("(long long)", "")
    return eval(python, {}, names)


@pytest.mark.parametrize("seed", range(40))
def test_address_is_the_element(seed: int) -> None:
    generator = random.Random(seed)
    rank = generator.randint(1, 5)
    shape = [generator.randint(1, 6) for _ in range(rank)]
    dims: list[Dim] = []
    for extent in shape:
        tiles = generator.randint(1, extent)
        size = -(-extent // tiles)
        kind = generator.choice(["drop", "tile", "whole"])
        if kind == "drop":
            dims.append(Dim(Linear(constant=generator.randrange(extent)), kept=False))
        elif kind == "whole":
            dims.append(Dim(Linear(), Linear.of(extent)))
        else:
            dims.append(Dim(Linear.make({"i": 1}), Linear.of(size), extent))
    access = Access("b", tuple(dims))
    tile = access.tile_shape
    array = np.arange(prod(shape)).reshape(shape)
    split = generator.randint(0, len(tile))
    for i in range(2):
        for number in range(prod(tile)):
            at = np.unravel_index(number, tile) if tile else ()
            first = int(np.ravel_multi_index(at[:split], tile[:split])) if split else 0
            rest = int(np.ravel_multi_index(at[split:], tile[split:])) if split < len(tile) else 0
            where = Coordinates((Segment("a", tile[:split]), Segment("b", tile[split:])))
            address = address_of(access, shape, where, frozenset({"i"}))
            index = [d.start.evaluate({"i": i}) for d in dims]
            for value, axis in zip(at, [n for n, d in enumerate(dims) if d.kept], strict=True):
                index[axis] += int(value)
            inside = all(x < (n if d.limit is None else d.limit) for x, n, d in zip(index, shape, dims, strict=True))
            names = {"a": first, "b": rest, "f_i": i}
            assert not address.inside or bool(_evaluate(address.inside, **names)) == inside
            if inside:
                assert _evaluate(address.offset, **names) == array[tuple(index)]


def test_dense_tiles_stay_one_number() -> None:
    access = Access("x", (Dim(Linear.of("layer"), kept=False), *(Dim(Linear(), Linear.of(n)) for n in (1, 9, 2, 32))))
    address = address_of(access, (30, 1, 9, 2, 32), Coordinates.flat("i", (1, 9, 2, 32)), frozenset())
    assert address.offset == "((l_layer) * 576) + (i)" or address.offset.replace(" ", "") == "((l_layer)*576)+((i))"
