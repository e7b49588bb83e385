"""Repairs to xDSL 0.74 that everything which parses .mlir needs; imported for their effect, they cost nothing."""

from __future__ import annotations

import re

from xdsl.utils.mlir_lexer import MLIRLexer

# xDSL matches a string with "(?:[^"\\\n\v\f]+|...)*": a quantifier within a quantifier, which takes exponential time
# to find that a string does not end (a file that was cut off). With possessive quantifiers the same strings match, in
# linear time. A test fails once xDSL has another pattern.
STRING_PATTERN = r'"(?:[^"\\\n\v\f]++|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*+"'
PATTERN_NAME = "_unescaped_characters_regex"

setattr(MLIRLexer, PATTERN_NAME, re.compile(STRING_PATTERN))
