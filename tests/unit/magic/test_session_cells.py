"""Cells of a session against a scripted server: what travels, consent, and words."""

from __future__ import annotations

import ast
import hashlib
import json
from typing import Any

import IPython
import pytest

import lyceum_magic
from lyceum_magic.display.session import not_kept, session_entry
from lyceum_magic.exceptions import OptionError, ProtocolError, RequestRefused
from lyceum_magic.journal.snapshots import Carried, KnownSnapshot
from lyceum_magic.magic.cell import run_cell
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.line import run_line
from lyceum_magic.magic.offload import MARK, offloaded
from lyceum_magic.magic.python_cell import PythonCell
from lyceum_magic.outputs.decoding import SessionSaved
from lyceum_magic.protocol import paths
from lyceum_magic.runs.workspace import workspace
from tests.tools.wire_server import WireServer, json_answer, refusal

DEFAULTS = Defaults()
ID, SHA = "0" * 32, "a" * 64
MANIFEST = json.dumps({"cell": 7, "branch": "main", "variables": {"x": {"type": "int"}}}).encode()


@pytest.fixture(autouse=True)
def shell(wire: WireServer) -> Any:
    """A shell, and a server that has sessions."""
    from IPython.core.interactiveshell import InteractiveShell

    wire.on("GET", paths.SESSIONS, json_answer([]))
    return InteractiveShell.instance()


def session(**changes: object) -> dict[str, object]:
    head = {"id": ID, "sha256": SHA, "cell": 7, "saved_at": "2026-01-02T03:04:05+00:00"}
    return {"key": "train", "title": "train", "branches": {"main": head}, **changes}


def run(line: str, text: str = "x = 1", defaults: Defaults = DEFAULTS) -> None:
    cell = PythonCell(line, text, defaults, {}, {})
    run_cell(cell, defaults, lambda name, value: None)


def started(wire: WireServer) -> dict[str, Any]:
    (request,) = wire.asked("POST", paths.START_PYTHON)
    return dict(request.json)


def test_the_first_cell_begins_empty_and_is_written_down(wire: WireServer) -> None:
    wire.on("GET", paths.session("train"), refusal(404, "There is no session 'train'."))
    run("--session train")
    step = started(wire)["session"]
    assert (step["key"], step["branch"], step["cell"], step.get("parent")) == (
        "train", "main", 1, None,
    )  # fmt: skip
    known = workspace().history.snapshot(step["id"])
    assert known is not None
    assert (known.session, known.sha256, bool(known.tag)) == ("train", "", True)
    assert step["id"] in started(wire)["code"]


def test_a_known_head_is_continued_with_what_earlier_cells_needed(
    wire: WireServer, capsys: pytest.CaptureFixture[str]
) -> None:
    wire.on("GET", paths.session("train"), json_answer(session()))
    carried = Carried(("tabulate==0.9", "numpy==1"))
    known = KnownSnapshot("https://e.org", "train", ID, SHA, "", carried)
    workspace().history.write_snapshot(known)
    run("--session train -r 'numpy>=2'")
    body = started(wire)
    assert body["session"]["parent"] == {"id": ID, "sha256": SHA}
    assert body["session"]["cell"] == 8
    assert body["requirements_content"].splitlines() == ["numpy>=2", "tabulate==0.9"]
    assert "session train continues cell 7 of 2 Jan" in capsys.readouterr().out


def test_an_unknown_head_needs_consent_and_is_known_from_then_on(wire: WireServer) -> None:
    wire.on("GET", paths.session("train"), json_answer(session()))
    with pytest.raises(OptionError, match="was not written from this machine"):
        lyceum_magic.Session("train").start("x = 1")
    assert wire.asked("POST", paths.START_PYTHON) == []
    run("--session train --yes")
    assert started(wire)["session"]["parent"]["id"] == ID
    assert workspace().history.snapshot(ID) is not None
    lyceum_magic.Session("train").start("x = 1")


def test_a_head_that_was_written_over_is_unknown(wire: WireServer) -> None:
    wire.on("GET", paths.session("train"), json_answer(session()))
    for sha256 in ("b" * 64, ""):  # another content; a run whose end was never heard, on a cloud
        workspace().history.write_snapshot(KnownSnapshot("", "train", ID, sha256, "tag"))
        with pytest.raises(OptionError, match="was not written from this machine"):
            lyceum_magic.Session("train").start("x = 1")


def test_a_busy_session_is_the_servers_sentence(wire: WireServer) -> None:
    wire.on("GET", paths.session("train"), refusal(404, "There is no session 'train'."))
    wire.on("POST", paths.START_PYTHON, refusal(409, "Session 'train' is busy: run 1 works on it."))
    with pytest.raises(RequestRefused, match=r"^Session 'train' is busy: run 1 works on it\.$"):
        run("--session train")


def test_a_configured_session_is_that_of_every_cell_that_may_have_one(wire: WireServer) -> None:
    wire.on("GET", paths.session("train"), refusal(404, "There is no session 'train'."))
    configured = Defaults(session="train")
    run("", defaults=configured)
    assert started(wire)["session"]["key"] == "train"
    for line in ("--no-session", "--raw"):
        wire.requests.clear()
        run(line, defaults=configured)
        assert "session" not in started(wire)


def test_an_output_may_be_a_variable_of_an_earlier_cell(wire: WireServer) -> None:
    with pytest.raises(OptionError, match="never sets y"):
        PythonCell("--out y", "x = 1", DEFAULTS, {}, {})
    PythonCell("--out y --session train", "x = 1", DEFAULTS, {}, {})


def test_a_manifest_is_shown_only_as_it_was_written(wire: WireServer) -> None:
    head = {"id": ID, "sha256": hashlib.sha256(MANIFEST).hexdigest(), "cell": 7}
    wire.on("GET", paths.session("train"), json_answer(session(branches={"main": head})))
    wire.on("GET", paths.snapshot("train", ID), json_answer(json.loads(MANIFEST)))
    wire.on("GET", paths.snapshots("train"), json_answer([]))
    said = repr(run_line("session show train", DEFAULTS, lambda name, value: None))
    assert "x     int" in said
    wire.on("GET", paths.snapshot("train", ID), json_answer({"cell": 8}))
    with pytest.raises(ProtocolError, match="has changed since it was written"):
        run_line("session show train", DEFAULTS, lambda name, value: None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("show a b", "Name one session and one cell"),
        ("show 1 2", "Name one session and one cell"),
        ("checkout train", "takes the number of a cell"),
        ("branch Try train", "A branch has a name of a-z"),
        ("rm ../x", "A session has a name of a-z"),
    ],
)
def test_what_no_line_can_mean_is_one_sentence(wire: WireServer, line: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        run_line(f"session {line}", DEFAULTS, lambda name, value: None)
    assert wire.requests == []


def test_an_entry_and_a_loss_are_each_one_line() -> None:
    saved = SessionSaved("nb-" + "0" * 16, "work.ipynb", "main", 7, ID, SHA, 12, 85_000_000)
    assert session_entry(saved) == "session main · cell 7 · 12 variables · 85.0 MB"
    lost = tuple((f"g{number}\n", "a generator") for number in range(9))
    saved = SessionSaved("train", "train", "try", 7, ID, "", 0, 0, lost, "the disk\nis full")
    assert session_entry(saved) == "session train/try · not saved: the disk is full"
    assert not_kept(saved).startswith("Not kept for the next cell: g0 (a generator), g1 (")
    assert not_kept(saved).endswith("g7 (a generator), and 1 more")
    assert not_kept(SessionSaved("train", "train", "main", 1, ID)) == ""


@pytest.mark.parametrize(
    "text",
    [
        "%lyceum list\n", "%%lyceum -m gpu\nx\n", "\n\n%%lyceum_image a\nx\n",
        "%load_ext lyceum_magic\n", "", "\n  \n",
    ],
)  # fmt: skip
def test_cells_for_the_notebook_are_not_offloaded(text: str) -> None:
    lines = text.splitlines(keepends=True)
    assert offloaded(lines, "--session notebook") == lines


@pytest.mark.parametrize("text", ["x = '''a\n  b'''\n", "%timeit 1\n", "# %lyceum\nx\n", "f(\n"])
def test_every_other_cell_travels_as_it_is(text: str) -> None:
    (call,) = offloaded(text.splitlines(keepends=True), "--session train -m gpu")
    tree = ast.parse(call).body[0]
    assert isinstance(tree, ast.Expr)
    assert isinstance(tree.value, ast.Call)
    assert [ast.literal_eval(argument) for argument in tree.value.args] == [
        "lyceum", f"--session train -m gpu {MARK}", text,
    ]  # fmt: skip


def test_lines_of_an_offloaded_cell_count_from_its_first() -> None:
    assert PythonCell(f"--session a {MARK}", "x", DEFAULTS, {}, {}).spec.first_line == 1
    assert PythonCell("--session a", "x", DEFAULTS, {}, {}).spec.first_line == 2
    assert IPython.get_ipython() is not None
