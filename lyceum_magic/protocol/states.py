"""The states of a run, and the two vocabularies in which the wire names them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The state of a run. The last five are final."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SYSTEM_FAILURE = "system_failure"
    ABORTED = "aborted"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset(
    {State.COMPLETED, State.FAILED, State.SYSTEM_FAILURE, State.ABORTED, State.CANCELLED}
)

#: Names of older endpoints and clients, and what they mean here. `cancelling` is still active.
_ALIASES = {
    "queued": State.PENDING,
    "initializing": State.STARTING,
    "provisioning": State.STARTING,
    "validating": State.STARTING,
    "in_progress": State.RUNNING,
    "finalizing": State.RUNNING,
    "cancelling": State.RUNNING,
    "failed_user": State.FAILED,
    "timeout": State.FAILED,
    "failed_system": State.SYSTEM_FAILURE,
    "success": State.COMPLETED,
}

#: Names of states on the legacy status endpoint; all other states keep their own.
_LEGACY = {
    State.SYSTEM_FAILURE: "failed_system",
    State.ABORTED: "cancelled",
    State.STARTING: "pending",
}


def parse_state(name: str) -> State | None:
    """Return the state that a name of either vocabulary means; None for an unknown name."""
    try:
        return State(name)
    except ValueError:
        return _ALIASES.get(name)


def legacy_name(state: State, *, timed_out: bool = False) -> str:
    """Return the name of a state on `GET execution/streaming/{id}/status`."""
    return "timeout" if timed_out else _LEGACY.get(state, state.value)
