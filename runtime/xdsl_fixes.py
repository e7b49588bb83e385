"""Repairs to xDSL 0.74 that everything which parses .mlir needs; imported for their effect, they cost nothing."""

from __future__ import annotations

import re
from math import prod
from typing import Any

from xdsl.parser import AttrParser, Parser
from xdsl.utils.exceptions import ParseError
from xdsl.utils.lexer import Span, Token
from xdsl.utils.mlir_lexer import MLIRLexer, MLIRTokenKind

# xDSL matches a string with "(?:[^"\\\n\v\f]+|...)*": a quantifier within a quantifier, which takes exponential time
# to find that a string does not end (a file that was cut off). With possessive quantifiers the same strings match, in
# linear time. A test fails once xDSL has another pattern.
STRING_PATTERN = r'"(?:[^"\\\n\v\f]++|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*+"'
PATTERN_NAME = "_unescaped_characters_regex"

setattr(MLIRLexer, PATTERN_NAME, re.compile(STRING_PATTERN))

# "((//[^\n]*(\n)?)|(\s+))*" remembers where each comment began, forty bytes for one: comments of 100 MB take 4 GB.
SPACE_PATTERN = r"(?://[^\n]*+\n?|\s++)*+"
SPACE_NAME = "_whitespace_regex"

setattr(MLIRLexer, SPACE_NAME, re.compile(SPACE_PATTERN, re.ASCII))

# Integers that are part of other tokens, `i32` and `%0#1`: longer ones are no such tokens, rather than a ValueError.
SHORT_INTEGERS = (
    (AttrParser, "_builtin_integer_type_regex", r"^[su]?i(\d{1,9})$"),
    (Parser, "_decimal_integer_regex", r"[0-9]{1,9}"),
)
for _parser, _name, _pattern in SHORT_INTEGERS:
    setattr(_parser, _name, re.compile(_pattern))

MAX_DIGITS = 1000
"""Digits of an integer. Python refuses to convert more than 4300, with a ValueError that nobody expects of a parser; what
is computed from a few such numbers has to stay below that too."""

_get_int_value, _get_float_value = MLIRTokenKind.get_int_value, MLIRTokenKind.get_float_value


def _check_digits(span: Span) -> None:
    """xDSL takes all that Unicode calls numeric for digits: Python converts some, such as those of other scripts, and not others."""
    if not span.text.isascii():
        raise ParseError(span, f"digits are 0 to 9, found {span.text[:20]!r}")


def _get_short_int_value(kind: MLIRTokenKind, span: Span) -> int:
    _check_digits(span)
    if len(span.text) > MAX_DIGITS:
        raise ParseError(span, f"an integer has at most {MAX_DIGITS} digits, found {len(span.text)}")
    return _get_int_value(kind, span)


def _get_ascii_float_value(kind: MLIRTokenKind, span: Span) -> float:
    _check_digits(span)
    return _get_float_value(kind, span)


setattr(MLIRTokenKind, _get_int_value.__name__, _get_short_int_value)
setattr(MLIRTokenKind, _get_float_value.__name__, _get_ascii_float_value)


MAX_DENSE = 2**20
"""Elements of `dense<...>`, of which xDSL makes a list even if one number stands for all."""

_DENSE_TYPE_NAME = "_parse_dense_literal_type"
_parse_dense_type = getattr(AttrParser, _DENSE_TYPE_NAME)


def _parse_small_dense_type(parser: AttrParser) -> Any:
    found = _parse_dense_type(parser)
    if prod(found.get_shape()) > MAX_DENSE:
        parser.raise_error(f"a dense literal has at most {MAX_DENSE} elements")
    return found


setattr(AttrParser, _DENSE_TYPE_NAME, _parse_small_dense_type)

# xDSL prints a string that is not ASCII with escapes, and lexes one with such escapes as bytes, not as a string (though
# the docstring of this method says otherwise): it could not read what it wrote.
_LEX_STRING_NAME = "_lex_string_literal"
_lex_string = getattr(MLIRLexer, _LEX_STRING_NAME)


def _lex_utf8_string(lexer: MLIRLexer, start_pos: int) -> Any:
    token = _lex_string(lexer, start_pos)
    if token.kind is MLIRTokenKind.BYTES_LIT:
        try:
            token.span.bytes_contents.decode()
        except UnicodeDecodeError:
            return token
        return Token(MLIRTokenKind.STRING_LIT, token.span)
    return token


setattr(MLIRLexer, _LEX_STRING_NAME, _lex_utf8_string)
