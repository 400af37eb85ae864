"""The rules of sessions: claims, moves of heads, and what happens when files are damaged."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.exceptions import LyceumError
from lyceum_magic.protocol.requests import SessionStep
from lyceum_magic.server.sessions import stored as stored_module
from lyceum_magic.server.sessions.errors import (
    SessionConflict,
    SessionFull,
    SessionsUnavailable,
    SnapshotDamaged,
    SnapshotRefused,
    UnknownSession,
    UnknownSnapshot,
)
from lyceum_magic.server.sessions.sessions import Sessions
from tests.tools.sessions import save_snapshot, step

pytestmark = pytest.mark.anyio

Step = dict[str, Any]


class Played:
    """Sessions whose runs the test plays."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.sessions = Sessions(folder, **options)

    def folder(self, key: str = "a") -> Path:
        return self.sessions.folder_of(key)

    async def claim(self, step: Step, run_id: str = "run") -> None:
        await self.sessions.claim(SessionStep.model_validate(step), run_id)

    async def settle(self, step: Step, run_id: str = "run") -> None:
        await self.sessions.settle(SessionStep.model_validate(step), run_id)
        await self.sessions.close()

    async def run(
        self,
        before: Step | None = None,
        /,
        data: bytes = b"state",
        on: str = "main",
        **changes: Any,
    ) -> Step:
        """Play a run to its end; return the name and number of its snapshot.

        Args:
            before: The return value of the run that it continues.
            on: The branch.
            changes: Members of the manifest.
        """
        wanted = step("a", before["cell"] + 1 if before else 1, before, on)
        await self.claim(wanted)
        name = save_snapshot(self.folder(), wanted, data, **changes)
        await self.settle(wanted)
        return {**name, "cell": wanted["cell"]}

    async def chain(self, length: int) -> list[Step]:
        """Play some runs, each of which continues the one before."""
        cells = [await self.run()]
        while len(cells) < length:
            cells.append(await self.run(cells[-1]))
        return cells

    async def head(self, branch: str = "main") -> str | None:
        return (await self.sessions.read("a")).index.branches.get(branch)

    async def move(self, before: Step | None, after: Step | None, branch: str = "main") -> None:
        await self.sessions.move(
            "a", branch, expected=before and before["id"], to=after and after["id"], title=None
        )
        await self.sessions.close()


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Played]:
    played = Played(tmp_path / "sessions")
    yield played
    await played.sessions.close()


# --- claims ----------------------------------------------------------------------------------


async def test_of_many_runs_at_once_one_gets_the_branch(played: Played) -> None:
    steps = [step() for _ in range(30)]
    claims = [played.claim(step, f"run {n}") for n, step in enumerate(steps)]
    results = await asyncio.gather(*claims, return_exceptions=True)
    refused = [result for result in results if result is not None]
    assert len(refused) == 29
    (winner,) = played.sessions.busy("a").values()
    for error in refused:
        assert isinstance(error, SessionConflict)
        assert f"{winner} works on its branch 'main'" in str(error)


async def test_branches_do_not_wait_for_each_other(played: Played) -> None:
    await played.claim(step(), "one")
    await played.claim(step(branch="other"), "two")
    assert played.sessions.busy("a") == {"main": "one", "other": "two"}


async def test_a_claim_is_given_back_by_its_own_run_alone(played: Played) -> None:
    mine = step()
    await played.claim(mine, "mine")
    await played.settle(step(), "another")
    assert played.sessions.busy("a") == {"main": "mine"}
    await played.settle(mine, "mine")
    assert played.sessions.busy("a") == {}


async def test_a_run_must_continue_the_head(played: Played) -> None:
    one, two = await played.chain(2)
    wrong = [
        step(cell=1),
        step(cell=2, parent=one),
        step(cell=3, parent={**two, "sha256": "0" * 64}),
        step(cell=4, parent=two),
        step(cell=3, parent=two, branch="nowhere"),
        step("b", cell=3, parent=two),
        {**step(cell=3, parent=two), "id": one["id"]},
    ]
    for bad in wrong:
        with pytest.raises(SessionConflict) as caught:
            await played.claim(bad)
        assert "\n" not in str(caught.value)
    assert played.sessions.busy("a") == {}
    await played.claim(step(cell=3, parent=two))


async def test_a_snapshot_in_the_making_keeps_its_id(played: Played) -> None:
    taken = step()
    await played.claim(taken)
    with pytest.raises(SessionConflict, match="choose another id"):
        await played.claim({**step(branch="other"), "id": taken["id"]})


async def test_folders_are_for_this_user_alone(played: Played) -> None:
    await played.run()
    folders = [path for path in played.folder().parent.rglob("*") if path.is_dir()]
    assert {path.name for path in folders} == {"a", "packs", "cells", ".index"}
    assert {path.stat().st_mode & 0o777 for path in [played.folder().parent, *folders]} == {0o700}


# --- the end of a run ------------------------------------------------------------------------


async def test_a_head_follows_the_runs(played: Played) -> None:
    cells = await played.chain(3)
    assert await played.head() == cells[2]["id"]
    snapshots = (await played.sessions.read("a")).index.snapshots
    assert [snapshot.cell for snapshot in snapshots.values()] == [1, 2, 3]
    assert snapshots[cells[2]["id"]].parent == (cells[1]["id"], cells[1]["sha256"])


async def test_a_run_that_saved_nothing_leaves_the_head(played: Played) -> None:
    one = await played.run()
    second = step(cell=2, parent=one)
    await played.claim(second)
    pack = played.folder() / "packs" / f"{second['id']}.pack"
    pack.write_bytes(b"half")
    await played.settle(second)
    assert await played.head() == one["id"]
    assert not pack.exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cell": 7}, "names another cell"),
        ({"parent": None}, "continues another"),
        ({"groups": [["f" * 32, 0, 1, ""]]}, "pack ffffffff that does not exist"),
        ({"version": 99}, "version"),
    ],
)
async def test_what_is_no_snapshot_of_this_run_leaves_the_head(
    played: Played, changes: dict[str, Any], reason: str
) -> None:
    one = await played.run()
    bad = await played.run(one, **changes)
    assert await played.head() == one["id"]
    with pytest.raises(SnapshotRefused, match=reason) as caught:
        await played.claim(step(cell=3, parent=bad))
    assert "cell 2 of session 'a'" in str(caught.value)
    await played.run(one)


async def test_a_pack_that_is_too_short_leaves_the_head(played: Played) -> None:
    first = step()
    await played.claim(first)
    save_snapshot(played.folder(), first)
    os.truncate(played.folder() / "packs" / f"{first['id']}.pack", 4)
    await played.settle(first)
    assert await played.head() is None


async def test_another_server_settles_it_too_and_nothing_changes(
    played: Played, tmp_path: Path
) -> None:
    first = step()
    await played.claim(first)
    save_snapshot(played.folder(), first)
    await played.settle(first)
    later = Played(tmp_path / "sessions")
    later.sessions.take_up(SessionStep.model_validate(first), "run")
    with pytest.raises(SessionConflict, match="busy"):
        await later.claim(step())
    await later.settle(first)
    assert await later.head() == first["id"]
    assert later.sessions.busy("a") == {}


async def test_a_full_disk_lets_the_head_move_later(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = step()
    await played.claim(first)
    name = save_snapshot(played.folder(), first)
    with monkeypatch.context() as full:

        def refuse(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(stored_module, "write_index", refuse)
        await played.settle(first)
        assert await played.head() is None
        with pytest.raises(SessionsUnavailable, match="cannot be written"):
            await played.claim(step(cell=2, parent=name))
    await played.claim(step(cell=2, parent=name))
    assert await played.head() == first["id"]


# --- damage ----------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("cells/{}.json", Path.unlink, "its manifest is gone"),
        ("cells/{}.json", overwrite, "its manifest was changed"),
        ("cells/{}.json", link, "its manifest cannot be read"),
        ("packs/{}.pack", Path.unlink, "its pack .* is gone"),
        ("packs/{}.pack", link, "its pack .* is gone"),
        ("packs/{}.pack", lambda path: os.truncate(path, 1), "its pack .* was cut off"),
    ],
)
async def test_a_damaged_head_is_refused_and_an_earlier_one_works(
    played: Played, file: str, damage: Any, reason: str
) -> None:
    one, two = await played.chain(2)
    damage(played.folder() / file.format(two["id"]))
    for use in (
        played.claim(step(cell=3, parent=two)),
        played.sessions.manifest("a", two["id"]),
        played.move(None, two, "other"),
        played.sessions.keep("a", two["id"], is_kept=True),
    ):
        with pytest.raises(SnapshotDamaged, match=reason) as caught:
            await use
        assert "cell 2 of session 'a' cannot be restored" in str(caught.value).lower()
    await played.move(two, one)
    await played.run(one)


async def test_every_cut_of_a_snapshot_is_noticed(played: Played) -> None:
    one = await played.run(data=b"0123456789")
    for path in played.folder().rglob(f"{one['id']}.*"):
        content = path.read_bytes()
        for length in range(len(content)):
            path.write_bytes(content[:length])
            with pytest.raises(SnapshotDamaged):
                await played.sessions.manifest("a", one["id"])
        path.write_bytes(content)
    await played.run(one)


async def test_no_cut_of_a_snapshot_is_taken_over(played: Played) -> None:
    for name in ("cells/{}.json", "packs/{}.pack"):
        whole = step()
        await played.claim(whole)
        save_snapshot(played.folder(), whole)
        path = played.folder() / name.format(whole["id"])
        content = path.read_bytes()
        for length in range(len(content)):
            path.write_bytes(content[:length])
            await played.sessions.settle(SessionStep.model_validate(whole), "another")
            assert await played.head() is None
        await played.settle(whole)


async def test_a_broken_index_is_named_and_can_be_removed(played: Played) -> None:
    await played.run()
    index = played.folder().parent / ".index" / "a.json"
    for content in ("", "[]", "{}", '{"snapshots": [[]]}', index.read_text().replace('"main"', "")):
        index.write_text(content)
        with pytest.raises(SnapshotDamaged, match="session rm a"):
            await played.sessions.read("a")
    assert await played.sessions.list() == []
    await played.sessions.remove("a")
    assert [path for path in played.folder().parent.rglob("*") if path.is_file()] == []
    await played.run()


# --- the user's moves ------------------------------------------------------------------------


async def test_heads_go_back_and_forth_in_time(played: Played) -> None:
    one, two, three = await played.chain(3)
    await played.move(three, one)
    await played.move(None, three, "later")
    again = await played.run(one)
    assert (again["cell"], await played.head()) == (2, again["id"])
    await played.move(again, None)
    assert await played.head() is None
    await played.run()
    assert await played.head("later") == three["id"]
    assert two["id"] in (await played.sessions.read("a")).index.snapshots


async def test_a_move_from_another_head_is_refused(played: Played) -> None:
    one, two = await played.chain(2)
    for before, after in ((one, one), (None, one), (one, None)):
        with pytest.raises(SessionConflict, match="is at cell 2"):
            await played.move(before, after)
    with pytest.raises(SessionConflict, match="has no cell"):
        await played.move(two, one, "other")
    with pytest.raises(UnknownSnapshot):
        await played.move(two, {"id": "f" * 32})
    assert await played.head() == two["id"]


async def test_a_busy_session_stays_as_it_is(played: Played) -> None:
    one = await played.run()
    await played.claim(step(cell=2, parent=one), "the run")
    sessions = played.sessions
    for change in (
        played.move(one, None),
        sessions.remove_branch("a", "main", expected=None),
        sessions.remove("a"),
    ):
        with pytest.raises(SessionConflict, match="the run works on"):
            await change
    await played.move(None, one, "other")
    assert await played.head() == one["id"]


async def test_of_many_moves_at_once_one_wins(played: Played) -> None:
    one, two, three = await played.chain(3)
    moves = [played.move(three, after) for after in (one, two) * 20]
    results = await asyncio.gather(*moves, return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [SessionConflict] * 39


async def test_what_does_not_exist_is_named(played: Played) -> None:
    await played.run()
    sessions = played.sessions
    for use, error in (
        (sessions.read("b"), UnknownSession),
        (sessions.remove("b"), UnknownSession),
        (sessions.keep("b", "0" * 32, is_kept=True), UnknownSession),
        (sessions.keep("a", "0" * 32, is_kept=True), UnknownSnapshot),
        (sessions.manifest("a", "0" * 32), UnknownSnapshot),
        (sessions.remove_branch("a", "b", expected=None), UnknownSnapshot),
    ):
        with pytest.raises(error):
            await use


# --- collection ------------------------------------------------------------------------------


def files(played: Played) -> set[str]:
    return {path.stem for path in played.folder().rglob("*.*")}


async def test_the_newest_cells_stay_with_heads_and_kept_ones(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lyceum_magic.server.sessions.collection.KEPT_CELLS", 3)
    cells = await played.chain(3)
    await played.sessions.keep("a", cells[0]["id"], is_kept=True)
    await played.move(None, cells[1], "second")
    while len(cells) < 8:
        cells.append(await played.run(cells[-1]))
    stay = {cells[number]["id"] for number in (0, 1, 5, 6, 7)}
    assert set((await played.sessions.read("a")).index.snapshots) == stay
    assert files(played) == stay
    await played.sessions.keep("a", cells[0]["id"], is_kept=False)
    await played.sessions.close()
    assert files(played) == stay - {cells[0]["id"]}


async def test_a_pack_stays_while_a_snapshot_needs_it(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lyceum_magic.server.sessions.collection.KEPT_CELLS", 1)
    one = await played.run()
    two = await played.run(one, groups=[[one["id"], 1, 2, ""]])
    assert {path.stem for path in (played.folder() / "packs").iterdir()} == {one["id"]}
    assert {path.stem for path in (played.folder() / "cells").iterdir()} == {two["id"]}
    await played.claim(step(cell=3, parent=two))


async def test_the_oldest_cells_go_when_a_session_takes_too_much(tmp_path: Path) -> None:
    played = Played(tmp_path / "sessions", max_bytes=250_000)
    one = await played.run(data=bytes([1]) * 100_000)
    two = await played.run(one, data=bytes([2]) * 100_000)
    three = await played.run(two, data=bytes([3]) * 100_000)
    snapshots = (await played.sessions.read("a")).index.snapshots
    assert set(snapshots) == {two["id"], three["id"]}
    await played.sessions.keep("a", two["id"], is_kept=True)
    four = await played.run(three, data=bytes([4]) * 100_000)
    await played.sessions.keep("a", four["id"], is_kept=True)
    five = await played.run(four, data=bytes([5]) * 100_000)
    with pytest.raises(SessionFull, match=r"takes 30[0-9]\.[0-9] kB and may take 250\.0 kB"):
        await played.claim(step(cell=6, parent=five))
    await played.sessions.keep("a", two["id"], is_kept=False)
    await played.sessions.close()
    await played.claim(step(cell=6, parent=five))


async def test_files_of_a_run_that_goes_on_are_spared(played: Played) -> None:
    one = await played.run()
    going_on = step(cell=2, parent=one)
    await played.claim(going_on, "goes on")
    draft = played.folder() / "packs" / f"{going_on['id']}.pack.draft"
    draft.write_bytes(b"half")
    await played.move(None, one, "other")
    await played.run(one, on="other")
    assert draft.exists()
    await played.settle(going_on, "goes on")
    assert not draft.exists()


async def test_what_no_cell_needs_of_a_large_pack_is_given_back(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lyceum_magic.server.sessions.collection.KEPT_CELLS", 1)
    data = os.urandom(4 << 20)
    one = await played.run(data=data)
    part = [one["id"], 1_000_001, 1_000_000, ""]
    two = await played.run(one, groups=[part, [one["id"], (4 << 20) - 5, 5, ""]])
    pack = played.folder() / "packs" / f"{one['id']}.pack"
    content = pack.read_bytes()
    assert len(content) == len(data)
    assert content[1_000_001:2_000_001] == data[1_000_001:2_000_001]
    assert content[-5:] == data[-5:]
    assert pack.stat().st_blocks * 512 < 1_100_000
    assert (await played.sessions.read("a")).size_bytes < 1_100_000
    await played.claim(step(cell=3, parent=two))


async def test_a_pack_of_a_damaged_snapshot_stays_whole(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(4 << 20)
    one = await played.run(data=data)
    two = await played.run(one, groups=[[one["id"], 0, 100, ""]])
    overwrite(played.folder() / "cells" / f"{one['id']}.json")
    index = played.folder().parent / ".index" / "a.json"
    members = json.loads(index.read_text())
    members["snapshots"][0]["packs"] = {one["id"]: [4 << 20, 100]}
    index.write_text(json.dumps(members))
    await played.run(two, groups=[[one["id"], 0, 100, ""]])
    assert (played.folder() / "packs" / f"{one['id']}.pack").read_bytes() == data


async def test_an_idle_session_goes_unless_it_is_kept_or_busy(tmp_path: Path) -> None:
    now = [1000.0]
    played = Played(tmp_path / "sessions", clock=lambda: now[0])
    one = await played.run()
    await played.sessions.sweep(1000.0)
    assert await played.head() == one["id"]
    going_on = step(cell=2, parent=one)
    await played.claim(going_on)
    await played.sessions.sweep(1001.0)
    await played.settle(going_on)
    await played.sessions.keep("a", one["id"], is_kept=True)
    await played.sessions.sweep(1001.0)
    await played.sessions.keep("a", one["id"], is_kept=False)
    assert await played.head() == one["id"]
    await played.sessions.sweep(1001.0)
    with pytest.raises(UnknownSession):
        await played.head()
    assert not played.folder().exists()


async def test_a_sweep_finishes_what_a_killed_server_began_to_remove(played: Played) -> None:
    await played.run()
    (played.folder().parent / ".index" / "a.json").unlink()
    assert await played.sessions.list() == []
    await played.sessions.sweep(0.0)
    assert not played.folder().exists()
    await played.run()


async def test_a_sweep_passes_over_a_broken_session(tmp_path: Path) -> None:
    played = Played(tmp_path / "sessions", clock=lambda: 1000.0)
    await played.run()
    other = step("b")
    await played.claim(other)
    await played.settle(other)
    (played.folder().parent / ".index" / "a.json").write_text("{")
    await played.sessions.sweep(1001.0)
    assert played.folder().exists()
    with pytest.raises(UnknownSession):
        await played.sessions.read("b")


# --- other files in their places -------------------------------------------------------------


async def test_a_link_in_place_of_a_folder_is_not_followed(played: Played, tmp_path: Path) -> None:
    one, two = await played.chain(2)
    elsewhere = tmp_path / "elsewhere"
    (played.folder() / "cells").rename(elsewhere)
    (elsewhere / "precious.json").write_text("precious")
    (played.folder() / "cells").symlink_to(elsewhere)
    with pytest.raises(SnapshotDamaged):
        await played.sessions.manifest("a", one["id"])
    for use in (played.claim(step(cell=3, parent=two)), played.move(None, one, "other")):
        with pytest.raises(LyceumError):
            await use
    await played.sessions.remove("a")
    assert len(list(elsewhere.iterdir())) == 3


@pytest.mark.parametrize("kind", ["fifo", "folder", "large", "deep"])
async def test_anything_may_lie_where_a_manifest_should(played: Played, kind: str) -> None:
    first = step()
    await played.claim(first)
    path = played.folder() / "cells" / f"{first['id']}.json"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            (path / "deeper").mkdir(parents=True)
        case "large":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case _:
            path.write_bytes(b"[" * 1_000_000)
    await played.settle(first)
    assert await played.head() is None
    assert not path.exists()
    await played.run()
