"""Text from token ids as they come: the pieces add up to the text of all ids, and no character is cut in two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"


class TextStream:
    """Decodes one sequence of ids piece by piece.

    A token is decoded in the context of those just before it, because a tokenizer may put a space between two tokens,
    or drop the one at the start of a text. Bytes that do not make a whole character yet are held back; if they never
    do, they come out as U+FFFD with the next whole character, or from `finish`.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        """`decode` gives the text of a sequence of ids."""
        self._decode = decode
        self._ids: list[int] = []  # the context, then what is held back
        self._context = 0  # how many of them are context
        self._context_text = ""

    def push(self, token: int) -> str:
        """The text that `token` completes, often empty."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if len(text) <= len(self._context_text) or text.endswith(_REPLACEMENT):
            return ""
        return self._emit(text)

    def finish(self) -> str:
        """The text still held back at the end of the sequence."""
        return self._emit(self._decode(self._ids))

    def _emit(self, text: str) -> str:
        piece = text[len(self._context_text) :]
        # Only what was not context yet has to stay, provided that it is some text: a context without text (special
        # tokens only) would look like the start of the sequence.
        fresh = self._ids[self._context :]
        fresh_text = self._decode(fresh)
        if fresh_text:
            self._ids, text = fresh, fresh_text
        self._context, self._context_text = len(self._ids), text
        return piece
