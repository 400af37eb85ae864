"""Whether there is a GPU here that runs can have."""

from __future__ import annotations

from pathlib import Path

#: What NVIDIA's driver makes on Linux, and on Windows' Linux.
_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def has_gpu() -> bool:
    """Whether this machine has a GPU with its driver."""
    return any(device.exists() for device in _DEVICES)
