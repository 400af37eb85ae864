"""The use of runs over time: samples of a run into a small file beside its spool, series out.

The file is a line of JSON for each second in which the run was looked at. It holds the processor
time so far rather than a percentage, so that a second without a sample, as between two
servers, is spread over its interval instead of lost. It only grows, by a run that has a time limit.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .regular_files import open_regular
from .runners.base import RunHandle

logger = logging.getLogger(__name__)

PERIOD_S = 1.0
#: When a run is first looked at: a short one needs a value, and a trivial one must cost nothing.
FIRST_S = 0.5

GPU_SERIES = (
    "gpuUtilizationPercent",
    "gpuMemoryUtilizationPercent",
    "gpuTemperatureCelsius",
    "gpuPowerWatt",
    "gpuPowerLimitWatt",
    "gpuClockSmMhz",
    "gpuClockMemMhz",
    "gpuPcieThroughputRxBytesPerSec",
    "gpuPcieThroughputTxBytesPerSec",
)
CPU, RAM_USED, RAM_TOTAL = "systemCpuUsagePercent", "systemRamUsedBytes", "systemRamTotalBytes"
SERIES = (*GPU_SERIES, RAM_TOTAL, RAM_USED, CPU)


@dataclass(frozen=True, slots=True)
class Sample:
    """The resources that a run used at one moment.

    Attributes:
        at: seconds since 1970.
        cpu_s: seconds of processor time that it had used by then.
        memory_bytes: resident memory.
        gpu: name of a series -> value, of its machine's GPUs.
    """

    at: float
    cpu_s: float
    memory_bytes: int
    gpu: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Point:
    """The average of a step; `at` is its beginning, in seconds since 1970."""

    at: float
    value: float


def samples_file(spool: Path) -> Path:
    """Return the path of the samples of the run with this spool."""
    return spool.with_name("usage")


async def record_usage(handle: RunHandle) -> None:
    """Sample a run that has begun, until it is cancelled."""
    path = samples_file(handle.spool)
    due_s = FIRST_S
    try:
        while True:
            await asyncio.sleep(due_s)
            due_s = PERIOD_S
            if (usage := await handle.usage()) is not None:
                sample = Sample(time.time(), usage.cpu_s, usage.memory_bytes, usage.gpu)
                await asyncio.to_thread(_append, path, sample)
    except OSError as exc:  # the disk is full, or the program has taken its folder away
        logger.warning("what run %s uses is recorded no more: %s", handle.run_id, exc.strerror)
    except Exception:  # the top of a task that is never awaited
        logger.exception("what run %s uses is recorded no more", handle.run_id)


def read_samples(spool: Path | None) -> list[Sample]:
    """Return the samples of a run, oldest first; empty if there are none."""
    samples = []
    try:
        text = _read(samples_file(spool)) if spool is not None else ""
    except (OSError, UnicodeDecodeError):  # none yet, or the program has taken or replaced it
        text = ""
    for line in text.split("\n"):
        try:
            at, cpu_s, memory_bytes, gpu = json.loads(line)
        except (ValueError, TypeError):
            continue  # the end, or a line that a server did not finish
        samples.append(Sample(at, cpu_s, memory_bytes, gpu))
    return samples


def series(
    samples: Sequence[Sample],
    *,
    began_at: float,
    start: float,
    end: float,
    step_s: float,
    total_bytes: int,
) -> dict[str, list[Point]]:
    """Every series of the wire, each with the average of each step that has samples.

    Args:
        samples: all of the run, oldest first.
        began_at: when the run began, in seconds since 1970.
        start, end: what is asked for, likewise.
        total_bytes: how much memory the run could have had.
    """
    steps: dict[str, dict[int, list[float]]] = {name: {} for name in SERIES}
    last = Sample(began_at, 0.0, 0)
    processors = os.cpu_count() or 1
    for sample in samples:
        elapsed_s, used_s = sample.at - last.at, sample.cpu_s - last.cpu_s
        values: dict[str, float] = {
            **sample.gpu,
            RAM_TOTAL: total_bytes,
            RAM_USED: sample.memory_bytes,
        }
        if elapsed_s > 0:
            # A child that ended unwaited for takes its time with it, and clocks are set back.
            values[CPU] = max(0.0, used_s / elapsed_s / processors * 100)
        last = sample
        if start <= sample.at <= end:
            step = int((sample.at - start) / step_s)
            for name in steps.keys() & values.keys():
                steps[name].setdefault(step, []).append(values[name])
    return {
        name: [
            Point(start + step * step_s, sum(found) / len(found))
            for step, found in sorted(by_step.items())
        ]
        for name, by_step in steps.items()
    }


def _read(path: Path) -> str:
    with open(open_regular(path), encoding="utf-8") as file:
        return file.read()


def _append(path: Path, sample: Sample) -> None:
    line = json.dumps([sample.at, sample.cpu_s, sample.memory_bytes, dict(sample.gpu)])
    descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with open(descriptor, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
