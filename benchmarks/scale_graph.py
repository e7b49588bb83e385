"""The graph of verification time against tasks as SVG; both axes are logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

Points = Sequence[tuple[float, float, str]]
"""(tasks, seconds, label)."""

WIDTH, HEIGHT = 780, 480
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 24, 58
X_RANGE, Y_RANGE = (3e3, 2e7), (0.03, 150.0)
X_TICKS = [(1e4, "10,000"), (1e5, "100,000"), (1e6, "1,000,000"), (1e7, "10,000,000")]
Y_TICKS = [(0.1, "0.1"), (1, "1"), (10, "10"), (100, "100")]

COMPACT, EXPLICIT = "#1f5fa8", "#b3541e"
BACKGROUND, GRID, TEXT, QUIET = "#ffffff", "#e4e4e4", "#222222", "#666666"

HALO = f'stroke="{BACKGROUND}" stroke-width="4" paint-order="stroke"'
"""Of texts, which keeps lines off them."""


def draw(compact: Points, explicit: Points, bounds: Sequence[tuple[float, str, bool]]) -> str:
    """The file. Bounds are (seconds, label, whether it is for the explicit form)."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{BACKGROUND}"/>',
        *_axes(),
    ]
    for seconds, label, of_explicit in bounds:
        colour = EXPLICIT if of_explicit else COMPACT
        parts.append(_line(X_RANGE[0], seconds, X_RANGE[1], seconds, colour, 'stroke-dasharray="6 4"'))
        parts.append(_text(LEFT + 8, _y(seconds) - 6, label, colour))
    for points, colour in ((compact, COMPACT), (explicit, EXPLICIT)):
        way = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y, _ in sorted(points))
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y, label in points:
            parts.append(f'<circle cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="4.5" fill="{colour}"/>')
            parts.append(_text(_x(x) + 7, _y(y) + 16, label, colour, size=11))
    parts += _legend()
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes() -> list[str]:
    parts: list[str] = []
    for value, label in X_TICKS:
        parts.append(_line(value, Y_RANGE[0], value, Y_RANGE[1], GRID))
        parts.append(_text(_x(value), HEIGHT - BOTTOM + 20, label, TEXT, "middle"))
    for value, label in Y_TICKS:
        parts.append(_line(X_RANGE[0], value, X_RANGE[1], value, GRID))
        parts.append(_text(LEFT - 8, _y(value) + 4, label, TEXT, "end"))
    parts.append(
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" fill="none" '
        f'stroke="{QUIET}"/>'
    )
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "tasks of a step", TEXT, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="22" y="{middle}" fill="{TEXT}" text-anchor="middle" transform="rotate(-90 22 {middle})">seconds</text>'
    )
    return parts


def _legend() -> list[str]:
    x, y = WIDTH - RIGHT - 320, HEIGHT - BOTTOM - 48
    parts: list[str] = []
    for row, (colour, label) in enumerate(
        ((EXPLICIT, "explicit: parse, verify the IR, decide"), (COMPACT, "compact: verify the IR, decide"))
    ):
        parts.append(f'<circle cx="{x}" cy="{y + 22 * row}" r="4.5" fill="{colour}"/>')
        parts.append(_text(x + 12, y + 22 * row + 4, label, TEXT))
    return parts


def _fraction(value: float, limits: tuple[float, float]) -> float:
    return (log10(value) - log10(limits[0])) / (log10(limits[1]) - log10(limits[0]))


def _x(tasks: float) -> float:
    return LEFT + _fraction(tasks, X_RANGE) * (WIDTH - LEFT - RIGHT)


def _y(seconds: float) -> float:
    return HEIGHT - BOTTOM - _fraction(seconds, Y_RANGE) * (HEIGHT - TOP - BOTTOM)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, style: str = "") -> str:
    return f'<line x1="{_x(x1):.1f}" y1="{_y(y1):.1f}" x2="{_x(x2):.1f}" y2="{_y(y2):.1f}" stroke="{colour}" {style}/>'


def _text(x: float, y: float, text: str, colour: str, anchor: str = "start", size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="{size}" {HALO}>{text}</text>'
    )
