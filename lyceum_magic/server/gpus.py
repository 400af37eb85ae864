"""The machine's GPUs: whether there are any, and what they do, in the series of the wire.

NVIDIA's library (NVML) says what they do, if its Python package `pynvml` is installed (the extra
`gpu`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

#: What NVIDIA's driver makes on Linux, and on Windows' Linux.
_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))

#: What the row says of a run that asked for one.
NO_GPU = "no GPU on this machine: runs on the CPU"
NO_ENGINE_GPU = "the engine hands out no GPU: runs on the CPU"

#: Across several GPUs these add up; of the others the average is told.
_SUMS = {
    "gpuPowerWatt",
    "gpuPowerLimitWatt",
    "gpuPcieThroughputRxBytesPerSec",
    "gpuPcieThroughputTxBytesPerSec",
}


def has_gpu() -> bool:
    """Return whether this machine has a GPU with its driver, which runs can use."""
    return any(device.exists() for device in _DEVICES)


def read_gpus() -> Mapping[str, float]:
    """Return series -> value for the GPUs; empty if there is none, or no library to ask."""
    nvml = _nvml()
    if nvml is None:
        return {}
    found: dict[str, list[float]] = {}
    with contextlib.suppress(
        nvml.NVMLError
    ):  # a driver that is being replaced, a GPU that fell out
        for index in range(nvml.nvmlDeviceGetCount()):
            for name, value in _read(nvml, nvml.nvmlDeviceGetHandleByIndex(index)).items():
                found.setdefault(name, []).append(value)
    return {
        name: sum(values) / (1 if name in _SUMS else len(values)) for name, values in found.items()
    }


@lru_cache(maxsize=1)
def _nvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # the library without a driver
        return None
    return pynvml


def _read(nvml: Any, gpu: Any) -> dict[str, float]:
    def utilization() -> float:
        return float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu)

    def memory() -> float:
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
        return float(100 * memory.used / memory.total)

    def pcie(direction: int) -> float:
        return float(nvml.nvmlDeviceGetPcieThroughput(gpu, direction)) * 1024  # from KiB

    readers: dict[str, Callable[[], float]] = {
        "gpuUtilizationPercent": utilization,
        "gpuMemoryUtilizationPercent": memory,
        "gpuTemperatureCelsius": lambda: float(
            nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
        ),
        "gpuPowerWatt": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,  # from milliwatts
        "gpuPowerLimitWatt": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
        "gpuClockSmMhz": lambda: float(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
        "gpuClockMemMhz": lambda: float(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
        "gpuPcieThroughputRxBytesPerSec": lambda: pcie(nvml.NVML_PCIE_UTIL_RX_BYTES),
        "gpuPcieThroughputTxBytesPerSec": lambda: pcie(nvml.NVML_PCIE_UTIL_TX_BYTES),
    }
    values = {}
    for name, read in readers.items():
        try:
            values[name] = read()
        except nvml.NVMLError:  # not every GPU says everything
            continue
    return values
