"""A real Jupyter Server with its token on and its log at DEBUG, and kernels that it starts."""

from __future__ import annotations

import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import zmq
from jupyter_client.blocking.client import BlockingKernelClient

from .kernel import LIMIT_S, Kernel

_STOP_S = 20


@dataclass(frozen=True)
class JupyterServer:
    """A running server; `base` is its base URL's path, `pid` its process."""

    port: int
    base: str
    token: str
    pid: int
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def ask(self, method: str, path: str) -> bytes:
        """The answer to a request with the token."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{self.base}{path}",
            method=method,
            headers={"Authorization": f"token {self.token}"},
            data=b"{}" if method == "POST" else None,
        )
        # A proxy from the environment has no business on loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as response:
            return bytes(response.read())

    @contextmanager
    def kernel(self) -> Iterator[Kernel]:
        """A kernel that this server has started, with `lyceum_magic` loaded."""
        kernel_id = json.loads(self.ask("POST", "api/kernels"))["id"]
        client = BlockingKernelClient()
        client.load_connection_file(str(self.folder / "runtime" / f"kernel-{kernel_id}.json"))
        client.context.setsockopt(zmq.RCVHWM, 0)
        client.start_channels()
        try:
            _wait_until_ready(client)
            kernel = Kernel(_Started(), client, {})
            loaded = kernel.run("%load_ext lyceum_magic")
            assert loaded.error is None, loaded
            yield kernel
        finally:
            client.stop_channels()
            self.ask("DELETE", f"api/kernels/{kernel_id}")


def _wait_until_ready(client: BlockingKernelClient) -> None:
    """Wait like `wait_for_ready`, which mistakes a kernel on a busy machine for a dead one."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        assert time.monotonic() < deadline, "the kernel does not answer"
        client.kernel_info()
        with suppress(queue.Empty):
            client.get_shell_msg(timeout=1)
            client.get_iopub_msg(timeout=0.2)
            return


class _Started:
    """The methods of a kernel manager that `Kernel` calls."""

    def is_alive(self) -> bool:
        return True


@contextmanager
def running_jupyter_server(
    folder: Path, *, env: Mapping[str, str] | None = None, base: str = "/user/ann/"
) -> Iterator[JupyterServer]:
    """Start a server as users do, so that it loads what is installed.

    Args:
        folder: holds everything the server writes; `server.log` is its log.
        env: variables that it has beside those of this process.
    """
    places = {
        f"JUPYTER_{name.upper()}_DIR": folder / name for name in ("config", "data", "runtime")
    } | {"IPYTHONDIR": folder / "ipython"}
    for place in places.values():
        place.mkdir(parents=True)
    port, token = _free_port(), secrets.token_hex(16)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"),
                *("--debug", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"),
                *("--ServerApp.port_retries=0", f"--ServerApp.base_url={base}"),
                f"--ServerApp.root_dir={folder}",
            ],
            env={**os.environ, **{name: str(place) for name, place in places.items()}}
            | {"JUPYTER_TOKEN": token, **(env or {})},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        server = JupyterServer(port, base, token, process.pid, folder)
        try:
            _wait_until_up(server, process)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_up(server: JupyterServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            server.ask("GET", "api/status")
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, server.log
            assert time.monotonic() < deadline, server.log
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
