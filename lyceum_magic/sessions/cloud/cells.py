"""One cell of a session in a bucket: its claim and its presigned URLs before, its head after.

A cell's program gets URLs alone, no key of the storage. Each reads or writes one object, and ends
at most a day after the cell's time limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...exceptions import RequestRefused
from ...protocol.sessions import MAX_MANIFEST_BYTES
from .bucket import BucketSessions
from .collection import collect, remove_idle
from .layout import cell_object, pack_object, read_manifest
from .objects import Objects

#: Seconds after a cell's time limit for which its URLs must hold: it waits, installs and saves.
MARGIN_S = 15 * 60
#: Seconds after a cell's time limit for which they hold if the storage's keys do.
SPARE_S = 86_400
#: A collection takes several requests, so only one cell in this number has one.
COLLECTED_EVERY = 10


@dataclass(frozen=True)
class Step:
    """A cell of a session that is about to start.

    Attributes:
        id: of the snapshot that it will save.
        parent, parent_sha256: the snapshot that it goes on from; None and empty for the first cell.
        limit_s: the run's time limit.
    """

    key: str
    branch: str
    id: str
    parent: str | None
    parent_sha256: str
    limit_s: float


@dataclass(frozen=True)
class Urls:
    """The presigned URLs of a cell's program; see `remote.session_urls`."""

    manifest: str = field(repr=False)
    packs: dict[str, str] = field(repr=False)
    put_pack: str = field(repr=False)
    put_manifest: str = field(repr=False)

    def as_job(self) -> dict[str, object]:
        """Return them as a member of a job, which is made of plain texts."""
        return {
            "manifest": str(self.manifest),
            "packs": {pack: str(url) for pack, url in self.packs.items()},
            "put_pack": str(self.put_pack),
            "put_manifest": str(self.put_manifest),
        }


def begin(sessions: BucketSessions, step: Step) -> Urls:
    """Let a cell hold its branch, and return the URLs for its program.

    The caller has made sure that the user trusts the snapshot that the cell goes on from.

    Raises:
        OptionError: the storage's keys end too soon.
        RequestRefused: 409, the head is another one, or a run holds the branch; 404, its snapshot
            is gone. Nothing is held.
        LyceumError: see `BucketSessions`.
    """
    objects = sessions.objects(step.limit_s + MARGIN_S)
    sessions.take_over(step.key, step.branch, step.parent)
    sessions.release_ended(step.key, step.branch)
    with sessions.refusing(step.key):
        sessions.heads.claim(step.key, step.branch, step.id, parent=step.parent)
    try:
        return _signed(objects, step)
    except BaseException:
        sessions.heads.release(step.key, step.branch, step.id)
        raise


def abandon(sessions: BucketSessions, step: Step) -> None:
    """End the claim of a cell that was not started."""
    sessions.heads.release(step.key, step.branch, step.id)


def end(sessions: BucketSessions, step: Step, sha256: str, title: str) -> str:
    """Move the head to what a cell has saved, and remove snapshots that are no longer kept.

    Args:
        sha256: of the manifest, as the run has said; empty if it has saved nothing.
        title: of the session, as users read it.

    Returns:
        Why the head stays although the run has saved, in one sentence; else empty.
    """
    problem = sessions.settle(step.key, step.branch, step.id, sha256, title)
    if sha256 and not problem:
        head = sessions.heads.heads(step.key)[step.branch]
        if head.cell % COLLECTED_EVERY == 0:
            collect(sessions, step.key)
            remove_idle(sessions)
    return problem


def _signed(objects: Objects, step: Step) -> Urls:
    """Check the snapshot that a cell goes on from, and sign the URLs.

    Raises:
        RequestRefused: it is gone, or it is not what was saved.
    """
    manifest_url = ""
    packs: tuple[str, ...] = ()
    lasts_s = int(step.limit_s) + SPARE_S
    if step.parent is not None:
        name = cell_object(step.key, step.parent)
        data = objects.read(name, MAX_MANIFEST_BYTES)
        if data is None:
            raise RequestRefused(
                f"The last snapshot of the session {step.key!r} is not in the storage any more; go "
                f"back to an earlier cell with `%lyceum session checkout {step.key} CELL`.",
                status_code=404,
            )
        manifest = read_manifest(data)
        if manifest is None or manifest.sha256 != step.parent_sha256:
            raise RequestRefused(
                f"The last snapshot of the session {step.key!r} is not what was saved: a program "
                "of this account has changed it. Go back to an earlier cell with "
                f"`%lyceum session checkout {step.key} CELL`.",
                status_code=409,
            )
        manifest_url, packs = objects.url("get", name, lasts_s), manifest.packs
    return Urls(
        manifest_url,
        {pack: objects.url("get", pack_object(step.key, pack), lasts_s) for pack in packs},
        objects.url("put", pack_object(step.key, step.id), lasts_s),
        objects.url("put", cell_object(step.key, step.id), lasts_s),
    )
