"""What `amk tune` varies: the options of the pipeline, and the size of the grid, with the values worth a try."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from ...amk_ir.errors import UsageError
from ...amk_ir.targets import Target
from ...runtime.pass_options import PassOptions, option_defaults, option_types, options_text, spelled

GRID = "sms"
"""The axis of the size of the grid, which is no pass option: None stands for all SMs."""

_VALUES: Mapping[str, tuple[Any, ...]] = {
    "in_flight": (2, 3, 4, 5),
    "fuse_attention": ("auto", "never"),
    "parts": (1, 0, 2, 4, 8, 16),
    "block": (0, 32, 64, 128, 256),
    "widest": (8, 16, 32, 64),
    "rows": (8, 16, 32),
    "bytes": (8192, 12288, 16384, 20480, 24576, 32768),
    "stages": (0, 4, 6, 8, 10),
    "handoff": ("auto", "counter"),
    "columns": (32, 64, 128, 256),
}
"""Of options that are known to matter, most effective first."""

_LEFT_OUT = ("tasks",)
"""Options that make no sense on a GPU."""

_GRIDS = (7 / 8, 3 / 4, 1 / 2)
"""Parts of a GPU's SMs that a small model may be faster on."""


@dataclass(frozen=True)
class Candidate:
    """Options of the passes (those that are not defaults), and the size of the grid (None: all SMs)."""

    options: PassOptions = field(default_factory=dict[str, Any])
    sms: int | None = None

    def __str__(self) -> str:
        if self.sms is None:
            return options_text(self.options)
        return f"{options_text(self.options)} sms={self.sms}" if self.options else f"sms={self.sms}"

    @property
    def is_default(self) -> bool:
        """Whether nothing was chosen."""
        return not self.options and self.sms is None

    def value(self, axis: str) -> Any:
        """Its value on an axis."""
        return self.sms if axis == GRID else self.options.get(axis, option_defaults()[axis])

    def replaced(self, axis: str, value: Any) -> Candidate:
        """The candidate that differs on one axis."""
        if axis == GRID:
            return Candidate(self.options, value)
        options = {**self.options, axis: value}
        return Candidate({n: v for n, v in options.items() if v != option_defaults()[n]}, self.sms)


@dataclass(frozen=True)
class Axis:
    """An option and the values to try, its default among them."""

    name: str
    values: tuple[Any, ...]

    @property
    def spelled(self) -> str:
        return spelled(self.name)


def axes(target: Target, only: Iterable[str] | None = None) -> list[Axis]:
    """The axes of the search on `target`; `only`: those of these names, as the command line spells them.

    Options that this file does not know are varied too: switches and choices over all values, sizes by a factor of two.
    Raises UsageError for a name in `only` that is no axis.
    """
    defaults = option_defaults()
    names = [*(n for n in _VALUES if n in defaults), *(n for n in defaults if n not in _VALUES)]
    found = [Axis(name, _values(name, defaults[name])) for name in names if name not in _LEFT_OUT]
    found.append(Axis(GRID, (None, *sorted({int(target.num_sms * part) for part in _GRIDS}, reverse=True))))
    found = [axis for axis in found if len(axis.values) > 1]
    if only is None:
        return found
    known = {axis.spelled: axis for axis in found}
    wanted = dict.fromkeys(spelled(name) for name in only)
    for name in wanted:
        if name not in known:
            raise UsageError(f"--options: expected some of {', '.join(known)}, found '{name}'")
    return [known[name] for name in wanted]


def _values(name: str, default: Any) -> tuple[Any, ...]:
    if name in _VALUES:
        return tuple(dict.fromkeys((default, *_VALUES[name])))
    kind = option_types()[name]
    if get_origin(kind) is Literal:
        return tuple(dict.fromkeys((default, *get_args(kind))))
    if kind is bool:
        return default, not default
    if kind is int and default > 1:
        return default, default // 2, default * 2
    return (default,)
