"""Sessions on a server without session endpoints, kept in the account's bucket.

In come the bucket's keys and the journal's heads; out go the same records as those of the embedded
server's endpoints (`protocol.sessions`), so that the magics treat both alike.

The journal has the heads of this machine. Each move is published as an object beside the snapshots,
by which another machine finds it. S3 has no compare-and-set that can be relied on: of two machines
that run a cell of one branch at the same time, the later one wins, and the other one's snapshot
stays in the bucket without a head that names it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...client.storage import StorageAccess
from ...exceptions import OptionError, RequestRefused
from ...journal.heads import Claim, Claimed, Head, HeadMoved, Known, SessionHeads
from ...protocol.sessions import MAX_MANIFEST_BYTES, HeadRecord, SessionRecord, SnapshotRecord
from ...protocol.times import iso
from .layout import (
    MAX_HEAD_BYTES,
    PREFIX,
    Manifest,
    Published,
    cell_object,
    head_object,
    is_key,
    is_snapshot_id,
    kept_object,
    read_manifest,
    read_published,
    session_prefix,
)
from .objects import Objects, StoredObject

#: Seconds by which new keys of the storage are asked for before the old ones end.
RENEWAL_S = 60.0
_READERS = 8
_CONFLICT, _MISSING = 409, 404


@dataclass(frozen=True)
class Outcome:
    """The end of a run that holds a branch, as far as the journal of runs knows.

    Attributes:
        is_over: False if it may still save its snapshot.
        run_id: its id, or its tag before it has one.
        sha256: of the manifest, as the run has said; empty if it has saved nothing.
    """

    is_over: bool
    run_id: str
    sha256: str = ""


class Runs(Protocol):
    """The journal of runs, as sessions ask it."""

    def run_id(self, claim: Claim) -> str:
        """Return the id of the run with a claim, or its tag if it has none yet."""

    def outcome(self, claim: Claim) -> Outcome:
        """Return the end of the run with a claim; the server is asked."""


class BucketSessions:
    """The sessions in an account's bucket.

    Args:
        fetch_access: asks the server for new keys of the storage.
        server: the server's origin.
        folder: the journal's folder.
        runs: the journal of runs.

    Raises (every method):
        RequestRefused: 404 for what does not exist, 409 for a head that has moved or a branch that
            a run holds; or the storage has refused.
        ConfigError: boto3 is missing.
        ServerError, ServerUnreachable, NotAuthorised: the server or the storage failed.
        JournalUnavailable: the journal cannot be used.
    """

    def __init__(
        self,
        fetch_access: Callable[[], StorageAccess],
        server: str,
        folder: Path,
        runs: Runs,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._fetch_access = fetch_access
        self._server, self._folder = server, folder
        self._objects: Objects | None = None
        self._heads: SessionHeads | None = None
        self.runs, self.now = runs, now

    def objects(self, lasts_s: float = RENEWAL_S) -> Objects:
        """Return the bucket, with keys that hold for some seconds.

        Raises:
            OptionError: the server gives no keys that hold for this time.
        """
        if self._objects is None or self._ends_in(self._objects) < lasts_s:
            self._objects = Objects(self._fetch_access())
        if (ends_in_s := self._ends_in(self._objects)) < lasts_s:
            raise OptionError(
                f"The server's keys of the storage end in {max(0, ends_in_s):,.0f} s, and a cell "
                f"of a session with this time limit needs them for {lasts_s:,.0f} s; choose a "
                "lower --timeout, or run the cell without --session."
            )
        return self._objects

    def _ends_in(self, objects: Objects) -> float:
        expires_at = objects.access.expires_at
        return float("inf") if expires_at is None else expires_at - self.now()

    @property
    def heads(self) -> SessionHeads:
        """The journal's heads of the sessions in this bucket."""
        if self._heads is None:
            bucket = self.objects().access.bucket
            self._heads = SessionHeads(self._folder, f"{self._server} {bucket}", now=self.now)
        return self._heads

    # Reading.

    def all(self) -> list[SessionRecord]:
        """Return all sessions, those of other machines too, by key."""
        found: dict[str, list[StoredObject]] = {key: [] for key in self.heads.keys()}  # noqa: SIM118
        for item in self.objects().find(PREFIX):
            key = item.key.removeprefix(PREFIX).partition("/")[0]
            if is_key(key):
                found.setdefault(key, []).append(item)
        return [self._record(key, items) for key, items in sorted(found.items())]

    def get(self, key: str) -> SessionRecord:
        """Return one session; its heads are those of the machine that moved them last.

        Raises:
            RequestRefused: 404, there is no such session.
        """
        items = self.objects().find(session_prefix(key))
        if not items and not self.heads.heads(key):
            raise RequestRefused(f"There is no session {key!r}.", status_code=_MISSING)
        return self._record(key, items)

    def snapshots(self, key: str) -> list[SnapshotRecord]:
        """Return the snapshots of a session, oldest first."""
        items = self.objects().find(session_prefix(key))
        kept = set(kept_in(key, items))
        manifests = self.manifests(key, cells_in(key, items))
        return [
            {
                "id": one.id,
                "sha256": one.sha256,
                "cell": one.cell,
                "branch": one.branch,
                "parent": {"id": one.parent, "sha256": ""} if one.parent else None,
                "saved_at": _moment(one.saved_at),
                "bytes": one.size,
                "variables": one.variables,
                "kept": one.id in kept,
            }
            for one in sorted(manifests, key=lambda one: (one.cell, _moment(one.saved_at)))
        ]

    def manifest(self, key: str, snapshot: str, sha256: str = "") -> bytes:
        """Return the bytes of a snapshot's manifest.

        Args:
            sha256: of the manifest that is meant; empty for any.

        Raises:
            RequestRefused: 404, there is no such snapshot; 409, it is not what was saved.
        """
        data = self.objects().read(cell_object(key, snapshot), MAX_MANIFEST_BYTES)
        if data is None:
            raise RequestRefused(
                f"The session {key!r} has no snapshot {snapshot!r} any more.", status_code=_MISSING
            )
        manifest, known = read_manifest(data), self.heads.known(key).get(snapshot)
        if (
            manifest is None
            or (manifest.id, manifest.key) != (snapshot, key)
            or (known is not None and known.sha256 != manifest.sha256)
            or sha256 not in ("", manifest.sha256)
        ):
            raise RequestRefused(
                f"The snapshot {snapshot!r} of the session {key!r} was changed after it was saved; "
                f"go back to an earlier cell.",
                status_code=_CONFLICT,
            )
        return data

    def manifests(self, key: str, snapshots: Iterable[str]) -> list[Manifest]:
        """Return the facts of snapshots; what has not the form of a manifest is left out."""
        objects = self.objects()

        def read(snapshot: str) -> Manifest | None:
            data = objects.read(cell_object(key, snapshot), MAX_MANIFEST_BYTES)
            found = None if data is None else read_manifest(data)
            return found if found is not None and found.id == snapshot else None

        with ThreadPoolExecutor(_READERS) as readers:
            return [found for found in readers.map(read, snapshots) if found is not None]

    # Heads.

    def is_known(self, key: str, snapshot: str, sha256: str) -> bool:
        """Return whether this machine has written a snapshot, or its user has consented to it."""
        known = self.heads.known(key).get(snapshot)
        return known is not None and known.sha256 == sha256

    def accept(self, key: str, snapshot: str, sha256: str) -> None:
        """Remember a snapshot to which the user has consented.

        Raises:
            RequestRefused: it is gone, or is another one.
        """
        self.heads.learn(key, _known(self._checked(key, snapshot, sha256)))

    def set_branch(
        self, key: str, branch: str, *, expected: str | None, to: str | None, title: str = ""
    ) -> None:
        """Move the head of a branch, which is made if need be.

        Args:
            expected: the id of its present head; None for a branch without a snapshot.
            to: the id of a snapshot; None for a branch that starts empty.

        Raises:
            RequestRefused: 409, the head is another one, or a run holds the branch.
        """
        cell, snapshot = 0, None
        if to is not None:
            manifest = read_manifest(self.manifest(key, to))
            assert manifest is not None  # it was read
            cell, snapshot = manifest.cell, _known(manifest)
        self.take_over(key, branch, expected)
        self.release_ended(key, branch)
        with self.refusing(key):
            head = self.heads.move(
                key, branch, expected=expected, to=snapshot, cell=cell, title=title
            )
        self.publish(key, head)

    def remove_branch(self, key: str, branch: str) -> None:
        """Remove a branch; its snapshots stay until they are collected.

        Raises:
            RequestRefused: 409, a run holds the branch.
        """
        self.release_ended(key, branch)
        with self.refusing(key):
            self.heads.remove(key, branch)
        self.objects().delete([head_object(key, branch)])

    def keep(self, key: str, snapshot: str) -> None:
        """Spare a snapshot from collection.

        Raises:
            RequestRefused: there is no such snapshot.
        """
        self.manifest(key, snapshot)
        self.objects().write(kept_object(key, snapshot), b"kept")

    def unkeep(self, key: str, snapshot: str) -> None:
        """Let collection take a snapshot; no error if it was not kept."""
        self.objects().delete([kept_object(key, snapshot)])

    def remove(self, key: str) -> None:
        """Remove a session with all its snapshots.

        Raises:
            RequestRefused: 409, a run holds one of its branches.
        """
        for branch in self.heads.claims(key):
            self.release_ended(key, branch)
        with self.refusing(key):
            self.heads.remove(key)
        objects = self.objects()
        objects.delete(item.key for item in objects.find(session_prefix(key)))

    # What the steps of a cell use.

    def present(self, key: str, branch: str) -> Head | None:
        """Return the head of a branch: this machine's, or another's that was moved later."""
        data = self.objects().read(head_object(key, branch), MAX_HEAD_BYTES)
        return self._later(key, branch, None if data is None else read_published(data))

    def take_over(self, key: str, branch: str, expected: str | None) -> None:
        """Give the journal a head that another machine has moved, if it is the expected one.

        Raises:
            RequestRefused: 409, it is another one, or the user has not consented to it.
        """
        head, own = self.present(key, branch), self.heads.heads(key).get(branch)
        if head is None or head == own:
            return
        if head.id != expected:
            raise self._moved(key, head)
        if head.id is None:
            snapshot = None
        elif self.is_known(key, head.id, head.sha256):
            snapshot = _known(self._checked(key, head.id, head.sha256))
        else:
            raise RequestRefused(
                f"The session {key!r} went on at cell {head.cell} on another machine, or a program "
                "of this account has changed it; go on from there only if you trust it.",
                status_code=_CONFLICT,
            )
        with self.refusing(key):
            self.heads.move(
                key, branch, expected=own.id if own else None, to=snapshot, cell=head.cell,
                title=head.title, moved_at=head.moved_at,
            )  # fmt: skip

    def settle_ended(self, key: str) -> None:
        """End the claims of a session's runs that have ended, as `release_ended` does for one."""
        for branch, claim in self.heads.claims(key).items():
            outcome = self.runs.outcome(claim)
            if outcome.is_over:
                self.settle(key, branch, claim.id, outcome.sha256)

    def release_ended(self, key: str, branch: str) -> None:
        """End the claim of a run that has ended; the head moves to what it has saved.

        Raises:
            RequestRefused: 409, the run goes on.
        """
        claim = self.heads.claims(key).get(branch)
        if claim is None:
            return
        outcome = self.runs.outcome(claim)
        if not outcome.is_over:
            raise self._busy(key, outcome.run_id)
        self.settle(key, branch, claim.id, outcome.sha256)

    def settle(self, key: str, branch: str, snapshot: str, sha256: str, title: str = "") -> str:
        """Move the head to the snapshot of a run that has ended, and end the run's claim.

        Args:
            sha256: of the manifest, as the run has said; empty if it has saved nothing.

        Returns:
            Why the head stays, in one sentence; empty if it has moved, or nothing was saved.
        """
        if not sha256:
            self.heads.release(key, branch, snapshot)
            return ""
        claim = self.heads.claims(key).get(branch)
        before = self.heads.heads(key).get(branch)
        try:
            manifest = self._checked(key, snapshot, sha256)
        except RequestRefused as exc:
            self.heads.release(key, branch, snapshot)
            return f"{exc} The session stays at the cell before."
        if claim is None or manifest.parent != claim.parent:
            self.heads.release(key, branch, snapshot)
            return "The snapshot does not go on from the head. The session stays where it was."
        title = title or (before.title if before else "")
        head = self.heads.settle(key, branch, _known(manifest), cell=manifest.cell, title=title)
        if head is None:
            return "Another cell has moved the session's head meanwhile. This one's state is lost."
        self.publish(key, head)
        return ""

    def publish(self, key: str, head: Head) -> None:
        """Write a head into the bucket, where other machines find it."""
        self.objects().write(head_object(key, head.branch), Published(**vars(head)).encode())

    # Helpers.

    def _record(self, key: str, items: list[StoredObject]) -> SessionRecord:
        own, claims = self.heads.heads(key), self.heads.claims(key)
        branches = dict.fromkeys([*own, *_branches_in(key, items)])
        heads = [head for name in branches if (head := self.present(key, name)) is not None]
        latest = max(heads, key=lambda head: head.moved_at, default=None)
        times = [item.modified_at for item in items] + [head.moved_at for head in heads]
        records: dict[str, HeadRecord] = {
            head.branch: {
                "id": head.id,
                "sha256": head.sha256,
                "cell": head.cell,
                "saved_at": iso(head.moved_at),
            }
            for head in heads
            if head.id is not None
        }
        return {
            "key": key,
            "title": (latest.title if latest else "") or key,
            "branches": records,
            "kept": kept_in(key, items),
            "bytes": sum(item.size for item in items),
            "cells": len(cells_in(key, items)),
            "busy": {name: self.runs.run_id(claim) for name, claim in claims.items()},
            "created_at": iso(min(times, default=self.now())),
            "updated_at": iso(max(times, default=self.now())),
        }

    def _later(self, key: str, branch: str, theirs: Published | None) -> Head | None:
        own = self.heads.heads(key).get(branch)
        if theirs is None or theirs.branch != branch:
            return own
        if own is not None:
            is_same = theirs.id == own.id and theirs.sha256 == own.sha256
            # Clocks differ, so a time counts only between snapshots that this machine knows.
            is_known = theirs.id is None or self.is_known(key, theirs.id, theirs.sha256)
            if is_same or (is_known and theirs.moved_at <= own.moved_at):
                return own
        return Head(**vars(theirs))

    def _checked(self, key: str, snapshot: str, sha256: str) -> Manifest:
        data = self.objects().read(cell_object(key, snapshot), MAX_MANIFEST_BYTES)
        manifest = None if data is None else read_manifest(data)
        if data is None:
            raise RequestRefused(
                f"The snapshot {snapshot!r} of the session {key!r} is not in the storage.",
                status_code=_MISSING,
            )
        if manifest is None or (manifest.id, manifest.sha256) != (snapshot, sha256):
            raise RequestRefused(
                f"The snapshot {snapshot!r} of the session {key!r} is not what was saved.",
                status_code=_CONFLICT,
            )
        return manifest

    @contextmanager
    def refusing(self, key: str) -> Iterator[None]:
        """Raise the refusals of a server for those of the journal."""
        try:
            yield
        except Claimed as exc:
            raise self._busy(key, self.runs.run_id(exc.claim)) from None
        except HeadMoved as exc:
            raise self._moved(key, exc.head) from None

    def _busy(self, key: str, run_id: str) -> RequestRefused:
        return RequestRefused(
            f"The session {key!r} is busy with run {run_id}; wait for it, or stop it with "
            f"`%lyceum stop {run_id}`.",
            status_code=_CONFLICT,
        )

    def _moved(self, key: str, head: Head | None) -> RequestRefused:
        where = f"at cell {head.cell}" if head and head.id else "empty"
        return RequestRefused(
            f"The session {key!r} is {where} by now; run the cell again to go on from there.",
            status_code=_CONFLICT,
        )


def cells_in(key: str, items: Iterable[StoredObject]) -> list[str]:
    """Return the ids of the snapshots among the objects of a session, oldest first."""
    ordered = sorted(items, key=lambda item: item.modified_at)
    names = (_name(item, f"{session_prefix(key)}cells/", ".json") for item in ordered)
    return [name for name in names if is_snapshot_id(name)]


def packs_in(key: str, items: Iterable[StoredObject]) -> dict[str, StoredObject]:
    """Return the packs among the objects of a session: id -> object."""
    names = {_name(item, f"{session_prefix(key)}packs/", ".pack"): item for item in items}
    return {name: item for name, item in names.items() if is_snapshot_id(name)}


def kept_in(key: str, items: Iterable[StoredObject]) -> list[str]:
    """Return the ids of the kept snapshots among the objects of a session."""
    names = (_name(item, f"{session_prefix(key)}kept/", "") for item in items)
    return [name for name in names if is_snapshot_id(name)]


def _known(manifest: Manifest) -> Known:
    return Known(manifest.id, manifest.sha256, manifest.packs)


def _branches_in(key: str, items: Iterable[StoredObject]) -> list[str]:
    names = (_name(item, f"{session_prefix(key)}heads/", ".json") for item in items)
    return [name for name in names if is_key(name)]


def _name(item: StoredObject, prefix: str, suffix: str) -> str:
    if not item.key.startswith(prefix) or not item.key.endswith(suffix):
        return ""
    return item.key.removeprefix(prefix).removesuffix(suffix)


def _moment(said: object) -> str:
    """Return a manifest's time as ISO 8601; empty if it has none."""
    if isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said < 1e11:
        return iso(float(said))
    return said[:40] if isinstance(said, str) else ""
