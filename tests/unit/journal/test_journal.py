"""The journal: every run is on disk, even if its writer is killed."""

from __future__ import annotations

import json
import resource
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.exceptions import ConfigError, JournalUnavailable, UnknownRun
from lyceum_magic.journal import event_log as log_module
from lyceum_magic.journal.event_log import EventLog
from lyceum_magic.journal.journal import Entry, Journal
from lyceum_magic.protocol.events import Output
from lyceum_magic.protocol.states import State
from tests.tools.small_disks import small_disk, use_up_inodes

DAY_S = 86400.0


def entry(run_id: str | None = "run", **members: object) -> Entry:
    values = {
        "tag": f"tag-{run_id}",
        "run_id": run_id,
        "base_url": "http://127.0.0.1:8000",
        "is_embedded": True,
        "server_folder": "/state",
        "streaming_url": "http://127.0.0.1:8000/api/v1/stream/run/canary-secret",
        "machine": "cpu",
        "name": "",
        "timeout_s": 60,
        "created_at": 1000.0,
    }
    return Entry(**{**values, **members})  # type: ignore[arg-type]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


# The rows.


def test_what_was_written_is_read_back(journal: Journal) -> None:
    first = entry("a", timed_out=True, return_code=3, reason="it says so", name="ü")
    journal.write(first)
    journal.write(replace(first, run_id="b", tag="other", created_at=2000.0))
    assert journal.entries() == [replace(first, run_id="b", tag="other", created_at=2000.0), first]
    assert len(journal.entries(limit=1)) == 1


def test_a_change_replaces_the_row(journal: Journal) -> None:
    journal.write(entry())
    journal.write(replace(entry(), state=State.COMPLETED.value))
    (only,) = journal.entries()
    assert only.is_final


def test_an_entry_shows_no_stream_secret() -> None:
    assert "canary-secret" not in repr(entry())


def test_the_journal_is_its_users_alone(journal: Journal, tmp_path: Path) -> None:
    journal.write(entry())
    log = journal.open_log("tag-run")
    assert log.claim()
    log.append(Output("a"), None)
    folder = tmp_path / "journal"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_two_processes_write_one_journal(journal: Journal, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from dataclasses import replace;"
        "from lyceum_magic.journal.journal import Journal;"
        "from tests.unit.journal.test_journal import entry;"
        "journal = Journal(Path(sys.argv[1]));"
        "[journal.write(entry(f'{sys.argv[2]}-{n}')) for n in range(100)]"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "journal"), name])
        for name in ("one", "two")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(journal.entries()) == 200


@pytest.mark.parametrize(
    ("asked", "found"), [("abc1", "abc1"), ("abc1-", "abc1-x"), ("d", "d%"), ("last", "d%")]
)
def test_a_run_is_found_by_its_id_or_a_unique_beginning(
    journal: Journal, asked: str, found: str
) -> None:
    for number, run_id in enumerate(["abc1", "abc1-x", "abc2", "d%"]):
        journal.write(entry(run_id, created_at=float(number)))
    assert journal.find(asked).run_id == found


@pytest.mark.parametrize("asked", ["abc", "", "x", "abc_", "%", "'"])
def test_a_beginning_of_none_or_several_is_refused(journal: Journal, asked: str) -> None:
    for run_id in ("abc1", "abc2", "xabc"):
        journal.write(entry(run_id))
    if asked == "x":
        assert journal.find(asked).run_id == "xabc"
        return
    with pytest.raises(UnknownRun):
        journal.find(asked)


def test_the_last_run_of_an_empty_journal_is_unknown(journal: Journal) -> None:
    with pytest.raises(UnknownRun, match="no run yet"):
        journal.find("last")


def test_last_is_of_ones_own_as_long_as_there_is_any(journal: Journal) -> None:
    for number, whose in enumerate(["mine", "mine", "theirs"]):
        journal.write(entry(f"run{number}", tag=f"{number}", process=whose, created_at=number))
    assert journal.find("last", "mine").run_id == "run1"
    assert journal.find("last", "new").run_id == journal.find("last").run_id == "run2"


@pytest.mark.parametrize("content", [b"not a database " * 100, b""])
def test_a_journal_that_is_broken_or_empty_is_one_sentence_or_made_anew(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "journal.db").write_bytes(content)
    if not content:
        assert Journal(tmp_path).entries() == []
        return
    with pytest.raises(ConfigError, match=r"journal\.db") as caught:
        Journal(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="LYCEUM_MAGIC_HOME"):
        Journal(tmp_path / "file" / "journal")


def test_a_journal_of_an_earlier_version_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "journal.db")
    db.executescript(
        """
        CREATE TABLE runs (
            tag TEXT PRIMARY KEY, run_id TEXT, base_url TEXT NOT NULL,
            is_embedded INTEGER NOT NULL, server_folder TEXT NOT NULL, streaming_url TEXT,
            machine TEXT NOT NULL, name TEXT NOT NULL, timeout_s INTEGER NOT NULL,
            created_at REAL NOT NULL, ended_at REAL, state TEXT NOT NULL
        );
        INSERT INTO runs VALUES
            ('tag-old', 'old', 'http://x', 0, '', NULL, 'cpu', '', 60, 1000.0, NULL, 'running');
        """
    )
    db.close()
    journal = Journal(tmp_path)
    (old,) = journal.entries()
    assert (old.return_code, old.reason, old.price_per_hour, old.process) == (None, "", None, "")
    newer = replace(old, price_per_hour=3.6, billed=0.5, process="s", return_code=1)
    journal.write(newer)
    journal.close()
    assert Journal(tmp_path).entries() == [newer]


@pytest.mark.parametrize(
    ("members", "cost"),
    [
        ({}, None),
        ({"price_per_hour": 3.6, "started_at": 1000.0}, pytest.approx(0.1)),
        ({"price_per_hour": 3.6, "started_at": 1040.0, "ended_at": 1050.0}, pytest.approx(0.01)),
        ({"price_per_hour": 3.6, "ended_at": 1050.0, "billed": 0.04}, 0.04),
        ({"price_per_hour": 3.6}, None),
        ({"price_per_hour": 0.0, "started_at": 1000.0}, None),
    ],
)
def test_a_run_costs_what_was_billed_else_its_time(
    members: dict[str, object], cost: float | None
) -> None:
    assert entry(**members).cost(now=1100.0) == cost  # type: ignore[arg-type]


# Retention.


def written(journal: Journal, run_id: str, size: int, **members: object) -> None:
    journal.write(entry(run_id, **members))
    log = journal.open_log(f"tag-{run_id}")
    assert log.claim()
    log.append(Output("x" * size), None)
    log.close()


def test_old_ended_runs_are_forgotten_with_their_output(journal: Journal) -> None:
    written(journal, "old", 10, created_at=0.0, state="failed")
    written(journal, "new", 10, created_at=29 * DAY_S, state="failed")
    assert sum(journal.prune(now=31 * DAY_S, keep_days=30)) == 1
    assert [kept.run_id for kept in journal.entries()] == ["new"]
    assert journal.open_log("tag-old").size() == 0


def test_the_oldest_are_forgotten_until_the_rest_is_small_enough(journal: Journal) -> None:
    for number in range(4):
        written(journal, str(number), 1000, created_at=float(number), state="completed")
    assert sum(journal.prune(now=DAY_S, keep_bytes=4300)) == 2
    assert [kept.run_id for kept in journal.entries()] == ["3", "2"]


@pytest.mark.parametrize("state", [state for state in State if not state.is_final])
def test_an_unfinished_run_is_never_forgotten(journal: Journal, state: State) -> None:
    written(journal, "live", 10_000, created_at=0.0, state=state.value)
    assert sum(journal.prune(now=1000 * DAY_S, keep_days=1, keep_bytes=0)) == 0
    assert [kept.run_id for kept in journal.entries()] == ["live"]


# The events.


@given(st.lists(st.tuples(st.text(), st.sampled_from(["stdout", "stderr"]), st.none() | st.text())))
def test_events_are_read_back_as_they_were(
    events: list[tuple[str, str, str | None]],
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "events.jsonl")
        assert log.claim()
        expected = [(Output(text, stream, 1.5), id) for text, stream, id in events]  # type: ignore[arg-type]
        for event, event_id in expected:
            log.append(event, event_id)
        assert list(log.read()) == expected
        assert log.last_event_id() == (expected[-1][1] if expected else None)
        log.close()


def test_a_log_that_is_not_there_is_empty(log: EventLog) -> None:
    assert (log.size(), list(log.read()), log.last_event_id()) == (0, [], None)


@pytest.mark.parametrize("cut", [1, 2, 10, 35])
def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_writer(
    log: EventLog, cut: int
) -> None:
    assert log.claim()
    log.append(Output("whole", timestamp=1.0), "1")
    whole = log.size()
    log.append(Output("torn by a kill", timestamp=2.0), "2")
    log.close()
    with log.path.open("r+b") as file:
        file.truncate(log.path.stat().st_size - cut)
    assert [event.text for event, _ in log.read()] == ["whole"]
    assert log.last_event_id() == "1"
    after = EventLog(log.path)
    assert after.claim()
    assert log.path.stat().st_size == whole
    after.append(Output("next", timestamp=3.0), "2")
    assert [event.text for event, _ in log.read()] == ["whole", "next"]
    after.close()


def test_a_log_of_one_torn_line_is_empty(log: EventLog) -> None:
    log.path.write_text(json.dumps(["stdout", 1.0, "x" * 200_000, None]))
    assert (log.size(), log.last_event_id()) == (0, None)


def test_the_second_of_two_writers_goes_on_apart(log: EventLog) -> None:
    """Both have each event once, though it reaches them at different times."""
    second = EventLog(log.path)
    assert log.claim()
    assert log.claim()  # again is no harm
    log.append(Output("first"), "1")
    assert not second.claim()
    assert second.last_event_id() == "1"
    end = second.size()
    log.append(Output("second"), "2")
    log.append(Output("third"), "3")
    assert not second.claim()
    assert second.size() == end
    second.append(Output("second"), "2")
    assert [event.text for event, _ in second.read()] == ["first", "second"]
    assert [event.text for event, _ in second.read(end)] == ["first"]
    assert second.last_event_id() == "2"
    assert [event.text for event, _ in log.read()] == ["first", "second", "third"]
    log.close()
    second.close()
    assert [event.text for event, _ in second.read()] == ["first", "second"]


class Disk:
    """A limit on the size of files: a write breaks off at it, as on a full disk."""

    def __init__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def __enter__(self) -> Disk:
        return self

    def fill_up(self, at: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (at, self._before[1]))

    def make_room(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)

    __exit__ = make_room


@pytest.mark.parametrize("left", [0, 1, 40, 70])
def test_what_a_full_disk_refuses_is_read_from_memory_and_saved_later(
    log: EventLog, left: int
) -> None:
    assert log.claim()
    texts = [f"{number} {'x' * number}" for number in range(5)]
    with Disk() as disk:
        log.append(Output(texts[0], timestamp=0.0), "0")
        disk.fill_up(log.size() + left)
        for number, text in enumerate(texts[1:4], 1):
            log.append(Output(text, timestamp=number), str(number))
        assert "File too large" in log.problem
        assert not log.save()
        end = log.size()
        assert [event.text for event, _ in log.read()] == texts[:4]
        assert log.last_event_id() == "3"
        reading = log.read()
        assert next(reading)[0].text == texts[0]
        disk.make_room()
        assert log.save()
    assert [event.text for event, _ in reading] == texts[1:4]
    assert log.size() == end == log.path.stat().st_size
    log.append(Output(texts[4], timestamp=4.0), "4")
    log.close()
    assert [event.text for event, _ in EventLog(log.path).read()] == texts
    assert [event.text for event, _ in log.read(end)] == texts[:4]


def test_a_log_keeps_the_beginning_of_what_is_too_long_for_memory(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "MAX_UNSAVED_BYTES", 200)
    assert log.claim()
    with Disk() as disk:
        disk.fill_up(0)
        for number in range(50):
            log.append(Output(f"{number}\n"), str(number))
    text = "".join(event.text for event in log.read_text())
    assert text.startswith("0\n1\n")
    assert text.count("is not kept here") == 1
    # Only the whole of it is written: the next process takes it up from its last event.
    assert not log.save()
    log.close()
    assert log.path.stat().st_size == 0


def test_a_log_without_a_place_is_named_with_what_the_disk_lacks(tmp_path: Path) -> None:
    with small_disk(tmp_path / "journal", "size=1m,nr_inodes=20"):
        use_up_inodes(tmp_path / "journal")
        log = EventLog(tmp_path / "journal" / "events.jsonl")
        with pytest.raises(JournalUnavailable, match=r"has no free inodes.* many small files"):
            log.claim()
        log.keep_in_memory()
        log.append(Output("all the same"), "1")
        assert [event.text for event, _ in log.read()] == ["all the same"]


def test_a_log_that_is_a_folder_is_named(log: EventLog) -> None:
    log.path.mkdir()
    with pytest.raises(JournalUnavailable, match=rf"{log.path} cannot be made: Is a directory"):
        log.claim()


def test_a_log_is_free_again_when_its_writer_closed_it(log: EventLog) -> None:
    assert log.claim()
    log.append(Output("first"), None)
    log.close()
    later = EventLog(log.path)
    assert later.claim()
    later.append(Output("second"), None)
    assert [event.text for event, _ in log.read()] == ["first", "second"]
    later.close()


def test_a_writer_that_was_killed_leaves_the_log_to_the_next(log: EventLog) -> None:
    program = (
        "import os, sys; from pathlib import Path;"
        "from lyceum_magic.journal.event_log import EventLog, Output;"
        "log = EventLog(Path(sys.argv[1])); assert log.claim();"
        "log.append(Output('from the dead'), '7'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(log.path)], check=False).returncode
    assert log.claim()
    assert log.last_event_id() == "7"
    log.close()


def test_reading_ends_where_it_was_told_to(log: EventLog) -> None:
    assert log.claim()
    log.append(Output("a"), None)
    end = log.size()
    log.append(Output("b"), None)
    assert [event.text for event, _ in log.read(end)] == ["a"]
    log.close()


# The text of a log.


@given(
    st.lists(st.tuples(st.text(), st.sampled_from(["stdout", "stderr"]))),
    st.sampled_from([1, 2, 7, 64, 1 << 20]),
)
def test_text_is_read_in_larger_pieces_wherever_a_block_ends(
    pieces: list[tuple[str, str]], block: int
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "_BLOCK_BYTES", block)
        log = EventLog(Path(folder) / "events.jsonl")
        assert log.claim()
        for number, (text, stream) in enumerate(pieces):
            log.append(Output(text, stream, 1.5), str(number))  # type: ignore[arg-type]
        log.close()
        read = [(letter, event.stream) for event in log.read_text() for letter in event.text]
        assert read == [(letter, stream) for text, stream in pieces for letter in text]
        assert [(event.text, event.stream) for event, _ in log.read()] == pieces


def test_small_events_are_few_pieces_of_text(log: EventLog) -> None:
    assert log.claim()
    for number in range(1000):
        log.append(Output(f"{number}\n", timestamp=float(number)), str(number))
    log.append(Output("oh\n", "stderr", 2000.0), None)
    log.append(Output("on\n", "stdout", 2001.0), None)
    log.close()
    first, *others = log.read_text()
    assert first == Output("".join(f"{n}\n" for n in range(1000)), "stdout", 0.0)
    assert others == [Output("oh\n", "stderr", 2000.0), Output("on\n", "stdout", 2001.0)]


@pytest.mark.parametrize("text", ["\udcc3", "a\ud800\n", "\n", "\u2028\x00\x1c", "\U0001f600"])
def test_odd_text_is_read_as_it_was_written(log: EventLog, text: str) -> None:
    assert log.claim()
    log.append(Output("before", timestamp=1.0), "1")
    log.append(Output(text, timestamp=1.0), "2")
    log.close()
    assert [event.text for event, _ in log.read()] == ["before", text]
    assert [event.text for event in log.read_text()] == [f"before{text}"]
