"""The account's sessions: their heads, snapshots and manifests.

An extension of Lyceum's API that the embedded server has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..exceptions import ProtocolError, RequestRefused
from ..protocol import paths
from .answers import error_of, objects, read_json
from .lean_httpx import httpx
from .storage import RequestSender

if TYPE_CHECKING:
    from ..protocol.requests import SessionStep

#: The status of the refusal of a server without session endpoints.
NO_SESSIONS = 405

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest snapshot of a branch; `saved_at` is in ISO 8601, as the server words it."""

    id: str
    sha256: str
    cell: int
    saved_at: str = ""


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A session as its server describes it.

    Attributes:
        branches: name -> head.
        kept: ids of the snapshots that collection spares.
        size: of all its files, in bytes.
        cells: the number of its snapshots.
        busy: branch -> id of the run that works on it.
        updated_at: in ISO 8601.
    """

    key: str
    title: str
    branches: dict[str, Head]
    kept: tuple[str, ...] = ()
    size: int = 0
    cells: int = 0
    busy: dict[str, str] | None = None
    updated_at: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """A snapshot as the server describes it; `size` is of the state, in bytes."""

    id: str
    sha256: str
    cell: int
    branch: str
    parent: str
    saved_at: str = ""
    size: int = 0
    variables: int = 0
    is_kept: bool = False


class SessionKeeper(Protocol):
    """The keeper of the account's sessions: its server, or the client where that keeps none."""

    async def all(self) -> list[SessionFacts]: ...
    async def find(self, key: str) -> SessionFacts | None: ...
    async def snapshots(self, key: str) -> list[SnapshotFacts]: ...
    async def manifest(self, key: str, head: Head | SnapshotFacts) -> bytes: ...
    async def move(
        self, key: str, branch: str, *, before: str | None, to: str | None, title: str = ""
    ) -> None: ...
    async def remove_branch(self, key: str, branch: str) -> None: ...
    async def keep(self, key: str, snapshot_id: str) -> None: ...
    async def release(self, key: str, snapshot_id: str) -> None: ...
    async def remove(self, key: str) -> None: ...

    async def begin(self, step: SessionStep, limit_s: float) -> Mapping[str, object] | None:
        """Let a cell hold its branch, and return the presigned URLs for its program.

        None where the server itself does both.
        """

    async def abandon(self, step: SessionStep) -> None:
        """Give back the branch of a cell that was not started."""

    async def end(self, step: SessionStep, sha256: str) -> str:
        """Move the head to what a cell has saved; an empty `sha256` says that it has not.

        Returns:
            Why the head stays although the cell has saved, in one sentence; else empty.
        """


class Sessions:
    """The account's sessions.

    Every call raises the errors of `Client`, and RequestRefused, with one sentence, if the server
    keeps no sessions.
    """

    def __init__(self, client: RequestSender) -> None:
        self._client = client

    async def all(self) -> list[SessionFacts]:
        """Return all sessions, as the server orders them."""
        answer = await self._ask("GET", paths.SESSIONS)
        found = answer.get("sessions") if isinstance(answer, dict) else answer
        return [session_facts(item) for item in objects(found)]

    async def find(self, key: str) -> SessionFacts | None:
        """Return a session; None if there is none of this key."""
        try:
            answer = await self._ask("GET", paths.session(key), key)
        except RequestRefused as exc:
            if exc.status_code == 404:
                return None
            raise
        return session_facts(answer)

    async def snapshots(self, key: str) -> list[SnapshotFacts]:
        """Return the snapshots of a session, as the server orders them."""
        answer = await self._ask("GET", paths.snapshots(key), key)
        found = answer.get("snapshots") if isinstance(answer, dict) else answer
        return [snapshot_facts(item) for item in objects(found)]

    async def manifest(self, key: str, head: Head | SnapshotFacts) -> bytes:
        """Return the manifest of a snapshot, as it was written.

        Raises:
            ProtocolError: it is not the one that the server's list names.
        """
        response = await self._send("GET", paths.snapshot(key, head.id), key)
        data = response.content
        if hashlib.sha256(data).hexdigest() != head.sha256:
            raise ProtocolError(
                f"The manifest of cell {head.cell} of session {key} has changed since it was "
                "written; `%lyceum session checkout` goes back to an earlier cell."
            )
        return data

    async def move(
        self, key: str, branch: str, *, before: str | None, to: str | None, title: str = ""
    ) -> None:
        """Move the head of a branch, which is made if it does not exist.

        Args:
            before: the id of the present head; None if the branch has none.
            to: the id of a snapshot; None for an empty branch.

        Raises:
            RequestRefused: it has another head by now, or a run works on it (409).
        """
        body = {"from": before, "to": to, **({"title": title} if title else {})}
        await self._send("PUT", paths.branch(key, branch), key, json=body)

    async def remove_branch(self, key: str, branch: str) -> None:
        """Remove a branch. Its snapshots go with the next collection."""
        await self._send("DELETE", paths.branch(key, branch), key)

    async def keep(self, key: str, snapshot_id: str) -> None:
        """Let collection spare a snapshot."""
        await self._send("PUT", paths.kept_snapshot(key, snapshot_id), key)

    async def release(self, key: str, snapshot_id: str) -> None:
        """Let collection take a snapshot that it spared."""
        await self._send("DELETE", paths.kept_snapshot(key, snapshot_id), key)

    async def remove(self, key: str) -> None:
        """Remove a session with all its snapshots."""
        await self._send("DELETE", paths.session(key), key)

    async def begin(self, step: SessionStep, limit_s: float) -> None:
        """Do nothing: the server checks the step when the run starts."""

    async def abandon(self, step: SessionStep) -> None:
        """Do nothing: no run holds the branch."""

    async def end(self, step: SessionStep, sha256: str) -> str:
        """Do nothing: the server moves the head when the run has ended."""
        return ""

    async def _ask(self, method: str, path: str, key: str | None = None) -> Any:
        response = await self._send(method, path, key)
        return read_json(response, source=self._client.account.source)

    async def _send(
        self, method: str, path: str, key: str | None = None, **what: Any
    ) -> httpx.Response:
        """Send a request and return the answer if it is a success.

        Args:
            key: the key in the path, None if there is none. A server that has the path names the
                key when it does not find it; one that lacks the path does not.
        """
        response = await self._client.send(method, path, **what)
        is_ours = key is not None and key in response.text
        if response.status_code in (405, 501) or (response.status_code == 404 and not is_ours):
            raise RequestRefused(
                f"{self._client.account.base_url} keeps no sessions that this package knows of; "
                "the embedded server does: add --local.",
                status_code=NO_SESSIONS,
            )
        if not response.is_success:
            raise error_of(response, source=self._client.account.source)
        return response


def session_facts(item: Mapping[str, Any]) -> SessionFacts:
    """Return a session's record as facts; what has a wrong type is left out."""
    branches, busy = item.get("branches"), item.get("busy")
    return SessionFacts(
        key=_text(item, "key"),
        title=_text(item, "title"),
        branches={
            str(name): Head(
                _text(head, "id"), _text(head, "sha256"), _number(head, "cell"),
                _text(head, "saved_at"),
            )
            for name, head in (branches if isinstance(branches, dict) else {}).items()
            if isinstance(head, dict)
        },
        kept=tuple(map(str, item.get("kept") or ())),
        size=_number(item, "bytes"),
        cells=_number(item, "cells"),
        busy={str(k): str(v) for k, v in (busy if isinstance(busy, dict) else {}).items()},
        updated_at=_text(item, "updated_at"),
    )  # fmt: skip


def snapshot_facts(item: Mapping[str, Any]) -> SnapshotFacts:
    """Return a snapshot's record as facts; what has a wrong type is left out."""
    parent = item.get("parent")
    return SnapshotFacts(
        id=_text(item, "id"),
        sha256=_text(item, "sha256"),
        cell=_number(item, "cell"),
        branch=_text(item, "branch"),
        parent=_text(parent, "id") if isinstance(parent, dict) else "",
        saved_at=_text(item, "saved_at"),
        size=_number(item, "bytes"),
        variables=_number(item, "variables"),
        is_kept=item.get("kept") is True,
    )


def _text(item: Mapping[str, Any], member: str) -> str:
    value = item.get(member)
    return value if isinstance(value, str) else ""


def _number(item: Mapping[str, Any], member: str) -> int:
    value = item.get(member)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
