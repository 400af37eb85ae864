"""One journal for several versions of the package, which may use it at the same time.

An earlier version is represented by a file that it made, and by its own statements.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path

import pytest

from lyceum_magic.journal import schema
from lyceum_magic.journal.journal import KEPT_CHANGES, Entry, Journal
from lyceum_magic.protocol.ages import DAY_S

from .test_journal import entry, written

EARLIER_FILE = Path(__file__).with_name("journal_before_versions.sql")
#: The columns that earlier versions know: their word for a process was session.
NAMES = ["session" if item.name == "process" else item.name for item in fields(Entry)]


def tag(number: int) -> str:
    return f"{number:032x}"


def values(entry: Entry) -> list[object]:
    return [getattr(entry, item.name) for item in fields(Entry)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal as an earlier version left it: three runs that have ended, one that goes on."""
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(EARLIER_FILE.read_text("utf-8"))
    return tmp_path


class EarlierVersion:
    """The statements of the version before `user_version` was used, in a connection of its own."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "journal.db", timeout=10, isolation_level=None)
        self._db.executescript(
            """
            CREATE TABLE IF NOT EXISTS runs (tag TEXT PRIMARY KEY);
            CREATE INDEX IF NOT EXISTS runs_by_id ON runs (run_id);
            CREATE INDEX IF NOT EXISTS runs_by_time ON runs (created_at);
            """
        )

    def write(self, entry: Entry) -> None:
        marks = ", ".join("?" for _ in NAMES)
        self._db.execute(
            f"INSERT OR REPLACE INTO runs ({', '.join(NAMES)}) VALUES ({marks})",
            values(entry),
        )

    def forget(self, tag: str) -> None:
        self._db.execute("DELETE FROM runs WHERE tag = ?", [tag])

    def tags(self) -> list[str]:
        rows = self._db.execute("SELECT * FROM runs ORDER BY created_at DESC LIMIT ?", [-1])
        return [row[0] for row in rows]


def test_a_file_of_an_earlier_version_is_read_and_followed(folder: Path) -> None:
    journal = Journal(folder)
    assert [run.tag for run in journal.entries()] == [tag(3), tag(2), tag(1), tag(0)]
    assert [run.tag for run in journal.unfinished()] == [tag(2)]
    assert journal.find("run-1").reason == "it's why"
    assert [run.tag for run in journal.paid("s")] == [tag(1)]
    news = journal.changes()
    assert [run.tag for run in news.entries] == [tag(0), tag(1), tag(2), tag(3)]
    assert sum(journal.prune(now=1000.0 + 29 * DAY_S)) == 0
    # The newest run ended a moment ago as far as the journal knows: years later it is a day old.
    assert sum(journal.prune(now=1000.0 * DAY_S)) == 0
    for hour in range(24 * 60):
        sum(journal.prune(now=1000.0 * DAY_S + 3600 * hour))
    assert [run.tag for run in journal.entries()] == [tag(2)]


def test_both_versions_write_one_journal(folder: Path) -> None:
    earlier = EarlierVersion(folder)
    journal = Journal(folder)  # beside the earlier one, which goes on
    first = journal.changes()
    sum(journal.prune(now=2000.0))  # has measured all that have ended

    earlier.write(entry("theirs", tag="theirs", created_at=1500.0))
    journal.write(entry("ours", tag="ours", created_at=1600.0))
    ended = replace(journal.find("ours"), state="completed", ended_at=1700.0, billed=0.5)
    earlier.write(ended)  # that kernel has attached to it
    earlier.write(replace(journal.find("run-2"), state="failed", ended_at=1800.0))
    news = journal.changes(first.number)
    assert [run.tag for run in news.entries] == ["theirs", "ours", tag(2)]
    assert journal.find("ours") == ended
    assert [run.tag for run in journal.unfinished()] == ["theirs"]

    # What this version alone knows of the runs is still there, and right for what the other ended.
    rows = dict(journal._db.execute("SELECT tag, size_bytes FROM ended_runs").fetchall())
    assert set(rows) == {tag(0), tag(1), tag(2), tag(3), "ours"}
    assert all(rows[tag(number)] for number in (0, 1, 3))
    earlier.write(journal.find("run-1"))
    assert dict(journal._db.execute("SELECT tag, size_bytes FROM ended_runs").fetchall()) == rows

    later = journal.changes(news.number)
    assert [run.tag for run in later.entries] == [tag(1)]
    earlier.forget("ours")
    last = journal.changes(later.number)
    assert (last.entries, last.forgotten) == ([], ["ours"])
    assert "ours" not in dict(journal._db.execute("SELECT tag, 1 FROM ended_runs").fetchall())
    assert set(earlier.tags()) == {"theirs", *map(tag, range(4))}


class FirstNumberedVersion:
    """The statements of the version that wrote `user_version` 1, which it does not look at again.

    It has the file open when a later version comes, so its connection is older than the migration.
    """

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "journal.db", timeout=10, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(schema._RUNS)
        for statement in schema._STEPS[0]:
            self._db.execute(statement)
        self._db.execute("PRAGMA user_version = 1")

    def write(self, entry: Entry) -> None:
        changes = ", ".join(f"{name} = excluded.{name}" for name in NAMES[1:])
        self._db.execute(
            f"INSERT INTO runs ({', '.join(NAMES)}) VALUES ({', '.join('?' for _ in NAMES)}) "
            f"ON CONFLICT (tag) DO UPDATE SET {changes}",
            values(entry),
        )

    def write_session(self, session: str, notebook: str) -> None:
        self._db.execute(
            "INSERT INTO notebooks (session, notebook) VALUES (?, ?) "
            "ON CONFLICT (session) DO UPDATE SET notebook = excluded.notebook",
            [session, notebook],
        )

    def of_notebook(self, session: str) -> list[str]:
        rows = self._db.execute(
            "SELECT run_id FROM runs WHERE session IN (SELECT session FROM notebooks "
            "WHERE notebook = (SELECT notebook FROM notebooks WHERE session = ?) "
            "UNION ALL SELECT ?) ORDER BY created_at",
            [session, session],
        )
        return [run_id for (run_id,) in rows]

    def close(self) -> None:
        self._db.close()


def test_a_process_that_an_earlier_version_calls_a_session_is_known_to_both(
    tmp_path: Path,
) -> None:
    with closing(FirstNumberedVersion(tmp_path)) as earlier:
        earlier.write_session("a", "/a.ipynb")
        earlier.write(entry("before", process="a", created_at=1.0))
        journal = Journal(tmp_path)
        migrated = journal.changes()
        earlier.write_session("b", "/other.ipynb")
        earlier.write_session("b", "/a.ipynb")
        journal.write_notebook("c", "/a.ipynb")
        earlier.write(entry("theirs", process="b", created_at=2.0))
        journal.write(entry("ours", process="c", created_at=3.0))
        earlier.write(replace(journal.find("ours"), state="completed"))
        journal.write(replace(journal.find("theirs"), state="completed"))
        known = ["before", "theirs", "ours"]
        for process in ("a", "b", "c"):
            assert earlier.of_notebook(process) == known
            assert [run.run_id for run in reversed(journal.of_notebook(process))] == known
        assert [journal.find(run).process for run in known] == ["a", "b", "c"]
        assert journal.find("last", "b").run_id == "theirs"
    news = journal.changes(migrated.number)
    assert [run.run_id for run in news.entries] == ["ours", "theirs"]


def test_the_migration_is_no_news_of_any_run(tmp_path: Path) -> None:
    with closing(FirstNumberedVersion(tmp_path)) as earlier:
        earlier.write(entry("first", tag="1", created_at=1.0))
        earlier.write(entry("second", tag="2", created_at=2.0))
        ((newest,),) = earlier._db.execute("SELECT max(number) FROM changes")
    journal = Journal(tmp_path)
    assert journal.changes(newest).entries == []
    journal.write(replace(journal.find("first"), state="failed"))
    assert [run.run_id for run in journal.changes(newest).entries] == ["first"]


def test_what_a_later_version_adds_to_a_row_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(entry())
    with closing(sqlite3.connect(tmp_path / "journal.db")) as later:
        later.execute("ALTER TABLE runs ADD COLUMN recording TEXT")
        later.execute("UPDATE runs SET recording = 'kept'")
        later.commit()
        journal.write(replace(entry(), state="completed"))
        assert later.execute("SELECT recording FROM runs").fetchall() == [("kept",)]
    assert journal.find("run").is_final


def test_a_follower_hears_of_the_run_that_takes_the_place_of_a_forgotten_one(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    journal.write(entry("old"))
    journal.write(entry("newest"))
    seen = journal.changes()
    rowids = journal._db.execute("SELECT rowid FROM runs ORDER BY rowid").fetchall()
    journal.forget(["tag-newest"])
    journal.write(entry("next"))
    # The very case: SQLite gives the number of the row once more.
    assert [*map(tuple, journal._db.execute("SELECT rowid FROM runs ORDER BY rowid"))] == [
        *map(tuple, rowids)
    ]
    news = journal.changes(seen.number)
    assert ([run.run_id for run in news.entries], news.forgotten) == (["next"], ["tag-newest"])
    assert journal.changes(news.number).entries == []
    # Forgotten and written again: it is there.
    journal.write(entry("newest"))
    again = journal.changes(news.number)
    assert ([run.run_id for run in again.entries], again.forgotten) == (["newest"], [])


def test_changes_come_in_pages_and_a_follower_that_was_away_for_long_is_told(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    for number in range(5):
        journal.write(entry(str(number), created_at=float(number)))
    heard, after = [], 0
    while (news := journal.changes(after, limit=2)).entries:
        heard += [run.run_id for run in news.entries]
        after = news.number
    assert heard == ["0", "1", "2", "3", "4"]
    journal.forget(["tag-0"])
    for _ in range(KEPT_CHANGES):
        journal.write(entry("1"))
    assert journal.changes(after).is_complete is False
    sum(journal.prune(now=10.0))
    assert journal.changes().forgotten == []  # nor is it kept for ever
    assert journal.changes(journal.changes().number).is_complete


def test_processes_that_open_an_earlier_file_at_once_find_it_ready(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path;"
        "from lyceum_magic.journal.journal import Journal;"
        "input(); print(len(Journal(Path(sys.argv[1])).changes().entries))"
    )
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    assert [opener.communicate()[0] for opener in openers] == ["4\n"] * 4


# The clock.


@pytest.mark.parametrize("wrong_days", [40, 10_000, -40, -10_000])
def test_a_clock_that_is_wrong_at_some_starts_costs_no_history(
    tmp_path: Path, wrong_days: int
) -> None:
    now = 20_000 * DAY_S
    journal = Journal(tmp_path)
    for run_id, days in (("new", 1), ("older", 20)):
        written(journal, run_id, 10, created_at=now - days * DAY_S, state="failed")
    assert sum(journal.prune(now=now)) == 0
    for start in range(40):  # a CI of many notebooks: each of them opens the journal
        wrong = now + wrong_days * DAY_S + start
        assert sum(journal.prune(now=wrong)) == 0
    written(journal, "wrong", 10, created_at=wrong, ended_at=wrong + 1, state="completed")
    assert sum(journal.prune(now=now + 3600)) == 0
    assert journal.count() == 3


def test_a_wrong_clock_at_the_first_start_of_this_version_costs_no_history(folder: Path) -> None:
    assert sum(Journal(folder).prune(now=1000.0 + 40 * DAY_S)) == 0


# The cost of many runs: steps of the database, never seconds.

QUESTIONS: dict[str, Callable[[Journal], object]] = {
    "find": lambda journal: journal.find("00000005"),
    "find by tag": lambda journal: journal.find("tag-00000005"),
    "last": lambda journal: journal.find("last", "none"),
    "own last": lambda journal: journal.find("last", "mine"),
    "newest": lambda journal: journal.entries(limit=5),
    "unfinished": lambda journal: journal.unfinished(),
    "paid": lambda journal: journal.paid("mine"),
    "of notebook": lambda journal: journal.of_notebook("mine", limit=5),
    "count of notebook": lambda journal: journal.count("mine"),
    "write": lambda journal: journal.write(entry("00000005", state="failed")),
    "changes": lambda journal: journal.changes(journal.changes(0, limit=5).number, limit=5),
    "forget": lambda journal: journal.forget(["tag-00000005"]),
}


def test_no_question_reads_more_rows_the_more_runs_there_are(tmp_path: Path) -> None:
    taken: list[dict[str, int]] = []
    for runs in (20, 2000):
        journal = Journal(tmp_path / str(runs))
        journal.write_notebook("mine", "/notebook.ipynb")
        for number in range(runs):
            process = "mine" if number < 10 else "another"
            run = entry(
                f"{number:08}", process=process, created_at=float(number), state="completed"
            )
            journal.write(run)
        taken.append({what: steps(journal, ask) for what, ask in QUESTIONS.items()})
    few, many = taken
    assert {w: (few[w], many[w]) for w in few if many[w] > few[w] + 20} == {}


def steps(journal: Journal, question: Callable[[Journal], object]) -> int:
    """The instructions of SQLite's virtual machine that a question takes."""
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 1

    journal._db.set_progress_handler(count, 1)
    question(journal)
    journal._db.set_progress_handler(None, 1)
    return taken


# Which runs are of a notebook.


def test_the_runs_of_a_notebook_are_those_of_all_its_kernels(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number, process in enumerate(["first", "second", "other", "script", "first"]):
        journal.write(entry(str(number), process=process, created_at=float(number)))
    journal.write_notebook("first", "/home/ann/a.ipynb")
    journal.write_notebook("second", "/home/ann/a.ipynb")
    journal.write_notebook("other", "/home/ann/b.ipynb")
    of = {s: [run.run_id for run in journal.of_notebook(s)] for s in ("first", "other", "script")}
    assert of == {"first": ["4", "1", "0"], "other": ["2"], "script": ["3"]}
    assert journal.count("second") == 3
    assert [run.run_id for run in journal.of_notebook("second", limit=2)] == ["4", "1"]
    assert journal.of_notebook("unheard of") == []
