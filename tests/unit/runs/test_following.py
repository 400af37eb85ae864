"""A run's output is decoded once, and every reader gets every item once, whenever it joins."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic import trail
from lyceum_magic.journal.journal import Entry, Journal
from lyceum_magic.outputs.decoding import Display, Value, decode
from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.protocol.states import State
from lyceum_magic.remote.frames import encode
from lyceum_magic.runs.backlog import Backlog
from lyceum_magic.runs.following import Following

pytestmark = pytest.mark.anyio

MARK = "0123456789ab"


def frames(kind: str, message: str, head: dict[str, object], data: bytes) -> list[str]:
    return [line.decode() for line in encode(MARK, kind, message, head, data, "shown\n")]


DISPLAY = frames("display", "1.0", {"data": {"text/plain": "x"}}, random.Random(0).randbytes(6000))
VALUE = frames("value", "1.1", {"name": "v"}, b"v")
TEXTS = ["before\n", *DISPLAY, "between ~@", "\n", *VALUE, "end~"]
#: Two events for each text, so that half of all places to join at lie within a frame.
EVENTS = [
    Output(half)
    for text in TEXTS
    for half in (text[: len(text) // 2], text[len(text) // 2 :])
    if half
]


def summary(items: Iterable[object]) -> tuple[str, list[object]]:
    """The text as a whole, and every other item of the run's output."""
    found = list(items)
    text = "".join(item.text for item in found if isinstance(item, Output))
    return text, [item for item in found if not isinstance(item, Output | Finished)]


WHOLE = summary(decode(EVENTS, MARK))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    yield journal
    journal.close()


def follower(journal: Journal, tag: str) -> Following:
    entry = Entry(
        tag=tag, run_id=tag, base_url="", is_embedded=True, server_folder="", streaming_url=None,
        machine="cpu", name="", timeout_s=60, created_at=0.0, state=State.RUNNING.value,
    )  # fmt: skip
    client: Any = None  # no request is made
    portal: Any = None  # this is the loop thread
    life = Following(portal, journal, client, entry)
    life._is_writer = life.log.claim()
    return life


async def read_from(life: Following, rest: list[Output]) -> list[object]:
    """Return the items of a reader that joins now, before the run prints the rest and ends."""
    backlog = Backlog()
    before = await life.subscribe(backlog)
    for event in rest:
        await life._take(event, None)
    await life._take(Finished(State.COMPLETED, 0), None)
    backlog.add(life._decode_rest())
    life.log.close()
    return [*before, *backlog.get(0)]


async def test_a_reader_joins_at_any_event(journal: Journal) -> None:
    assert WHOLE[1] == [Display({"text/plain": "x"}), Value("v", b"v")]
    for at in range(len(EVENTS) + 1):
        life = follower(journal, f"{MARK}{at:04}")
        await life._decode_log()
        for event in EVENTS[:at]:
            await life._take(event, None)
        assert summary(await read_from(life, EVENTS[at:])) == WHOLE, at
        assert life.harvest is not None
        assert life.harvest.values == {"v": Value("v", b"v")}


async def test_a_follower_goes_on_where_an_earlier_one_stopped(journal: Journal) -> None:
    for at in range(len(EVENTS) + 1):
        first = follower(journal, f"{MARK}{at:04}")
        for event in EVENTS[:at]:
            first.log.append(event, None)
        first.log.close()
        second = follower(journal, f"{MARK}{at:04}")
        await second._decode_log()
        assert summary(await read_from(second, EVENTS[at:])) == WHOLE, at
        assert second.harvest is not None
        assert second.harvest.values == {"v": Value("v", b"v")}


async def test_the_trail_names_each_border_that_an_event_crosses(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "is_on", True)
    monkeypatch.setattr(trail, "_descriptor", trail._descriptor)  # put back at the end
    trail.write_to(tmp_path / "trail")
    life = follower(journal, f"{MARK}run")
    await life._decode_log()
    await life.subscribe(Backlog())
    for number, event in enumerate([Output("secret text\n"), Output("~"), Output("@")]):
        await life._take(event, str(number))
    life.log.close()
    lines = trail.run_lines([tmp_path / "trail"], f"{MARK}run")
    assert [line.split(" ", 3)[3] for line in lines] == [
        "journalled event=0 bytes=12", "decoded event=0 bytes=12 items=1 text=12",
        "handed event=0 items=1 text=12 to=1",
        "journalled event=1 bytes=1", "decoded event=1 bytes=1 items=0 text=0",
        "journalled event=2 bytes=1", "decoded event=2 bytes=1 items=0 text=0",
    ]  # fmt: skip
    assert "secret" not in "".join(lines)
