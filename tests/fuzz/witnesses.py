"""Mutations of witnesses: JSON of the right form with wrong values, of the wrong form, and text that is no JSON."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

from amk.passes.verifier.failures import FailureKind

from .mutate import mutate

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 255, 65536, 2**31 - 1, 2**31, 2**63, 2**64, 10**40, 0.5, 1e308, float("nan"),
    float("inf"), "", "x", "a\u0000b", "@put[0]", "@put[]", "@put[99999999999999999999]", "@[", "deadlock", "race",
    [], [[]], [[0, 1]], [[0, -1]], [[0, 10**9]], [[70000, 1]], [1, 2], {}, {"sm": 0}, [[[0, 1]]], [[0, 0]] * 3,
)  # fmt: skip

FAILURES = tuple(k.value for k in FailureKind)


def mutate_witness(random: Random, witness: dict[str, Any]) -> str:
    """The text of a damaged witness. Its digest is mostly right, or nothing else would be looked at."""
    if random.random() < 0.15:
        text = json.dumps(witness)
        return mutate(random, text, text)
    damaged = deepcopy(witness)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _damage(random, damaged)
    if random.random() < 0.9 and isinstance(damaged, dict):
        damaged["digest"] = witness["digest"]
    if random.random() < 0.02:
        return "[" * 50_000 + json.dumps(damaged)
    return json.dumps(damaged)


def _damage(random: Random, value: Any) -> None:
    """Changes one part of a JSON value in place, at any depth."""
    if isinstance(value, dict):
        if not value:
            return
        key = random.choice(sorted(value))
        if key == "failure" and random.random() < 0.8:
            value[key] = random.choice(FAILURES)
        elif isinstance(value[key], dict | list) and value[key] and random.random() < 0.75:
            _damage(random, value[key])
        elif random.random() < 0.1:
            del value[key]
        else:
            value[key] = _other(random, value[key])
    elif isinstance(value, list) and value:
        at = random.randrange(len(value))
        if isinstance(value[at], dict | list) and value[at] and random.random() < 0.6:
            _damage(random, value[at])
            return
        match random.randrange(4):
            case 0:
                del value[at]
            case 1:
                value.insert(at, deepcopy(value[at]))
            case 2:
                other = random.randrange(len(value))
                value[at], value[other] = value[other], value[at]
            case _:
                value[at] = _other(random, value[at])


def _other(random: Random, value: Any) -> Any:
    if type(value) is int and random.random() < 0.7:
        return value + random.choice((1, -1, 2, -2, 7))
    return deepcopy(random.choice(VALUES))
