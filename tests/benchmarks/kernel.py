"""A real kernel, and what a front end sees of it, for benchmarks."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

_LIMIT_S = 180


class Kernel:
    """A real kernel of this interpreter, and what a front end would see of it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._manager = KernelManager(
            kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])
        )
        self._manager.start_kernel(
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        _receive_all(self._client.iopub_channel.socket)
        self._client.wait_for_ready(timeout=_LIMIT_S)
        self.pid = int(self.value("__import__('os').getpid()"))

    def run(self, code: str, on_output: Callable[[Any], None] = lambda message: None) -> float:
        """Run a cell; return the seconds until its last output was here."""
        begun = time.perf_counter()
        reply = self._client.execute_interactive(code, output_hook=on_output, timeout=_LIMIT_S)
        elapsed_s = time.perf_counter() - begun
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"{code!r} failed: {reply['content'].get('evalue')}")
        return elapsed_s

    def value(self, expression: str) -> str:
        """The repr of an expression in the kernel."""
        reply = self._client.execute_interactive(
            "", user_expressions={"it": expression}, timeout=_LIMIT_S
        )
        return str(reply["content"]["user_expressions"]["it"]["data"]["text/plain"])

    def forget_peak(self) -> int:
        """Make the high-water mark of its memory start from now; return the bytes that it has."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self._status_bytes("VmRSS")

    def peak_bytes(self) -> int:
        """The most memory that it has had since then."""
        return self._status_bytes("VmHWM")

    def _status_bytes(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB", status, re.M)
        assert found, f"no {name} of process {self.pid}"
        return int(found[1]) * 1024

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel()


def _receive_all(subscriber: zmq.Socket[bytes]) -> None:
    """Take the limit off a socket's queue.

    Past the usual 1000 messages a subscriber loses some, "idle" among them, and a loop that prints
    sends more than that.
    """
    address = subscriber.getsockopt(zmq.LAST_ENDPOINT)
    subscriber.disconnect(address)
    subscriber.setsockopt(zmq.RCVHWM, 0)  # holds for connections made from now on
    subscriber.connect(address)


@contextmanager
def kernel(environment: dict[str, str]) -> Iterator[Kernel]:
    made = Kernel(environment)
    try:
        yield made
    finally:
        made.close()
