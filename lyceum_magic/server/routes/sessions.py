"""`sessions/...`: state from cell to cell: heads, snapshots, and the ones to keep.

These are extensions of Lyceum's API. A run takes part in a session by the field `session` of its
start.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from ...protocol import paths
from ...protocol.sessions import (
    BRANCH_PATTERN,
    ID_PATTERN,
    KEY_PATTERN,
    MAX_TITLE,
    HeadRecord,
    SessionRecord,
    SnapshotName,
    SnapshotRecord,
)
from ...protocol.times import iso
from ..sessions.index import Index, Snapshot
from ..sessions.sessions import Sessions
from ..sessions.stored import SessionView
from .description import EXTENSIONS, model_of, problems
from .parts import AccountSessions

_Key = Annotated[str, Path(pattern=KEY_PATTERN)]
_Branch = Annotated[str, Path(pattern=BRANCH_PATTERN)]
_Id = Annotated[str, Path(pattern=ID_PATTERN)]


class Move(BaseModel):
    """A move of a branch's head.

    Attributes:
        expected: The id of the present head; null if the branch has none.
        to: The id of the new head; null removes the branch.
        title: The text that users read; null leaves it as it is.
    """

    model_config = ConfigDict(populate_by_name=True)

    expected: Annotated[str, Field(pattern=ID_PATTERN)] | None = Field(alias="from")
    to: Annotated[str, Field(pattern=ID_PATTERN)] | None
    title: Annotated[str, Field(max_length=MAX_TITLE)] | None = None


_HEAD = model_of(HeadRecord)
_SESSION = model_of(SessionRecord, branches=dict[str, _HEAD])  # type: ignore[valid-type]
_NAME = model_of(SnapshotName)
_SNAPSHOT = model_of(SnapshotRecord, parent=_NAME | None)
_ID_OF_A_HEAD = Query(alias="from", pattern=ID_PATTERN)
_RAW = {"content": {"application/json": {"schema": {"type": "object"}}}}


router = APIRouter(tags=[EXTENSIONS])


@router.get(paths.SESSIONS, response_model=list[_SESSION])  # type: ignore[valid-type]
async def list_sessions(sessions: AccountSessions) -> list[SessionRecord]:
    """List the account's sessions, the last changed first."""
    return [_shown(view, sessions) for view in await sessions.list()]


@router.get(paths.session("{key}"), response_model=_SESSION, responses=problems(404, 409))
async def read_session(key: _Key, sessions: AccountSessions) -> SessionRecord:
    """Read one session."""
    return _shown(await sessions.read(key), sessions)


@router.delete(paths.session("{key}"), responses=problems(404, 409))
async def remove_session(key: _Key, sessions: AccountSessions) -> dict[str, str]:
    """Remove a session with all its snapshots, also the kept ones; not while a run works on it."""
    await sessions.remove(key)
    return {"message": "The session was removed."}


@router.get(
    paths.snapshots("{key}"),
    response_model=list[_SNAPSHOT],  # type: ignore[valid-type]
    responses=problems(404, 409),
)
async def list_snapshots(key: _Key, sessions: AccountSessions) -> list[SnapshotRecord]:
    """List the snapshots of a session, the oldest first."""
    index = (await sessions.read(key)).index
    return [_snapshot(index, snapshot) for snapshot in index.snapshots.values()]


@router.get(
    paths.snapshot("{key}", "{snapshot_id}"),
    response_class=Response,
    responses={200: _RAW, **problems(404, 409)},
)
async def read_manifest(key: _Key, snapshot_id: _Id, sessions: AccountSessions) -> Response:
    """Read the manifest of a snapshot: the bytes that the run wrote."""
    manifest = await sessions.manifest(key, snapshot_id)
    return Response(manifest, media_type="application/json")


@router.put(
    paths.branch("{key}", "{branch}"), response_model=_SESSION, responses=problems(404, 409)
)
async def move_head(
    key: _Key, branch: _Branch, body: Move, sessions: AccountSessions
) -> SessionRecord:
    """Move the head of a branch, if it is still the expected one; make what is missing."""
    view = await sessions.move(key, branch, expected=body.expected, to=body.to, title=body.title)
    return _shown(view, sessions)


@router.delete(
    paths.branch("{key}", "{branch}"), response_model=_SESSION, responses=problems(404, 409)
)
async def remove_branch(
    key: _Key,
    branch: _Branch,
    sessions: AccountSessions,
    expected: Annotated[str | None, _ID_OF_A_HEAD] = None,
) -> SessionRecord:
    """Remove a branch, if its head is still the one that `from` names.

    Its snapshots stay until collection removes them.
    """
    view = await sessions.remove_branch(key, branch, expected=expected)
    return _shown(view, sessions)


@router.put(
    paths.kept_snapshot("{key}", "{snapshot_id}"),
    response_model=_SESSION,
    responses=problems(404, 409),
)
async def keep_snapshot(key: _Key, snapshot_id: _Id, sessions: AccountSessions) -> SessionRecord:
    """Let collection spare a snapshot."""
    return _shown(await sessions.keep(key, snapshot_id, is_kept=True), sessions)


@router.delete(
    paths.kept_snapshot("{key}", "{snapshot_id}"),
    response_model=_SESSION,
    responses=problems(404, 409),
)
async def release_snapshot(key: _Key, snapshot_id: _Id, sessions: AccountSessions) -> SessionRecord:
    """Let collection remove a snapshot again, when its turn comes."""
    return _shown(await sessions.keep(key, snapshot_id, is_kept=False), sessions)


def _shown(view: SessionView, sessions: Sessions) -> SessionRecord:
    index = view.index
    heads = {name: index.snapshots[head] for name, head in index.branches.items()}
    return {
        "key": index.key,
        "title": index.title,
        "branches": {
            name: {
                "id": head.id,
                "sha256": head.sha256,
                "cell": head.cell,
                "saved_at": iso(head.saved_at) or "",
            }
            for name, head in heads.items()
        },
        "kept": index.kept,
        "bytes": view.size_bytes,
        "cells": len(index.snapshots),
        "busy": dict(sessions.busy(index.key)),
        "created_at": iso(index.created_at) or "",
        "updated_at": iso(index.updated_at) or "",
    }


def _snapshot(index: Index, snapshot: Snapshot) -> SnapshotRecord:
    return {
        "id": snapshot.id,
        "sha256": snapshot.sha256,
        "cell": snapshot.cell,
        "branch": snapshot.branch,
        "parent": _name(*snapshot.parent) if snapshot.parent else None,
        "saved_at": iso(snapshot.saved_at) or "",
        "bytes": snapshot.size_bytes,
        "variables": snapshot.variables,
        "kept": snapshot.id in index.kept,
    }


def _name(snapshot_id: str, sha256: str) -> SnapshotName:
    return {"id": snapshot_id, "sha256": sha256}
