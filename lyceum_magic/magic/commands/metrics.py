"""`%lyceum metrics [ID]`: a chart of what the server has measured of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ...display.chart import Chart, Series
from ...display.tables import Says
from ...runs.workspace import workspace
from ..parsing import Parser
from . import RUN_ID, Call

#: Series of the wire -> its title in the chart, its unit, and the series that holds its limit.
_SERIES = {
    "systemCpuUsagePercent": ("Processor", "%", ""),
    "systemRamUsedBytes": ("Memory", "bytes", "systemRamTotalBytes"),
    "gpuUtilizationPercent": ("GPU", "%", ""),
    "gpuMemoryUtilizationPercent": ("GPU memory", "%", ""),
}


def add_arguments(parser: Parser) -> None:
    parser.add_argument("id", nargs="?", default="last", help=RUN_ID)


def run(call: Call) -> Chart | Says:
    run = workspace().attach(call.options.id)
    series = read_series(run.metrics())
    name = f" ({run.name:.40})" if run.name else ""
    title = f"run {run.id[:8]}{name} on {run.machine}, {run.state}"
    if not series:
        when = "was measured" if run.state.is_final else "has been measured so far"
        return Says(f"Nothing {when} of {title}: a short run ends before the first measurement.")
    return Chart(title, series)


def read_series(answer: Mapping[str, Any]) -> list[Series]:
    """Return the series of an answer that have values, in the order in which they are drawn.

    Their times are in seconds since the first of all measurements.
    """
    found = {name: _points(answer.get(name)) for name in (*_SERIES, "systemRamTotalBytes")}
    begin = min((points[0][0] for points in found.values() if points), default=0.0)
    series = []
    for name, (title, unit, limited_by) in _SERIES.items():
        limit = max((value for _, value in found.get(limited_by, ())), default=None)
        if points := [(moment - begin, value) for moment, value in found[name]]:
            series.append(Series(title, unit, points, limit))
    return series


def _points(values: object) -> list[tuple[float, float]]:
    points = []
    for item in values if isinstance(values, list) else ():
        if isinstance(item, dict):
            moment, value = _seconds(item.get("timestamp")), _number(item.get("value"))
            if moment is not None and value is not None:
                points.append((moment, value))
    return sorted(points)


def _seconds(moment: object) -> float | None:
    """Return a moment, which is in ISO 8601 or a number, in seconds since 1970."""
    if (number := _number(moment)) is not None:
        return number
    try:
        read = datetime.fromisoformat(str(moment))
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
