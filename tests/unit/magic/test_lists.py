"""`%lyceum list`: which runs it shows, and that it says so."""

from __future__ import annotations

import time

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.journal.journal import Entry, Journal
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.line import run_line
from lyceum_magic.runs import history as history_module
from lyceum_magic.runs import workspace as workspace_module
from lyceum_magic.runs.workspace import Workspace
from tests.tools.wire_server import WireServer

DEFAULTS = Defaults(machine="cpu", timeout_s=600, max_lines=10, max_bytes=1000)
ALL = "--all those of all notebooks"

pytestmark = pytest.mark.usefixtures("wire")


def shown(line: str = "") -> tuple[str, list[str]]:
    """The sentence above a list, and the names of its runs."""
    said = repr(run_line(f"list {line}", DEFAULTS, lambda name, value: None))
    title, _, *rows = said.splitlines()
    return title, [row.split()[3] for row in rows]


def past_runs(journal: Journal, workspace: str, *names: str) -> None:
    for name in names:
        number = journal.count()
        journal.write(
            Entry(
                tag=name, run_id=f"id-{name}", base_url="http://127.0.0.1:1", is_embedded=False,
                server_folder="", streaming_url=None, machine="cpu", name=name, timeout_s=60,
                created_at=time.time() - 1000 + number, ended_at=time.time(), state="completed",
                process=workspace,
            )
        )  # fmt: skip


@pytest.fixture
def here() -> Workspace:
    return workspace_module.workspace()


def fill(here: Workspace, mine: int, others: int) -> None:
    async def write() -> None:
        past_runs(here.history.journal, "another", *(f"other{n}" for n in range(others)))
        past_runs(here.history.journal, here.process_id, *(f"mine{n}" for n in range(mine)))

    here.history.entries()  # opens the journal, on the loop's thread as everything in it
    here.ask(write)


def test_a_list_without_runs_says_where_the_others_are(here: Workspace) -> None:
    fill(here, mine=0, others=1)
    said = repr(run_line("list", DEFAULTS, lambda name, value: None))
    assert said == "no runs of this notebook; --all shows all others"


@pytest.mark.parametrize(
    ("line", "title", "names"),
    [
        (
            "",
            f"the newest 20 of 25 runs of this notebook; --limit N shows more, {ALL}",
            [f"mine{n}" for n in reversed(range(5, 25))],
        ),
        (
            "--limit 25",
            "all 25 runs of this notebook; --all shows those of all notebooks",
            [f"mine{n}" for n in reversed(range(25))],
        ),
        (
            "--all",
            "the newest 50 of 65 runs; --limit N shows more",
            [
                *(f"mine{n}" for n in reversed(range(25))),
                *(f"other{n}" for n in reversed(range(15, 40))),
            ],
        ),
        ("--all --limit 2", "the newest 2 of 65 runs; --limit N shows more", ["mine24", "mine23"]),
    ],
)
def test_a_list_shows_the_newest_and_says_so(
    here: Workspace, line: str, title: str, names: list[str]
) -> None:
    fill(here, mine=25, others=40)
    assert shown(line) == (title, names)


def test_a_list_of_all_there_is_says_so(here: Workspace) -> None:
    fill(here, mine=1, others=0)
    assert shown() == (
        "the only run of this notebook; --all shows those of all notebooks",
        ["mine0"],
    )
    assert shown("--all") == ("the only run", ["mine0"])
    fill(here, mine=0, others=2)
    assert shown("--all")[0] == "all 3 runs"


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "9" * 20])
def test_a_limit_that_is_no_number_of_runs_is_refused(limit: str) -> None:
    with pytest.raises(OptionError, match="limit"):
        run_line(f"list --limit {limit}", DEFAULTS, lambda name, value: None)


def test_a_kernel_that_is_started_again_goes_on_with_its_notebook(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for notebook, names in (("/home/ann/a.ipynb", ["before"]), ("/home/ann/b.ipynb", ["other"])):
        monkeypatch.setenv(history_module.NOTEBOOK_VARIABLE, notebook)
        kernel = Workspace()
        kernel.history.entries()

        async def write(kernel: Workspace = kernel, names: list[str] = names) -> None:
            past_runs(kernel.history.journal, kernel.process_id, *names)

        kernel.ask(write)
        kernel.close()
    monkeypatch.setenv(history_module.NOTEBOOK_VARIABLE, "/home/ann/a.ipynb")
    assert shown()[1] == ["before"]
