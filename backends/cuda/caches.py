"""How keys and values lie in a cache: the order in which mma fragments want them (device/cache.cuh). No IR, no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.attention_turn import GROUP


@dataclass(frozen=True)
class CacheLayout:
    """A cache [*outer, positions, kv_heads, 2, half]: for each of `outer` and each head, its positions in groups.

    Rows are padded to whole blocks of elements (keys 32, values 16), positions to whole groups.
    """

    kind: Literal["keys", "values"]
    outer: tuple[int, ...]
    positions: int
    kv_heads: int
    dim: int

    @property
    def row(self) -> int:
        """Elements of a position of a head."""
        block = 32 if self.kind == "keys" else 16
        return -(-self.dim // block) * block

    @property
    def head_elements(self) -> int:
        """Elements from one head to the next."""
        return -(-self.positions // GROUP) * GROUP * self.row

    @property
    def heads(self) -> int:
        """Heads of all of `outer`."""
        return int(np.prod(self.outer, dtype=np.int64)) * self.kv_heads

    @property
    def elements(self) -> int:
        return self.heads * self.head_elements

    def head_text(self, index: Sequence[str]) -> str:
        """C++ number of a head's first element; `index`: expressions for the dimensions of `outer` and the head."""
        text = "0"
        for extent, i in zip((*self.outer, self.kv_heads), index, strict=True):
            text = i if text == "0" else f"({text}) * {extent} + ({i})"
        return f"static_cast<long long>({text}) * {self.head_elements}"

    def offset_text(self, index: Sequence[str]) -> str:
        """C++ element number of the element at `index`, an expression for each dimension of the buffer."""
        *outer, position, head, second, element = index
        half = self.dim // 2
        function = "key" if self.kind == "keys" else "value"
        within = f"CacheLayout<{self.dim}>::{function}({position}, ({second}) * {half} + ({element}))"
        return f"{self.head_text((*outer, head))} + {within}"

    def rows(self, data: NDArray[Any]) -> NDArray[Any]:
        """[*outer, positions, kv_heads, 2, half] of the elements in memory."""
        if self.kind == "keys":
            blocks = data.reshape(self.heads, -1, self.row // 32, 8, 32)
            found = blocks.transpose(0, 1, 3, 2, 4)
        else:
            # [group][block][element % 8][position % 8 / 2][position / 8][element / 8][position % 2]
            blocks = data.reshape(self.heads, -1, self.row // 16, 8, 4, 2, 2, 2)
            found = blocks.transpose(0, 1, 5, 4, 7, 2, 6, 3)
        whole = found.reshape(self.heads, -1, self.row)[:, : self.positions, : self.dim]
        result = whole.reshape(*self.outer, self.kv_heads, self.positions, 2, self.dim // 2)
        return np.moveaxis(result, -4, -3)
