"""Two panels of lines over a logarithmic axis, as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 900
HEIGHT: Final = 400
TICKS: Final = (3, 5, 10, 25, 50, 100, 200)
COLOURS: Final = ("#555555", "#0072b2", "#e69f00", "#d55e00")
"""Of equal number as the lines of a panel, and told apart by those who see no red."""

_TOP: Final = 110
_BOTTOM: Final = 45
_MARGIN: Final = 45
_LEGEND_STEP: Final = 18


@dataclass(frozen=True)
class Series:
    """A line through points (size, value)."""

    name: str
    points: Sequence[tuple[int, float]]
    dashed: bool = False


def draw(*panels: tuple[str, Sequence[Series]]) -> str:
    """An SVG of the panels side by side, each with its title."""
    width = WIDTH / len(panels)
    drawn = [_panel(index * width, width, *panel) for index, panel in enumerate(panels)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *(line for panel in drawn for line in panel),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _panel(left: float, width: float, title: str, series: Sequence[Series]) -> list[str]:
    sizes = [size for line in series for size, _ in line.points]
    highest = max(value for line in series for _, value in line.points)
    step = _step(highest)
    top_value = step * math.ceil(highest / step)
    low, span = math.log(min(sizes)), math.log(max(sizes) / min(sizes)) or 1.0

    def x(size: float) -> float:
        return left + _MARGIN + (math.log(size) - low) / span * (width - 1.5 * _MARGIN)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - value / top_value * (HEIGHT - _TOP - _BOTTOM)

    lines = [_text(left + _MARGIN, 20, title, 'font-weight="bold"')]
    for count in range(round(top_value / step) + 1):
        height = y(count * step)
        right = x(max(sizes))
        lines.append(f'<path d="M{x(min(sizes)):.1f} {height:.1f}H{right:.1f}" stroke="#dddddd"/>')
        lines.append(
            _text(left + _MARGIN - 6, height + 4, f"{count * step:g}", 'text-anchor="end"')
        )
    for tick in TICKS:
        if min(sizes) <= tick <= max(sizes):
            lines.append(_text(x(tick), HEIGHT - _BOTTOM + 18, f"{tick}", 'text-anchor="middle"'))
    lines.append(_text(left + width / 2, HEIGHT - 8, "members", 'text-anchor="middle"'))
    for index, line in enumerate(series):
        path = "L".join(f"{x(size):.1f} {y(value):.1f}" for size, value in line.points)
        style = f'stroke="{COLOURS[index]}" stroke-width="2" fill="none"'
        style += ' stroke-dasharray="5 4"' if line.dashed else ""
        at = 38 + index * _LEGEND_STEP
        lines.append(f'<path d="M{path}" {style}/>')
        lines.append(f'<path d="M{left + _MARGIN:.1f} {at - 4}h24" {style}/>')
        lines.append(_text(left + _MARGIN + 30, at, line.name))
    return lines


def _step(highest: float) -> float:
    """A round number that fits four to ten times."""
    power = 10.0 ** math.floor(math.log10(highest / 4))
    return max(power * factor for factor in (1, 2, 5) if power * factor <= highest / 4)


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{text}</text>'
