"""A run's stack as it stands in the engine: a run's id in, the state of its containers out.

All of it carries the run's label, so that it is found and removed, whatever put it there.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....protocol.limits import DEFAULT_GRACE_S, MAX_GRACE_S
from ..base import Usage
from ..engine import leftovers
from ..engine.engine import (
    KIND_LABEL,
    RUN_LABEL,
    STATE_LABEL,
    remove_container,
    unless_over,
    usage_of,
)
from ..engine.soft_end import end_softly

if TYPE_CHECKING:
    from docker import DockerClient

#: Set by Compose: which service of its stack a container belongs to, and which of the service's
#: containers it is.
SERVICE_LABEL = "com.docker.compose.service"
NUMBER_LABEL = "com.docker.compose.container-number"

#: The restart policies of services that end by themselves.
_JOBS = frozenset({"", "no", "on-failure"})

_ALIVE = frozenset({"running", "restarting", "paused"})
_NEVER = "0001-"

#: How many pieces of a log count as its beginning.
_FIRST_CHUNKS = 20


@dataclass(frozen=True)
class ContainerState:
    """A container as the engine sees it now.

    Attributes:
        number: from 1 on, among the containers of its service.
        is_job: it ends by itself: nothing starts it again, or only for as long as it fails.
        finished_at: when it last ended; such texts sort as their moments do.
        memory_limit_bytes: 0 for none.
        has_init: whether a small init is its process 1.
    """

    id: str
    service: str
    number: int
    was_started: bool
    is_alive: bool
    is_job: bool
    return_code: int
    finished_at: str
    is_out_of_memory: bool
    memory_limit_bytes: int
    has_init: bool


class Stack:
    """The containers, networks and volumes of one run. Everything here blocks."""

    def __init__(self, engine: DockerClient, run_id: str) -> None:
        self._engine = engine
        self._filter = {"label": f"{RUN_LABEL}={run_id}"}

    def changes(self) -> Iterator[dict[str, Any]]:
        """Yield the starts, ends and removals of the containers from now on, as the engine's
        events.
        """
        filters = {**self._filter, "type": "container", "event": ["start", "die", "destroy"]}
        return iter(self._engine.api.events(decode=True, filters=filters))

    def states(self) -> list[ContainerState]:
        """Return the states of the containers, including those that have ended or not begun."""
        found = []
        for container in self._containers():
            with contextlib.suppress(_not_found()):
                found.append(_state(self._engine.api.inspect_container(container["Id"])))
        return found

    def first_errors(self, container_id: str) -> bytes:
        """Return the beginning of what a container wrote to stderr."""
        with contextlib.closing(
            self._engine.api.logs(container_id, stdout=False, stream=True, follow=False)
        ) as chunks:
            return b"".join(itertools.islice(chunks, _FIRST_CHUNKS))

    def stop(self, grace_s: float | None) -> None:
        """Send SIGTERM to all that run, and SIGKILL to those that still do after their grace.

        Args:
            grace_s: the longest, in seconds; None where each service's own `stop_grace_period`
                counts as it is.
        """

        def end(container_id: str) -> None:
            config = self._engine.api.inspect_container(container_id)["Config"]
            own_s = config.get("StopTimeout")
            end_softly(self._engine, container_id, _grace_s(own_s, grace_s))

        self._with_all_alive(end)

    def kill(self) -> None:
        """Send SIGKILL to all that run."""
        self._with_all_alive(self._engine.api.kill)

    def usage(self) -> Usage | None:
        """Return what the containers use together; None if none runs."""
        stats = [
            measured
            for container in self._containers()
            if container["State"] == "running"
            and (measured := _usage(self._engine, container["Id"])) is not None
        ]
        if not stats:
            return None
        return Usage(sum(s.cpu_s for s in stats), sum(s.memory_bytes for s in stats))

    def remove(self, work: Path) -> None:
        """Kill and remove all of it. Nothing left to remove is no error.

        Args:
            work: the folder in which its containers may have left files.
        """
        api = self._engine.api
        images: dict[str, Mapping[str, str]] = {}
        while containers := self._containers():
            images |= {each["ImageID"]: _own_labels(each["Labels"]) for each in containers}
            _in_parallel(
                partial(remove_container, self._engine), [each["Id"] for each in containers]
            )
        if images and leftovers.are_there(work):
            labels = next(iter(images.values()))
            leftovers.make_removable(self._engine, work, images, labels)
        for network in api.networks(filters=self._filter):
            with contextlib.suppress(_not_found()):
                api.remove_network(network["Id"])
        for volume in api.volumes(filters=self._filter)["Volumes"] or ():
            with contextlib.suppress(_not_found()):
                api.remove_volume(volume["Name"])

    def _containers(self) -> list[dict[str, Any]]:
        return list(self._engine.api.containers(all=True, filters=self._filter))

    def _with_all_alive(self, act: Callable[[str], object]) -> None:
        def attempt(container_id: str) -> None:
            with unless_over():
                act(container_id)

        _in_parallel(attempt, [c["Id"] for c in self._containers() if c["State"] in _ALIVE])


def _grace_s(own_s: float | None, named_s: float | None) -> float:
    """Return the grace of a container, from its service's own and from the run's; in seconds."""
    if own_s is None:
        return DEFAULT_GRACE_S if named_s is None else named_s
    return min(own_s, MAX_GRACE_S if named_s is None else named_s)


def _in_parallel(act: Callable[[str], object], ids: Sequence[str]) -> None:
    if not ids:
        return
    # One for each: a container that waited for a free one would be stopped a whole grace later.
    with ThreadPoolExecutor(len(ids)) as threads:
        list(threads.map(act, ids))


def _own_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    return {name: labels[name] for name in (RUN_LABEL, KIND_LABEL, STATE_LABEL) if name in labels}


def _not_found() -> type[Exception]:
    from docker.errors import NotFound

    return NotFound


def _state(facts: dict[str, Any]) -> ContainerState:
    state, host, labels = facts["State"], facts["HostConfig"], facts["Config"]["Labels"]
    return ContainerState(
        id=facts["Id"],
        service=labels.get(SERVICE_LABEL, ""),
        number=int(labels.get(NUMBER_LABEL, 1)),
        was_started=not state["StartedAt"].startswith(_NEVER),
        is_alive=bool(state["Running"] or state.get("Restarting")),
        is_job=(host.get("RestartPolicy") or {}).get("Name", "") in _JOBS,
        return_code=state["ExitCode"],
        finished_at=state["FinishedAt"],
        is_out_of_memory=bool(state.get("OOMKilled")),
        memory_limit_bytes=host.get("Memory") or 0,
        has_init=bool(host.get("Init")),
    )


def _usage(engine: DockerClient, container_id: str) -> Usage | None:
    try:
        return usage_of(engine.api.stats(container_id, stream=False, one_shot=True))
    except _not_found():
        return None
