"""Names from files in messages: a message is one line, whatever a file calls its tensors and keys."""

from __future__ import annotations


def one_line(text: str) -> str:
    r"""`text` with what does not print (control characters, line separators, lone surrogates) as `\n`, `\x00`, ..."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
