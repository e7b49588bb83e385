"""Parsing and printing of index expressions, accesses and domains, shared by attributes and custom op syntax."""

from __future__ import annotations

from xdsl.parser import AttrParser

from .access import Access, Dim
from .linear import Linear


def parse_linear(parser: AttrParser) -> Linear:
    """`term (('+' | '-') term)*` with `term := integer | name ('*' integer)?`."""
    terms: dict[str, int] = {}
    constant, sign = 0, 1
    while True:
        term = _parse_term(parser)
        constant += sign * term.constant
        for name, coefficient in term.terms:
            terms[name] = terms.get(name, 0) + sign * coefficient
        if parser.parse_optional_punctuation("+") is not None:
            sign = 1
        elif parser.parse_optional_punctuation("-") is not None:
            sign = -1
        else:
            return Linear.make(terms, constant)


def _parse_term(parser: AttrParser) -> Linear:
    if parser.parse_optional_punctuation("-") is not None:
        return _parse_term(parser) * -1
    if (number := parser.parse_optional_integer(allow_boolean=False, allow_negative=False)) is not None:
        return Linear.of(number)
    term = Linear.of(parser.parse_identifier(" or integer in an index expression"))
    if parser.parse_optional_punctuation("*") is not None:
        term = term * parser.parse_integer(allow_boolean=False)
    return term


def parse_access(parser: AttrParser) -> Access:
    """`@buffer[dim, ...]` with `dim := start (':' size ('to' limit)?)?`."""
    buffer = parser.parse_symbol_name().data
    dims = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, lambda: _parse_dim(parser), " in an access")
    return Access(buffer, tuple(dims))


def _parse_dim(parser: AttrParser) -> Dim:
    start = parse_linear(parser)
    if parser.parse_optional_punctuation(":") is None:
        return Dim(start, kept=False)
    size = parse_linear(parser)
    limit = parser.parse_integer(allow_boolean=False) if parser.parse_optional_keyword("to") is not None else None
    return Dim(start, size, limit)


def parse_domain(parser: AttrParser, delimiter: AttrParser.Delimiter) -> tuple[tuple[str, int], ...]:
    """`name = extent, ...` between the delimiters."""

    def parse_entry() -> tuple[str, int]:
        name = parser.parse_identifier(" as the name of a domain index")
        parser.parse_punctuation("=")
        return name, parser.parse_integer(allow_boolean=False)

    return tuple(parser.parse_comma_separated_list(delimiter, parse_entry, " in a domain"))


def format_domain(indices: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{n} = {e}" for n, e in indices)


def parse_linear_list(parser: AttrParser) -> tuple[Linear, ...]:
    """`[expression, ...]`."""
    return tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, lambda: parse_linear(parser)))


def format_linear_list(values: tuple[Linear, ...]) -> str:
    return f"[{', '.join(map(str, values))}]"
