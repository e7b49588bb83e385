"""Mutations of .mlir text. All are deterministic functions of a `random.Random`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

NUMBERS = (
    "0", "1", "-1", "2", "3", "7", "64", "255", "256", "1000", "65535", "65536", "65537", "100000", "2147483647",
    "2147483648", "4294967295", "4294967296", "-2147483648", "-2147483649", "281474976710656", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615",
    "18446744073709551616", "1" + "0" * 40, "-1" + "0" * 40, "9" * 5000, "00", "0x10", "0xffffffffffffffffffff", "1.0",
    "-0.0", "1e400", "1e-400", "nan", "true",
)  # fmt: skip
"""Boundary values of the widths that are in use, and what no width holds."""

TYPES = (
    "i1", "i8", "i32", "i64", "ui8", "si4", "i128", "i9999999", "index", "f16", "bf16", "f32", "f64", "f80", "none",
    "tensor<f32>", "tensor<?xf32>", "tensor<*xf32>", "tensor<0xf32>", "tensor<1xi32>", "tensor<1x2x3x4x5x6x7x8xf32>",
    "tensor<2xtensor<2xf32>>", "vector<4xf32>", "memref<4xf32>", "complex<f32>", "tuple<>", "() -> ()", "!task.x",
)  # fmt: skip

SNIPPETS = (
    "{}", "()", "[]", "<>", "{", "}", "(", ")", "[", "]", "<", ">", "->", "=", ",", ":", "%", "@", "#", "!", "^bb0:",
    "attributes {a = 1 : i64}", "{a = [1, \"x\", @y]}", "\"\"", "\"\\00\"", "\"unterminated", "@\"a b\"", "@\"\"",
    "@a::@b", "%0", "%0#1", "%0:2", "#amk.linear<i*2>", "#amk.access<@x[0]>", "#amk.domain<()>", "dense<0>",
    "dense<[]> : tensor<0xf32>", "loc(unknown)", "loc(\"a\":1:1)", "// c", "/*", "unit", "array<i64: 1>",
    "affine_map<(d0) -> (d0)>", "{-# x #-}", "?", "*", "+", "-", "to", "on", "all", ">=", "cyclic 0", "blocked 1",
    "\ufeff", "\u0000", "\u202e", "é", "\U0001f600", "\r\n", "\r", "\t", "\v", "\u2028", "\ud800",
)  # fmt: skip

_TOKEN = re.compile(
    r'"(?:[^"\\\n]|\\.)*"|[@%#!^][A-Za-z_$.0-9-]+|-?\d+(?:\.\d+(?:[eE][-+]?\d+)?)?|[A-Za-z_][A-Za-z_$.0-9]*|\s+|->|>=|.',
    re.DOTALL,
)
_DIGITS = re.compile(r"(?<![A-Za-z_@%.0-9])-?\d+|(?<=x)\d+(?=x)|(?<=[<x])\d+(?=x)")
_ELEMENT = re.compile(r"(?<=x)b?[fi]\d+\b|\btensor<[^<>]*>")
_SYMBOL = re.compile(r"@\w+")
_WORD = re.compile(
    r"\b(?:weight|input|output|state|scratch|tagged|all|>= \d+|cyclic|blocked|on cyclic \d+|on blocked \d+|"
    r"reference|sm_\w+|stream|load|run|fetch|wait|signal)\b"
)
_OPEN, _CLOSE = "([{<", ")]}>"

Mutation = Callable[[Random, str, str], str]
"""(randomness, text, text of another seed) -> mutated text."""


def mutate(random: Random, text: str, other: str, most: int = 6) -> str:
    """One to `most` mutations of `text`, few more often than many."""
    mutations = _GENTLE if random.random() < 0.5 else _ALL
    count = 1
    while count < most and random.random() < 0.3:
        count += 1
    for _ in range(count):
        text = random.choices(list(mutations), list(mutations.values()))[0](random, text, other)
        if len(text) > 200_000:
            break
    return text


def tokens(text: str) -> list[str]:
    """Tokens of MLIR, spaces included: joined, they are the text."""
    return _TOKEN.findall(text)


def _class(token: str) -> str:
    first = token[0]
    if first.isspace():
        return " "
    if first.isdigit() or (first == "-" and len(token) > 1 and token != "->"):
        return "0"
    if first.isalpha() or first == "_":
        return "op" if "." in token else "a"
    return first if first in '@%#!^"' else "."


def _replace(random: Random, text: str, pattern: re.Pattern[str], new: Callable[[str], str]) -> str:
    """One match of `pattern`, replaced."""
    found = list(pattern.finditer(text))
    if not found:
        return text
    match = random.choice(found)
    return text[: match.start()] + new(match[0]) + text[match.end() :]


def number(random: Random, text: str, other: str) -> str:
    """A number becomes a boundary value."""
    return _replace(random, text, _DIGITS, lambda _: random.choice(NUMBERS))


def nearby_number(random: Random, text: str, other: str) -> str:
    """A number becomes one a little greater or less, or a multiple."""

    def near(old: str) -> str:
        value = int(old) if len(old) < 100 else 0
        return str(random.choice((value + 1, value - 1, value * 2, value // 2, -value, value + random.randrange(64))))

    return _replace(random, text, _DIGITS, near)


def same_number(random: Random, text: str, other: str) -> str:
    """A number changes wherever it stands, so that shapes and extents may still fit."""
    found = _DIGITS.findall(text)
    if not found:
        return text
    old = random.choice(found)
    new = random.choice((random.choice(NUMBERS), str(random.randrange(1, 64)), str(random.randrange(1, 100_000))))
    return _DIGITS.sub(lambda m: new if m[0] == old else m[0], text)


def same_number_in_line(random: Random, text: str, other: str) -> str:
    """As `same_number`, in one line, or in one and those that look like it: an access and the type of its tile."""
    mine = text.split("\n")
    places = [i for i, line in enumerate(mine) if _DIGITS.search(line)]
    if not places:
        return text
    at = random.choice(places)
    old = random.choice(_DIGITS.findall(mine[at]))
    near = random.choice((str(random.randrange(16)), str(random.randrange(300)), random.choice(NUMBERS)))
    alike = [i for i in places if mine[i].split("@")[0] == mine[at].split("@")[0]] if random.random() < 0.3 else [at]
    for i in alike:
        mine[i] = _DIGITS.sub(lambda m: near if m[0] == old else m[0], mine[i])
    return "\n".join(mine)


def symbol(random: Random, text: str, other: str) -> str:
    """A symbol, or a word such as a kind, condition or placement, becomes another one of the text."""
    pattern = random.choice((_SYMBOL, _SYMBOL, _WORD))
    choices = pattern.findall(text)
    return _replace(random, text, pattern, lambda _: random.choice(choices))


def type_(random: Random, text: str, other: str) -> str:
    """An element type or tensor type becomes another."""
    return _replace(random, text, _ELEMENT, lambda _: random.choice(TYPES))


def same_class(random: Random, text: str, other: str) -> str:
    """A token becomes another of its class, from this text or from the other."""
    mine = tokens(text)
    places = [i for i, t in enumerate(mine) if not t.isspace()]
    if not places:
        return text
    at = random.choice(places)
    pool = mine if random.random() < 0.7 else tokens(other)
    choices = [t for t in pool if _class(t) == _class(mine[at])]
    mine[at] = random.choice(choices or mine)
    return "".join(mine)


def swap(random: Random, text: str, other: str) -> str:
    """Two tokens change places."""
    mine = tokens(text)
    if len(mine) < 2:
        return text
    a, b = random.randrange(len(mine)), random.randrange(len(mine))
    mine[a], mine[b] = mine[b], mine[a]
    return "".join(mine)


def delete(random: Random, text: str, other: str) -> str:
    """A few tokens in a row are gone."""
    mine = tokens(text)
    if not mine:
        return text
    at = random.randrange(len(mine))
    del mine[at : at + random.choice((1, 1, 2, 4, 16))]
    return "".join(mine)


def insert(random: Random, text: str, other: str) -> str:
    """A snippet, type, number or token of the other text between two tokens."""
    mine = tokens(text)
    at = random.randrange(len(mine) + 1)
    new = random.choice((random.choice(SNIPPETS), random.choice(TYPES), random.choice(NUMBERS)))
    mine.insert(at, f" {new} " if random.random() < 0.5 else new)
    return "".join(mine)


def lines(random: Random, text: str, other: str) -> str:
    """Lines are deleted, repeated, moved, or come from the other text."""
    mine = text.split("\n")
    at = random.randrange(len(mine))
    count = random.choice((1, 1, 1, 2, 5))
    match random.randrange(5):
        case 0:
            del mine[at : at + count]
        case 1:
            mine[at:at] = mine[at : at + count] * random.choice((1, 1, 2, 50))
        case 2:
            to = random.randrange(len(mine))
            mine[at], mine[to] = mine[to], mine[at]
        case 3:
            theirs = other.split("\n")
            start = random.randrange(len(theirs))
            mine[at:at] = theirs[start : start + count]
        case _:
            theirs = other.split("\n")
            start = random.randrange(len(theirs))
            mine[at : at + count] = theirs[start : start + count]
    return "\n".join(mine)


_EVENT = re.compile(r"^ *(?:queue\.(?:run|wait|signal|fetch)|task\.(?:call|load|store|add|stream)) .*$", re.MULTILINE)


def events(random: Random, text: str, other: str) -> str:
    """Lines with events or accesses are swapped, moved, repeated or deleted: most results are valid IR."""
    mine = text.split("\n")
    places = [i for i, line in enumerate(mine) if _EVENT.match(line)]
    if not places:
        return nearby_number(random, text, other)
    a = random.choice(places)
    near = [p for p in places if abs(p - a) <= 8]
    b = random.choice(near if random.random() < 0.5 else places)
    match random.randrange(4):
        case 0:
            mine[a], mine[b] = mine[b], mine[a]
        case 1:
            mine.insert(b, mine[a])
        case 2:
            line = mine.pop(a)
            mine.insert(b, line)
        case _:
            del mine[a]
    return "\n".join(mine)


def groups(text: str) -> list[tuple[int, int]]:
    """Ranges [start, stop) of the balanced brackets of a text."""
    found: list[tuple[int, int]] = []
    stack: list[tuple[str, int]] = []
    for at, letter in enumerate(text):
        if letter in _OPEN:
            stack.append((letter, at))
        elif letter in _CLOSE and not (letter == ">" and text[at - 1 : at] == "-"):
            wanted = _OPEN[_CLOSE.index(letter)]
            if stack and stack[-1][0] == wanted:
                found.append((stack.pop()[1], at + 1))
    return found


def block(random: Random, text: str, other: str) -> str:
    """What stands in a pair of brackets is emptied, repeated, or becomes that of another pair."""
    mine = groups(text)
    if not mine:
        return text
    start, stop = random.choice(mine)
    inner = text[start + 1 : stop - 1]
    match random.randrange(4):
        case 0:
            inner = ""
        case 1:
            inner = inner + random.choice(("", ", ", "\n")) + inner
        case _:
            source = text if random.random() < 0.5 else other
            theirs = [g for g in groups(source) if source[g[0]] == text[start]]
            if theirs:
                a, b = random.choice(theirs)
                inner = source[a + 1 : b - 1]
    return text[: start + 1] + inner + text[stop - 1 :]


WRAPPERS = (
    ("builtin.module {\n", "}\n"),
    ("task.for n = 0 to 2 {\n", "}\n"),
    ("queue.phase {\n", "}\n"),
    ('"builtin.module"() ({\n', "}) : () -> ()\n"),
    ("[", "]"),
    ("(", ")"),
    ("{a = ", "}"),
    ("-", ""),
    ("tensor<2x", ">"),
    ("#amk.linear<", ">"),
)


def nest(random: Random, text: str, other: str) -> str:
    """A pair of brackets, or a line, inside many others."""
    depth = random.choice((1, 2, 10, 100, 1000, 3000))
    first, last = random.choice(WRAPPERS)
    mine = groups(text) if random.random() < 0.5 else []
    if mine:
        start, stop = random.choice(mine)
        start, stop = random.choice(((start, stop), (start + 1, stop - 1)))
    else:
        mine_lines = text.split("\n")
        at = random.randrange(len(mine_lines))
        start = sum(len(line) + 1 for line in mine_lines[:at])
        stop = start + len(mine_lines[at])
    if "= 0 to" in first and random.random() < 0.8:  # loops with indices of their own
        first = "".join(first.replace("n =", f"n{i} =") for i in range(depth))
        return text[:start] + first + text[start:stop] + last * depth + text[stop:]
    return text[:start] + first * depth + text[start:stop] + last * depth + text[stop:]


def truncate(random: Random, text: str, other: str) -> str:
    """The text ends early, or begins late."""
    at = random.randrange(len(text) + 1)
    return text[:at] if random.random() < 0.8 else text[at:]


def letters(random: Random, text: str, other: str) -> str:
    """Single letters become any others."""
    if not text:
        return text
    for _ in range(random.choice((1, 1, 2, 8))):
        at = random.randrange(len(text))
        new = chr(random.choice((random.randrange(128), random.randrange(0x3000), random.randrange(0x11000))))
        text = text[:at] + new + text[at + random.randrange(2) :]
    return text


def long_token(random: Random, text: str, other: str) -> str:
    """A token is as long as no one writes it."""
    mine = tokens(text)
    if not mine:
        return text
    at = random.randrange(len(mine))
    mine[at] = mine[at] * random.choice((2, 3, 100, 5000))
    return "".join(mine)


_GENTLE: dict[Mutation, int] = {
    events: 30,
    nearby_number: 14,
    number: 3,
    same_number: 10,
    same_number_in_line: 24,
    symbol: 14,
}
"""Weights of mutations that often leave valid IR, so that passes and the schedule verifier have something to do."""

_ALL: dict[Mutation, int] = _GENTLE | {
    block: 16,
    delete: 12,
    insert: 10,
    letters: 5,
    lines: 20,
    long_token: 2,
    nest: 7,
    number: 20,
    same_class: 30,
    swap: 6,
    truncate: 2,
    type_: 8,
}


def encode(random: Random, text: str) -> bytes:
    """The text as a file: UTF-8, now and then with a byte order mark, other line ends or bytes that are no UTF-8."""
    match random.randrange(60):
        case 0:
            return "\ufeff".encode() + text.encode("utf-8", "surrogatepass")
        case 1:
            return text.replace("\n", "\r\n").encode("utf-8", "surrogatepass")
        case 2:
            data = bytearray(text.encode("utf-8", "surrogatepass"))
            for _ in range(random.randrange(1, 4)):
                data[random.randrange(len(data) + 1) : 0] = bytes((random.randrange(256),))
            return bytes(data)
        case 3:
            return text.encode("utf-16", "surrogatepass")
        case _:
            return text.encode("utf-8", "replace")


def pick(random: Random, seeds: Sequence[str]) -> int:
    """The number of a seed; short ones more often than long ones, as they cost less."""
    choices = [random.randrange(len(seeds)) for _ in range(2)]
    return min(choices, key=lambda n: len(seeds[n])) if random.random() < 0.6 else choices[0]
