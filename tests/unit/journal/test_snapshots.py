"""The snapshots that this machine knows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from lyceum_magic.journal import schema
from lyceum_magic.journal.journal import Journal
from lyceum_magic.journal.snapshots import KNOWN_DAYS, Carried, KnownSnapshot
from lyceum_magic.protocol.ages import DAY_S

SNAPSHOT = KnownSnapshot(
    "https://e.org", "train", "0" * 32, "", "tag", Carried(("a==1", "b"), ("mine",))
)


def test_a_snapshot_is_known_once_it_was_written_down(tmp_path: Path) -> None:
    with closing(Journal(tmp_path)) as journal:
        assert journal.snapshots.find(SNAPSHOT.id) is None
        journal.snapshots.write(SNAPSHOT)
        assert journal.snapshots.find(SNAPSHOT.id) == SNAPSHOT
    with closing(Journal(tmp_path)) as later:
        assert later.snapshots.find(SNAPSHOT.id) == SNAPSHOT


def test_only_the_run_that_writes_a_snapshot_can_say_its_digest(tmp_path: Path) -> None:
    with closing(Journal(tmp_path)) as journal:
        journal.snapshots.write(SNAPSHOT)
        foreign = replace(SNAPSHOT, id="1" * 32, tag="", sha256="b" * 64)
        journal.snapshots.write(foreign)
        for tag in ("other", ""):
            journal.snapshots.note_saved(tag, SNAPSHOT.id, "a" * 64)
            journal.snapshots.note_saved(tag, foreign.id, "a" * 64)
        journal.snapshots.note_saved("tag", "2" * 32, "a" * 64)
        assert journal.snapshots.find(SNAPSHOT.id) == SNAPSHOT
        assert journal.snapshots.find(foreign.id) == foreign
        assert journal.snapshots.find("2" * 32) is None
        journal.snapshots.note_saved("tag", SNAPSHOT.id, "a" * 64)
        assert journal.snapshots.find(SNAPSHOT.id) == replace(SNAPSHOT, sha256="a" * 64)


def test_old_ones_are_forgotten(tmp_path: Path) -> None:
    with closing(Journal(tmp_path)) as journal:
        journal.snapshots.write(SNAPSHOT)
        ((noted_at,),) = journal._db.execute("SELECT noted_at FROM snapshots")
        journal.snapshots.forget_before(noted_at + (KNOWN_DAYS - 1) * DAY_S)
        assert journal.snapshots.find(SNAPSHOT.id) is not None
        journal.snapshots.forget_before(noted_at + (KNOWN_DAYS + 1) * DAY_S)
        assert journal.snapshots.find(SNAPSHOT.id) is None


def test_a_journal_of_an_earlier_version_gets_the_table_while_that_version_writes(
    tmp_path: Path,
) -> None:
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as earlier:
        earlier.execute("PRAGMA journal_mode=WAL")
        earlier.executescript(schema._RUNS)
        for step in schema._STEPS[:2]:
            for statement in step:
                earlier.execute(statement)
        earlier.execute("PRAGMA user_version = 2")
        with closing(Journal(tmp_path)) as journal:
            journal.snapshots.write(SNAPSHOT)
            earlier.execute(
                "INSERT INTO runs (tag, base_url, is_embedded, server_folder, machine, name, "
                "timeout_s, created_at, state) "
                "VALUES ('t', 'u', 0, '', 'cpu', '', 60, 1.0, 'failed')"
            )
            assert [entry.tag for entry in journal.entries()] == ["t"]
            assert journal.snapshots.find(SNAPSHOT.id) == SNAPSHOT
