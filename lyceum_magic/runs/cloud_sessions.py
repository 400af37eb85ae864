"""The sessions of one cloud account: on its server if that keeps sessions, else in its bucket."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import anyio

from ..client.sessions import (
    NO_SESSIONS,
    Head,
    SessionFacts,
    Sessions,
    SnapshotFacts,
    session_facts,
    snapshot_facts,
)
from ..exceptions import RequestRefused, UnknownRun
from ..folders import journal_folder
from ..journal.heads import Claim
from ..sessions.cloud import cells
from ..sessions.cloud.bucket import BucketSessions, Outcome
from .held import START_LIMIT_S, HeldRuns
from .history import History
from .loop import LoopThread

if TYPE_CHECKING:
    from ..client.api import Client
    from ..protocol.requests import SessionStep

T = TypeVar("T")

#: Seconds to wait for what an ended run has said, which its log has in whole.
_LOG_LIMIT_S = 60.0


class CloudSessions:
    """A `client.sessions.SessionKeeper`; the server is asked once whether it keeps sessions."""

    def __init__(
        self, client: Client, loop: LoopThread, history: History, runs: Callable[[], HeldRuns]
    ) -> None:
        self._of_server = Sessions(client)
        self._has_server: bool | None = None
        self._bucket = BucketSessions(
            lambda: loop.ask(client.storage.access),
            client.account.base_url,
            journal_folder(),
            SessionRuns(history, runs),
        )

    async def all(self) -> list[SessionFacts]:
        if await self._is_kept_there():
            return await self._of_server.all()
        return [session_facts(record) for record in await _in_thread(self._bucket.all)]

    async def find(self, key: str) -> SessionFacts | None:
        if await self._is_kept_there():
            return await self._of_server.find(key)

        def find() -> SessionFacts | None:
            self._bucket.settle_ended(key)
            return session_facts(self._bucket.get(key))

        try:
            return await _in_thread(find)
        except RequestRefused as exc:
            if exc.status_code == 404:
                return None
            raise

    async def snapshots(self, key: str) -> list[SnapshotFacts]:
        if await self._is_kept_there():
            return await self._of_server.snapshots(key)
        records = await _in_thread(lambda: self._bucket.snapshots(key))
        return [snapshot_facts(record) for record in records]

    async def manifest(self, key: str, head: Head | SnapshotFacts) -> bytes:
        if await self._is_kept_there():
            return await self._of_server.manifest(key, head)
        return await _in_thread(lambda: self._bucket.manifest(key, head.id, head.sha256))

    async def move(
        self, key: str, branch: str, *, before: str | None, to: str | None, title: str = ""
    ) -> None:
        if await self._is_kept_there():
            await self._of_server.move(key, branch, before=before, to=to, title=title)
            return

        def move() -> None:
            head = self._bucket.present(key, branch)
            if head is not None and head.id == before:
                self._accept(key, head.id, head.sha256)  # nothing is loaded by a move
            self._bucket.set_branch(key, branch, expected=before, to=to, title=title)

        await _in_thread(move)

    async def remove_branch(self, key: str, branch: str) -> None:
        if await self._is_kept_there():
            await self._of_server.remove_branch(key, branch)
            return
        await _in_thread(lambda: self._bucket.remove_branch(key, branch))

    async def keep(self, key: str, snapshot_id: str) -> None:
        if await self._is_kept_there():
            await self._of_server.keep(key, snapshot_id)
            return
        await _in_thread(lambda: self._bucket.keep(key, snapshot_id))

    async def release(self, key: str, snapshot_id: str) -> None:
        if await self._is_kept_there():
            await self._of_server.release(key, snapshot_id)
            return
        await _in_thread(lambda: self._bucket.unkeep(key, snapshot_id))

    async def remove(self, key: str) -> None:
        if await self._is_kept_there():
            await self._of_server.remove(key)
            return
        await _in_thread(lambda: self._bucket.remove(key))

    async def begin(self, step: SessionStep, limit_s: float) -> Mapping[str, object] | None:
        if await self._is_kept_there():
            return None

        def begin() -> cells.Urls:
            if step.parent is not None:  # known here, or agreed to: see `sessions.steps.known`
                self._accept(step.key, step.parent.id, step.parent.sha256)
            return cells.begin(self._bucket, _step(step, limit_s))

        return (await _in_thread(begin)).as_job()

    async def abandon(self, step: SessionStep) -> None:
        if not await self._is_kept_there():
            await _in_thread(lambda: cells.abandon(self._bucket, _step(step)))

    async def end(self, step: SessionStep, sha256: str) -> str:
        if await self._is_kept_there():
            return ""
        return await _in_thread(lambda: cells.end(self._bucket, _step(step), sha256, step.title))

    def _accept(self, key: str, snapshot: str | None, sha256: str) -> None:
        if snapshot is not None and not self._bucket.is_known(key, snapshot, sha256):
            self._bucket.accept(key, snapshot, sha256)

    async def _is_kept_there(self) -> bool:
        if self._has_server is None:
            try:
                await self._of_server.all()
            except RequestRefused as exc:
                if exc.status_code != NO_SESSIONS:
                    raise
                self._has_server = False
            else:
                self._has_server = True
        return self._has_server


class SessionRuns:
    """The journal of runs, as `sessions.cloud` asks it: which run saves a snapshot, and its end."""

    def __init__(self, history: History, runs: Callable[[], HeldRuns]) -> None:
        self._history = history
        self._runs = runs

    def run_id(self, claim: Claim) -> str:
        known = self._history.snapshot(claim.id)
        if known is None or not known.tag:
            return "of another kernel, which is about to start it"
        try:
            return self._history.find(known.tag).run_id or known.tag
        except UnknownRun:
            return known.tag

    def outcome(self, claim: Claim) -> Outcome:
        run_id, known = self.run_id(claim), self._history.snapshot(claim.id)
        # Between the claim and the run's row in the journal, its kernel may have ended.
        never = Outcome(time.time() - claim.made_at > START_LIMIT_S, run_id)
        if known is None or not known.tag:
            return never
        if known.sha256:
            return Outcome(True, run_id, known.sha256)
        try:
            entry = self._history.find(known.tag)
        except UnknownRun:
            return never
        (now,) = self._runs().as_now([entry])
        if not now.is_final:
            return Outcome(False, run_id)
        if not entry.is_final:  # its end was not followed here: what it said is still to be read
            self._runs().follow(entry).wait(_LOG_LIMIT_S)
            known = self._history.snapshot(claim.id)
        return Outcome(True, run_id, known.sha256 if known else "")


def _step(step: SessionStep, limit_s: float = 0.0) -> cells.Step:
    parent = step.parent
    return cells.Step(
        step.key, step.branch, step.id, parent.id if parent else None,
        parent.sha256 if parent else "", limit_s,
    )  # fmt: skip


async def _in_thread(work: Callable[[], T]) -> T:
    """Return the result of a function that boto3 makes wait, beside the loop."""
    return await anyio.to_thread.run_sync(work)
