"""`%lyceum metrics`: the wire's series become a chart; what is no number is left out."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

import lyceum_magic
from lyceum_magic.display.chart import Chart, Series, sparkline
from lyceum_magic.magic.commands.metrics import read_series
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.line import run_line
from lyceum_magic.protocol import paths
from tests.tools.wire_server import WireServer, json_answer

DEFAULTS = Defaults(machine="cpu", timeout_s=600, max_lines=10, max_bytes=1000)
MOMENTS = ["2026-11-22T08:00:00+00:00", "2026-11-22T08:00:15Z", "2026-11-22T09:00:30+01:00"]
NAMES = {
    "systemCpuUsagePercent": [10, 90.5, 50],
    "systemRamUsedBytes": [1e9, 2e9, 1.5e9],
    "systemRamTotalBytes": [8e9, 8e9, 8e9],
    "gpuUtilizationPercent": [0, 100, 99],
    "gpuMemoryUtilizationPercent": [None, None, 30],
}


def answer(**series: list[object]) -> dict[str, object]:
    return {
        "executionId": "run",
        "hostname": "h",
        "timeRange": {"start": MOMENTS[0], "end": MOMENTS[-1]},
        **{
            name: [
                {"timestamp": moment, "value": value}
                for moment, value in zip(MOMENTS, values, strict=True)
            ]
            for name, values in series.items()
        },
    }


def metrics() -> object:
    return run_line("metrics", DEFAULTS, lambda name, value: None)


def test_a_run_is_drawn_with_what_was_measured(wire: WireServer) -> None:
    lyceum_magic.submit("1", name="train <&>", requirements=[]).result()
    wire.on("GET", paths.metrics("run"), json_answer(answer(**NAMES)))
    chart = metrics()
    assert isinstance(chart, Chart)
    assert wire.requests[-1].query == "step=1s"  # of a run of less than 100 s
    assert repr(chart).splitlines() == [
        "run run (train <&>) on cpu, completed",
        "Processor   ▁█▅  mean 50.2 %, most 90.5 %",
        "Memory      ▅█▇  mean 1.5 GB, most 2 GB of 8 GB",
        "GPU         ▁██  mean 66.3 %, most 100 %",
        "GPU memory  ▃  mean 30 %, most 30 %",
    ]
    root = ElementTree.fromstring(chart._repr_svg_())
    lines = [node for node in root.iter() if node.tag.endswith("polyline")]
    assert len(lines) == 4
    first = [tuple(map(float, point.split(","))) for point in lines[0].attrib["points"].split()]
    # Later is further right, and more is higher up.
    assert first[0][0] < first[1][0] < first[2][0]
    assert first[0][1] > first[2][1] > first[1][1]
    assert "train <&>" in "".join(root.itertext())


def test_nothing_measured_is_said(wire: WireServer) -> None:
    lyceum_magic.submit("1").result()
    wire.on("GET", paths.metrics("run"), json_answer(answer()))
    assert repr(metrics()).startswith("Nothing was measured of run run on cpu, completed: ")


@pytest.mark.parametrize(
    "values",
    [
        None, "x", 7, [], [None], ["x"], [{}], [{"timestamp": 1}], [{"value": 1}],
        [{"timestamp": "soon", "value": 1}], [{"timestamp": 1, "value": "1"}],
        [{"timestamp": 1, "value": True}], [{"timestamp": 1, "value": float("nan")}],
        [{"timestamp": float("inf"), "value": 1}],
    ],
)  # fmt: skip
def test_what_is_no_measurement_is_left_out(values: object) -> None:
    assert read_series({"systemCpuUsagePercent": values}) == []


def test_times_count_from_the_first_of_all_and_come_in_order() -> None:
    read = read_series(
        {
            "systemCpuUsagePercent": [
                {"timestamp": 120, "value": 2},
                {"timestamp": 110.5, "value": 1},
            ],
            "gpuUtilizationPercent": [{"timestamp": "1970-01-01T00:01:40", "value": 3}],
        }
    )
    assert [series.points for series in read] == [[(10.5, 1.0), (20.0, 2.0)], [(0.0, 3.0)]]


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [5e12, 0.1], [250.0, 100.0], [1e-9]])
@pytest.mark.parametrize("unit", ["%", "bytes"])
def test_any_values_fit_into_the_frame(values: list[float], unit: str) -> None:
    series = Series("x\x00y", unit, [(15.0 * n, value) for n, value in enumerate(values)])
    root = ElementTree.fromstring(Chart("t\x1b", [series])._repr_svg_())
    (line,) = [node for node in root.iter() if node.tag.endswith("polyline")]
    for point in line.attrib["points"].split():
        x, y = map(float, point.split(","))
        assert 60 <= x <= 340
        assert 38 <= y <= 130


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_drawing_holds_its_title_and_fits_beside_a_sidebar(count: int) -> None:
    title = f"run 0a1b2c3d ({'n' * 40}) on gpu.a100.8x, completed"
    series = Series("Memory", "bytes", [(0.0, 1.0)])
    root = ElementTree.fromstring(Chart(title, [series] * count)._repr_svg_())
    assert 6 * len(title) < int(root.attrib["width"]) <= 640
    assert "max-width:100%" in root.attrib["style"]


def test_a_long_series_is_a_short_line_of_text() -> None:
    points = [(float(n), 100.0 * (n >= 500)) for n in range(1000)]
    assert sparkline(Series("x", "%", points)) == "▁" * 20 + "█" * 20
