"""The work of a stack run in the engine, from its first container to the removal of all.

See `engine.supervisor`, whose process this is. `docker compose up` starts the stack in the order
that its dependencies ask for; whatever else happens to it is read from the engine and asked of it
directly.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from ...output.masking import SecretTexts, program_variables
from ..base import Refusal
from ..engine.engine import NEEDS_PID_1, connect
from ..engine.supervisor import EngineAssignment, Events, supervise_one_run
from ..process.memory import out_of_memory
from .command import failure_of, start_stack
from .model import Model, awaited, replicas, with_environment
from .secrets import with_account_files
from .stack import NUMBER_LABEL, SERVICE_LABEL, ContainerState, Stack
from .stack_output import OutputReader

if TYPE_CHECKING:
    from docker import DockerClient

#: How many services a phrase names.
_MOST_NAMES = 3


class StackPlan(TypedDict):
    """The stack to start: a complete model, without the account's secrets.

    Attributes:
        grace_s: the grace that the run names, in seconds; None where each service has its own.
    """

    project: str
    model: Model
    grace_s: float | None


@dataclass(frozen=True)
class _ContainerStarted:
    """A container that was started, perhaps not for the first time."""

    container_id: str
    service: str
    number: int


@dataclass(frozen=True)
class _StackStarted:
    """The end of `docker compose up`; `failure` says why it failed, and is empty if it did not."""

    failure: str


@dataclass(frozen=True)
class _Changed:
    """A reason to look whether all is over; `error` if no further change will be told."""

    error: Exception | None = None


_Change = _ContainerStarted | _StackStarted | _Changed


class ComposeWork:
    """A stack as a `Work`."""

    def __init__(self, assignment: EngineAssignment) -> None:
        plan = cast(StackPlan, assignment["work"])
        self._run_id = assignment["run_id"]
        self._grace_s = plan["grace_s"]
        self._project = plan["project"]
        self._folder = Path("work").absolute()
        secrets = assignment["environment"]
        self._secrets = SecretTexts(secrets.values())
        added = {**program_variables(secrets), "LYCEUM_RUN_ID": assignment["run_id"]}
        folder = os.fspath(self._folder)
        self._model = with_account_files(with_environment(plan["model"], added), secrets, folder)
        self._replicas = replicas(self._model)
        self._changes: queue.SimpleQueue[_Change] = queue.SimpleQueue()
        self._readers: dict[str, OutputReader] = {}
        # Guards what follows: orders come from other threads.
        self._lock = threading.Lock()
        self._command: subprocess.Popen[bytes] | None = None
        self._is_ordered_to_end = False

    def run(self, events: Events) -> tuple[int, str]:
        self.remove()  # what an earlier attempt may have left
        self._watch()
        self._start()
        failure = self._follow(events)
        states = self._states(events)
        ended = [state for state in states if not state.is_alive]
        # What would go on for ever, or has nothing left to serve. Its codes do not count.
        if served := [state for state in states if state.is_alive]:
            events.waiting(f"stopping {_names(served)}")
        self._stack.stop(self._grace_s)
        self._states(events)
        for reader in self._readers.values():
            reader.finish()
        code, error = self._outcome(state for state in ended if state.was_started)
        if not failure or self._is_ordered_to_end:
            return code, error
        if not self._readers:
            raise Refusal(failure)
        return code or 1, failure

    def stop(self) -> None:
        self._cancel_start()
        self._stack.stop(self._grace_s)
        self._changes.put(_Changed())

    def kill(self) -> None:
        self._cancel_start()
        self._stack.kill()
        self._changes.put(_Changed())

    def remove(self) -> None:
        self._stack.remove(self._folder)

    @cached_property
    def _engine(self) -> DockerClient:
        return connect()

    @cached_property
    def _stack(self) -> Stack:
        return Stack(self._engine, self._run_id)

    # Beginning.

    def _watch(self) -> None:
        changes = self._stack.changes()

        def listen() -> None:
            try:
                for event in changes:
                    self._changes.put(_change(event))
                error: Exception = ConnectionError("it tells no more of its containers")
            except Exception as exc:  # noqa: BLE001 - the top of a thread; _follow() raises it
                error = exc
            self._changes.put(_Changed(error))

        threading.Thread(target=listen, name="changes", daemon=True).start()

    def _start(self) -> None:
        with self._lock:
            if self._is_ordered_to_end:
                self._changes.put(_StackStarted(""))
                return
            command = self._command = start_stack(self._project, self._folder)

        def wait() -> None:
            try:
                _, stderr = command.communicate(json.dumps(self._model).encode())
                failure = failure_of(stderr, self._project) if command.returncode else ""
            except Exception as exc:  # noqa: BLE001 - the top of a thread; _follow() raises it
                self._changes.put(_Changed(exc))
            else:
                self._changes.put(_StackStarted(failure))

        threading.Thread(target=wait, name="start", daemon=True).start()

    def _cancel_start(self) -> None:
        with self._lock:
            self._is_ordered_to_end = True
            if self._command is not None and self._command.poll() is None:
                # The command has started another one, the plugin: they are a group.
                os.killpg(self._command.pid, signal.SIGKILL)

    # Going on.

    def _follow(self, events: Events) -> str:
        """Wait until the stack is over, or could not be started as a whole: then return why."""
        is_started = False
        while True:
            change = self._changes.get()
            match change:
                case _ContainerStarted(container_id, service, number):
                    events.started()
                    self._reader(events, container_id, service, number).started()
                    if self._is_ordered_to_end:
                        # Ordered from the engine before the order to end, and only done now.
                        self._stack.kill()
                case _StackStarted(failure):
                    is_started = True
                    if failure and not self._is_ordered_to_end:
                        return failure
                case _Changed(error):
                    if error is not None:
                        raise error
            if is_started:
                missing = self._missing(self._states(events))
                if not missing:
                    return ""
                if self._is_ordered_to_end:
                    events.waiting(f"stopping {_names(missing)}")
                else:
                    events.waiting(_waiting_for(missing))

    def _missing(self, states: Sequence[ContainerState]) -> list[ContainerState]:
        """Return the containers that have to end before the stack is over."""
        alive = [state for state in states if state.is_alive]
        if self._is_ordered_to_end:
            return alive
        services = awaited(self._model, {state.service for state in states if state.is_job})
        return [state for state in alive if state.service in services]

    def _states(self, events: Events) -> list[ContainerState]:
        states = self._stack.states()
        for state in states:
            if state.was_started:
                events.started()
                self._reader(events, state.id, state.service, state.number)
        if self._readers.keys() - {state.id for state in states}:
            raise RuntimeError("a container of the stack was removed from the engine by hand")
        return states

    def _outcome(self, ended: Iterable[ContainerState]) -> tuple[int, str]:
        """Return the code and the sentence of the first failure; 0 and nothing if there is none."""
        for state in sorted(ended, key=lambda state: state.finished_at):
            if state.return_code:
                return state.return_code, self._describe(state)
        return 0, ""

    def _describe(self, state: ContainerState) -> str:
        if state.is_out_of_memory:
            return out_of_memory(state.memory_limit_bytes, f"service `{state.service}`")
        said = f"service `{state.service}` ended with exit code {state.return_code}"
        if state.has_init and NEEDS_PID_1.search(self._stack.first_errors(state.id)):
            return f"{said}: it has to be process 1; give it `init: false`"
        return said

    def _reader(self, events: Events, container_id: str, service: str, number: int) -> OutputReader:
        if container_id not in self._readers:
            name = f"{service}-{number}" if self._replicas.get(service, 1) > 1 else service
            self._readers[container_id] = OutputReader(
                self._engine, container_id, name, self._secrets, events.output
            )
        return self._readers[container_id]


def _change(event: dict[str, Any]) -> _ContainerStarted | _Changed:
    if event["Action"] != "start":
        return _Changed()
    labels = event["Actor"]["Attributes"]
    number = int(labels.get(NUMBER_LABEL, 1))
    return _ContainerStarted(event["Actor"]["ID"], labels.get(SERVICE_LABEL, ""), number)


def _waiting_for(missing: Sequence[ContainerState]) -> str:
    """Return what the stack waits for, as a phrase."""
    if any(state.is_job for state in missing):
        return f"waiting for {_names(missing)} to end"
    return f"{_names(missing)} serving until the run is stopped"


def _names(states: Sequence[ContainerState]) -> str:
    names = [f"`{name}`" for name in sorted({state.service for state in states})]
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


if __name__ == "__main__":
    supervise_one_run(ComposeWork)
