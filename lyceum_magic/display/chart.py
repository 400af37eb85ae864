"""Measured series -> small charts in one picture (SVG), or a line of text each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from ..protocol.lines import one_line
from .progress import size
from .summary import duration

#: Pixels of one chart, and of the frame in which its line is drawn. A row of them fits into a
#: notebook beside Lab's sidebar: Lab would cut off the rest.
_WIDTH, _HEIGHT = 315, 150
_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 40, 14, 24
_COLUMNS = 2
#: Width of one character of the title, roughly, in pixels.
_TITLE_WIDTH = 7

_TICKS = "▁▂▃▄▅▆▇█"
#: Width of a line of text, in characters.
_TEXT_WIDTH = 40

_COLOURS = ("#1565c0", "#2e7d32", "#6a4fb3", "#ad1457")


@dataclass(frozen=True)
class Series:
    """One quantity over time.

    Attributes:
        unit: "%" or "bytes".
        points: (seconds since the run's start, value), in the order of time; one at least.
        limit: its maximum possible value, None if that is unknown.
    """

    name: str
    unit: str
    points: Sequence[tuple[float, float]]
    limit: float | None = None

    @property
    def values(self) -> list[float]:
        return [value for _, value in self.points]

    def worded(self, value: float) -> str:
        return size(value) if self.unit == "bytes" else f"{value:.3g} {self.unit}"

    @property
    def summary(self) -> str:
        values = self.values
        mean, most = sum(values) / len(values), max(values)
        limit = f" of {self.worded(self.limit)}" if self.unit == "bytes" and self.limit else ""
        return f"mean {self.worded(mean)}, most {self.worded(most)}{limit}"


class Chart:
    """A picture of all series of one run, with a text for terminals."""

    def __init__(self, title: str, series: Sequence[Series]) -> None:
        self.title = one_line(title)
        self.series = list(series)

    def __repr__(self) -> str:
        width = max((len(one.name) for one in self.series), default=0)
        lines = [f"{one.name:<{width}}  {sparkline(one)}  {one.summary}" for one in self.series]
        return "\n".join([self.title, *lines])

    def _repr_svg_(self) -> str:
        rows = -(-len(self.series) // _COLUMNS)
        width = max(_WIDTH * min(len(self.series), _COLUMNS), 28 + _TITLE_WIDTH * len(self.title))
        height = 30 + rows * _HEIGHT
        panels = "".join(
            f'<g transform="translate({number % _COLUMNS * _WIDTH},'
            f'{30 + number // _COLUMNS * _HEIGHT})">'
            f"{_panel(one, _COLOURS[number % len(_COLOURS)])}</g>"
            for number, one in enumerate(self.series)
        )
        # A white background: in a notebook's dark theme, dark words would stand on a dark page.
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="11" '
            'fill="#555" style="max-width:100%;height:auto">'
            '<rect width="100%" height="100%" rx="6" fill="#fff"/>'
            f'<text x="14" y="20" font-size="13" fill="#222">{_words(self.title)}</text>'
            f"{panels}</svg>"
        )


def sparkline(series: Series) -> str:
    """Return the series as a few characters, each as high as the mean of its part."""
    values = series.values
    width = min(len(values), _TEXT_WIDTH)
    cuts = [at * len(values) // width for at in range(width + 1)]
    means = [sum(values[i:k]) / (k - i) for i, k in pairwise(cuts)]
    top = _ceiling(series)
    return "".join(_TICKS[min(7, max(0, int(8 * mean / top)))] for mean in means)


def _panel(series: Series, colour: str) -> str:
    begin, end = series.points[0][0], series.points[-1][0]
    top = _ceiling(series)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(moment: float, value: float) -> str:
        x = _LEFT + wide * (moment - begin) / ((end - begin) or 1.0)
        return f"{x:.1f},{_TOP + high * (1 - min(value / top, 1.0)):.1f}"

    line = " ".join(place(*point) for point in series.points)
    if len(series.points) == 1:  # one moment: a level line
        line = f"{line} {place(begin + 1.0, series.values[0])}"
    bottom, right = _TOP + high, _LEFT + wide
    last_x = line.rpartition(" ")[2].partition(",")[0]
    grid = "".join(
        f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e0e0e0"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{series.worded(level)}</text>'
        for level in (0.0, top / 2, top)
        for y in [_TOP + high * (1 - level / top)]
    )
    return (
        f'<text x="14" y="16" fill="#222" font-weight="600">{_words(series.name)}</text>'
        f'<text x="14" y="30">{series.summary}</text>{grid}'
        f'<polygon points="{_LEFT},{bottom} {line} {last_x},{bottom}" fill="{colour}" '
        'fill-opacity="0.12"/>'
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6" '
        'stroke-linejoin="round"/>'
        f'<text x="{_LEFT}" y="{bottom + 16}">{duration(begin)}</text>'
        f'<text x="{right}" y="{bottom + 16}" text-anchor="end">{duration(end)}</text>'
    )


def _words(text: str) -> str:
    # XML knows no control characters, however they are written.
    return escape(one_line(text))


def _ceiling(series: Series) -> float:
    """Return the top of the scale: a round number above the largest value, or 100 %."""
    most = max(series.values)
    if series.unit == "%" and most <= 100:
        return 100.0
    step = 1.0
    while step * 10 < most:
        step *= 10
    return next((step * n for n in (1, 2, 4, 6, 8, 10) if step * n >= most), step * 10) or 1.0
