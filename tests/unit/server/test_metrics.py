"""The use of runs: samples in, the wire's series out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.server import gpus, metrics
from lyceum_magic.server.metrics import SERIES, Sample, read_samples, samples_file, series
from lyceum_magic.server.runners.base import Usage

from .serving import read_stream, serving
from .test_routes_replies import play

pytestmark = pytest.mark.anyio

PROCESSORS = os.cpu_count() or 1


def points(
    samples: list[Sample], name: str, *, start: float = 100, end: float = 200, step_s: float = 10
) -> list[tuple[float, float]]:
    found = series(
        samples, began_at=100, start=start, end=end, step_s=step_s, total_bytes=1 << 30
    )[name]  # fmt: skip
    return [(point.at, point.value) for point in found]


SAMPLES = [
    Sample(101, 0.5 * PROCESSORS, 10),
    Sample(102, 1.5 * PROCESSORS, 30),
    Sample(111, 1.5 * PROCESSORS, 50),
]


def test_a_step_is_the_average_of_its_samples() -> None:
    assert points(SAMPLES, "systemRamUsedBytes") == [(100, 20), (110, 50)]
    # Processor time is spread over the time since the sample before, or the run's beginning.
    assert points(SAMPLES, "systemCpuUsagePercent") == [(100, 75), (110, 0)]
    assert points(SAMPLES, "systemRamTotalBytes") == [(100, 1 << 30), (110, 1 << 30)]


def test_a_range_leaves_out_what_lies_outside() -> None:
    assert points(SAMPLES, "systemRamUsedBytes", start=101.5, step_s=1) == [
        (101.5, 30),
        (110.5, 50),
    ]
    assert points(SAMPLES, "systemRamUsedBytes", end=101) == [(100, 10)]
    # Its first sample still counts from the one before it.
    assert points(SAMPLES, "systemCpuUsagePercent", start=102, end=103) == [(102, 100)]


def test_a_clock_that_was_set_back_yields_nothing_negative() -> None:
    odd = [Sample(101, 5, 1), Sample(100.5, 4, 1), Sample(103, 1, 1)]
    assert all(value >= 0 for _, value in points(odd, "systemCpuUsagePercent"))


def test_a_line_that_a_server_did_not_finish_is_passed_over(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    assert read_samples(spool) == []
    samples_file(spool).write_text(
        '[1.5, 0.5, 7, {}]\n5\n[2.5, 1.0, 9, {"gpuPowerWatt": 3}]\n[3.5,'
    )
    assert read_samples(spool) == [Sample(1.5, 0.5, 7), Sample(2.5, 1.0, 9, {"gpuPowerWatt": 3})]


async def test_metrics_have_the_names_and_shapes_of_the_wire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "FIRST_S", 0.0)
    async with serving(tmp_path) as served:
        started = await served.start()
        handle = await served.runner.next_run()
        handle.uses = Usage(cpu_s=0.01, memory_bytes=1234)
        handle.begin()
        path = paths.metrics(started["execution_id"])
        while not (reply := (await served.client.get(path)).json())["systemRamUsedBytes"]:
            assert (await served.client.get(paths.WORKLOADS)).json()
        handle.end()
        await read_stream(served.client, started["streaming_url"])
        after = (await served.client.get(path)).json()
    assert set(reply) == {"executionId", "hostname", "timeRange", *SERIES}
    assert reply["systemRamUsedBytes"][0]["value"] == 1234
    assert reply["systemCpuUsagePercent"][0]["value"] > 0
    assert reply["systemRamTotalBytes"][0]["value"] > 1 << 20
    assert reply["timeRange"]["start"] == reply["systemRamUsedBytes"][0]["timestamp"]
    assert after["systemRamUsedBytes"] != []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"step": "soon"}, "step"),
        ({"step": "0s"}, "step"),
        ({"step": "-1s"}, "step"),
        ({"step": "999999s"}, "step"),
        ({"start": "yesterday"}, "start"),
        ({"end": "0001-01-01T00:00:00+14:00"}, "end"),
        ({"start": "2026-02-02T00:00:00Z", "end": "2026-02-01T00:00:00Z"}, "end"),
    ],
)
async def test_a_range_that_makes_no_sense_is_refused(
    tmp_path: Path, query: dict[str, str], field: str
) -> None:
    async with serving(tmp_path) as served:
        run_id = await play(served)
        reply = await served.client.get(paths.metrics(run_id), params=query)
        fine = await served.client.get(
            paths.metrics(run_id), params={"start": "2026-02-01T00:00:00", "step": "1m"}
        )
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"] == ["query", field]
    assert fine.status_code == 200
    assert fine.json()["timeRange"]["start"] == "2026-02-01T00:00:00+00:00"


async def test_metrics_of_an_unknown_run_are_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert (await served.client.get(paths.metrics("nobody"))).status_code == 404


# --- logs, history, money ----------------------------------------------------------------------


async def test_the_logs_of_all_runs_are_one_log(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        one = await play(served, ("stdout", b"a\nb\n"))
        two = await play(served, ("stderr", b"c\nd\n"))
        going_on = (await served.start())["execution_id"]
        handle = await served.runner.next_run()
        handle.begin()
        handle.write(b"e\n")
        logs = (await served.client.get(paths.USER_LOGS)).json()
        last = (await served.client.get(paths.USER_LOGS, params={"limit": 3})).json()
        for query in ({"limit": 0}, {"limit": 5001}, {"hours": 0}, {"hours": 25}):
            assert (await served.client.get(paths.USER_LOGS, params=query)).status_code == 422
    said = [(entry["execution_id"], entry["message"], entry["level"]) for entry in logs["logs"]]
    assert said == [
        (one, "a", "info"), (one, "b", "info"), (two, "c", "error"), (two, "d", "error"),
        (going_on, "e", "info"),
    ]  # fmt: skip
    assert logs["total"] == 5
    assert [entry["message"] for entry in last["logs"]] == ["c", "d", "e"]


async def test_the_history_has_every_field_of_the_wire(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await play(served)
        page = (await served.client.get(paths.HISTORY)).json()
    assert set(page) == {
        "executions", "total_executions", "total_credits_spent", "limit", "offset",
        "counts_by_status",
    }  # fmt: skip
    assert page["counts_by_status"] == {"completed": 1}
    fields = {
        "execution_id", "created_at", "execution_type", "status", "hardware_profile",
        "status_details", "local_imports", "billed", "execelet_start", "start_time", "end_time",
        "finish_time", "job_start", "job_end", "file_name", "errors_docker",
        "parent_execution_id", "job_type", "metadata",
    }  # fmt: skip
    assert fields <= set(page["executions"][0])
    assert page["executions"][0]["finish_time"] == page["executions"][0]["end_time"]


async def test_nothing_costs_anything(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        credits = (await served.client.get(paths.CREDITS)).json()
        prices = (await served.client.get(paths.PRICING)).json()["prices"]
    assert set(credits) == {
        "available_credits", "used_credits", "total_credits_used", "remaining_credits",
        "monthly_free_credits", "purchased_credits", "signup_grant_claimed_at",
    }  # fmt: skip
    assert {price["unit_price"] for price in prices} == {0.0}
    assert "gpu.a100" in {price["group_by"]["hardware_profile"] for price in prices}


# --- GPUs --------------------------------------------------------------------------------------

#: NVIDIA's module, for a machine with two GPUs of which one does not tell its power.
NVML = """
class NVMLError(Exception): pass
class Utilization: gpu = 40
class Memory: used, total = 1, 4
NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2
NVML_PCIE_UTIL_TX_BYTES, NVML_PCIE_UTIL_RX_BYTES = 0, 1
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetUtilizationRates(gpu): return Utilization
def nvmlDeviceGetMemoryInfo(gpu): return Memory
def nvmlDeviceGetTemperature(gpu, sensor): return 50 + 10 * gpu
def nvmlDeviceGetPowerUsage(gpu):
    if gpu: raise NVMLError
    return 70_000
def nvmlDeviceGetEnforcedPowerLimit(gpu): return 300_000
def nvmlDeviceGetClockInfo(gpu, clock): return 1000 * clock
def nvmlDeviceGetPcieThroughput(gpu, direction): return 1 + direction
"""


@pytest.fixture
def fresh_nvml() -> Iterator[None]:
    def forget() -> None:
        gpus._nvml.cache_clear()
        sys.modules.pop("pynvml", None)

    forget()
    yield
    forget()


@pytest.mark.usefixtures("fresh_nvml")
def test_gpus_are_read_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pynvml.py").write_text(NVML)
    monkeypatch.syspath_prepend(tmp_path)
    found = gpus.read_gpus()
    assert found == {
        "gpuUtilizationPercent": 40, "gpuMemoryUtilizationPercent": 25,
        "gpuTemperatureCelsius": 55, "gpuPowerWatt": 70, "gpuPowerLimitWatt": 600,
        "gpuClockSmMhz": 1000, "gpuClockMemMhz": 2000,
        "gpuPcieThroughputRxBytesPerSec": 4096, "gpuPcieThroughputTxBytesPerSec": 2048,
    }  # fmt: skip
    assert set(found) == set(metrics.GPU_SERIES)


@pytest.mark.usefixtures("fresh_nvml")
@pytest.mark.parametrize("nvml", ["raise ImportError", NVML + "\ndef nvmlInit(): raise NVMLError"])
def test_without_gpus_there_is_nothing_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nvml: str
) -> None:
    (tmp_path / "pynvml.py").write_text(nvml)
    monkeypatch.syspath_prepend(tmp_path)
    assert gpus.read_gpus() == {}
