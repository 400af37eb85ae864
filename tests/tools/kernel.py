"""A real Jupyter kernel, driven as a front end drives it."""

from __future__ import annotations

import os
import queue
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from .environments import Environment

#: Longer than anything here takes on a busy machine; each wait ends with its condition.
LIMIT_S = 120.0


@dataclass
class Cell:
    """A cell that runs or has run, with what a front end would show of it."""

    kernel: Kernel
    message_id: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    is_idle: bool = False

    def stream(self, name: str) -> str:
        return "".join(
            message["content"]["text"]
            for message in self.messages
            if message["msg_type"] == "stream" and message["content"]["name"] == name
        )

    @property
    def stdout(self) -> str:
        return self.stream("stdout")

    @property
    def stderr(self) -> str:
        return self.stream("stderr")

    @property
    def error(self) -> dict[str, Any] | None:
        """`ename`, `evalue` and `traceback` (lines) of the exception that ended it."""
        contents = (m["content"] for m in self.messages if m["msg_type"] == "error")
        return next(contents, None)

    @property
    def summary(self) -> str:
        """The plain text of what it displays by now, updates in place."""
        displays: dict[object, str] = {}
        for number, message in enumerate(self.messages):
            if message["msg_type"] in ("display_data", "update_display_data"):
                content = message["content"]
                key = content.get("transient", {}).get("display_id", number)
                displays[key] = content["data"].get("text/plain", "")
        return "\n".join(displays.values())

    @property
    def result(self) -> str:
        """The plain text of its value."""
        return "".join(
            message["content"]["data"]["text/plain"]
            for message in self.messages
            if message["msg_type"] == "execute_result"
        )

    def until(self, condition: Callable[[Cell], object]) -> Cell:
        """Take messages until the condition holds."""
        while not condition(self):
            assert not self.is_idle, f"the cell ended before: {self}"
            self.kernel.take_message(self)
        return self

    def done(self) -> Cell:
        """Take messages until it has ended."""
        while not self.is_idle:
            self.kernel.take_message(self)
        return self

    def __str__(self) -> str:
        return (
            f"stdout {self.stdout[-2000:]!r}, stderr {self.stderr[-2000:]!r}, "
            f"error {self.error}, summary {self.summary!r}"
        )


class Kernel:
    """A kernel with `lyceum_magic` loaded."""

    def __init__(
        self, manager: KernelManager, client: BlockingKernelClient, environment: dict[str, str]
    ) -> None:
        self.environment = environment
        #: True if a user can answer, as in a front end; False with nbclient and papermill.
        self.is_attended = False
        self._manager = manager
        self._client = client
        self._cells: dict[str, Cell] = {}
        #: Display id -> what it shows now, whichever cell it is in.
        self.displays: dict[str, dict[str, Any]] = {}

    def start(self, code: str) -> Cell:
        """Send a cell and return at once."""
        message_id = self._client.execute(code, allow_stdin=self.is_attended)
        cell = self._cells[message_id] = Cell(self, message_id)
        return cell

    def run(self, code: str) -> Cell:
        """Run a cell to its end, however it ends."""
        return self.start(code).done()

    def value(self, expression: str) -> str:
        """The repr of an expression in the kernel."""
        cell = self.run(f"print(repr({expression}))")
        assert cell.error is None, cell
        return cell.stdout.rstrip("\n")

    def pump(self, condition: Callable[[], object]) -> None:
        """Take messages until the condition holds, whichever cell is under way."""
        while not condition():
            self.take_message("the condition")

    def take_message(self, waiting: object) -> None:
        """Hand the next message to its cell.

        Args:
            waiting: what waits for it, for the report if none comes.
        """
        try:
            message = self._client.get_iopub_msg(timeout=LIMIT_S)
        except queue.Empty:
            state = "lives" if self._manager.is_alive() else "is dead"
            raise AssertionError(f"No message came, the kernel {state}: {waiting}") from None
        if message["msg_type"] in ("display_data", "update_display_data"):
            content = message["content"]
            if display_id := content.get("transient", {}).get("display_id"):
                self.displays[display_id] = content["data"]
        cell = self._cells.get(message["parent_header"].get("msg_id", ""))
        if cell is None:
            return
        cell.messages.append(message)
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            cell.is_idle = True

    @property
    def shown(self) -> str:
        """The plain text of all displays that have an id, as they are now."""
        return "\n".join(data.get("text/plain", "") for data in self.displays.values())

    def complete(self, code: str) -> list[str]:
        """The completions that Tab offers at the end of the code."""
        reply = self._client.complete(code, len(code), reply=True, timeout=LIMIT_S)
        return list(reply["content"]["matches"])

    @property
    def pid(self) -> int:
        return int(self._manager.provisioner.process.pid)  # type: ignore[union-attr]

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()


@contextmanager
def running_kernel(
    env: Mapping[str, str] | None = None, *, environment: Environment | None = None
) -> Iterator[Kernel]:
    """Start a kernel.

    Args:
        env: variables that it has beside, or instead of, those of this process.
        environment: where it is installed; beside this interpreter if None.
    """
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        manager = KernelManager(connection_file=f"{folder}/kernel.json")
        if environment is not None:
            environment.register(Path(folder))
            manager.kernel_spec_manager.kernel_dirs = [f"{folder}/kernels"]
            manager.kernel_name = environment.name
        variables = {**os.environ, "IPYTHONDIR": f"{folder}/ipython", **(env or {})}
        manager.start_kernel(env=variables, cwd=folder)
        client = manager.client()
        # Past the usual 1000 messages a subscriber loses some, "idle" among them.
        client.context.setsockopt(zmq.RCVHWM, 0)
        client.start_channels()
        kernel = Kernel(manager, client, variables)
        try:
            client.wait_for_ready(timeout=LIMIT_S)
            loaded = kernel.run("%load_ext lyceum_magic")
            assert loaded.error is None, loaded
            yield kernel
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
            manager.context.destroy()
