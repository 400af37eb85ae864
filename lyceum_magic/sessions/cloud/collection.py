"""Removal of what no cell of a session needs any more, from the account's bucket."""

from __future__ import annotations

from ...protocol.sessions import KEPT_CELLS
from .bucket import BucketSessions, cells_in, kept_in, packs_in
from .layout import PREFIX, cell_object, is_key, pack_object, session_prefix
from .objects import StoredObject

#: Seconds without a change after which a session without kept snapshots is removed.
IDLE_S = 30 * 86_400.0
#: Seconds for which a pack without a snapshot stays: a run may be about to save its manifest.
UNNAMED_S = 86_400.0


def collect(sessions: BucketSessions, key: str) -> int:
    """Remove the snapshots of a session that are not kept, and the packs that no other needs.

    Kept are the heads, what a run goes on from, what the user keeps, and the newest cells.

    Returns:
        The number of objects that were removed.
    """
    objects = sessions.objects()
    items = objects.find(session_prefix(key))
    cells = cells_in(key, items)
    spared = {*cells[-KEPT_CELLS:], *kept_in(key, items)}
    for branch in sessions.get(key)["branches"].values():
        spared.add(branch["id"])
    for claim in sessions.heads.claims(key).values():
        spared |= {claim.id, claim.parent or ""}
    known = sessions.heads.known(key)
    staying = [cell for cell in cells if cell in spared]
    needed = {pack for cell in staying if cell in known for pack in known[cell].packs}
    unknown = [cell for cell in staying if cell not in known]
    read = sessions.manifests(key, unknown)
    if len(read) < len(unknown):
        return 0  # one cannot be read, so what it needs is not known
    needed |= {pack for manifest in read for pack in manifest.packs}
    leaving = [cell for cell in cells if cell not in spared]
    youngest = max((item.modified_at for item in items), default=0.0)
    packs = [
        pack
        for pack, item in packs_in(key, items).items()
        if pack not in needed
        and (pack in leaving or youngest - item.modified_at > UNNAMED_S)
        and not any(claim.id == pack for claim in sessions.heads.claims(key).values())
    ]
    # The manifests first: a manifest without its packs would be a cell that cannot be restored.
    objects.delete(cell_object(key, cell) for cell in leaving)
    objects.delete(pack_object(key, pack) for pack in packs)
    sessions.heads.forget(key, leaving)
    return len(leaving) + len(packs)


def remove_idle(sessions: BucketSessions, idle_s: float = IDLE_S) -> list[str]:
    """Remove the sessions in which nothing has changed for some time.

    One with a kept snapshot, or in which a run is under way, stays. The newest object tells the
    time: a wrong clock of this machine must remove nothing.

    Returns:
        The keys of those that were removed.
    """
    objects = sessions.objects()
    by_key: dict[str, list[StoredObject]] = {}
    for item in objects.find(PREFIX):
        key = item.key.removeprefix(PREFIX).partition("/")[0]
        if is_key(key):
            by_key.setdefault(key, []).append(item)
    stored = [item for items in by_key.values() for item in items]
    now = max((item.modified_at for item in stored), default=0.0)
    removed = []
    for key, items in by_key.items():
        is_idle = max(item.modified_at for item in items) < now - idle_s
        if is_idle and not kept_in(key, items) and not sessions.heads.claims(key):
            objects.delete(item.key for item in items)
            sessions.heads.remove(key)
            removed.append(key)
    return removed
