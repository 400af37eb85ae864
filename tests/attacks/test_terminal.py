"""Names, reasons and answers that would command a terminal, or show themselves in another order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lyceum_magic
from lyceum_magic.display.summary import RunFacts, to_html, to_text
from lyceum_magic.display.tables import Says, Table
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.states import State
from tests.tools.programs import run_program
from tests.tools.served_process import served
from tests.tools.wire_server import WireServer, json_answer, wire_thread

#: Set the title, empty the screen by a C1 control, turn the writing, break the line.
HOSTILE = "a\x1b]0;owned\x07b\x9b2Jc\u202etxt.exe\u2066d\r\ne"


def assert_harmless(text: str) -> None:
    assert [char for char in text if not char.isprintable() and char != "\n"] == []


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    """A cloud that a stranger answers for."""
    with wire_thread() as server:
        monkeypatch.setenv("LYCEUM_API_KEY", "lk_key")
        monkeypatch.setenv("LYCEUM_BASE_URL", server.base_url)
        yield server


@pytest.mark.parametrize(
    "answer",
    [
        json_answer({"detail": HOSTILE}, status=400),
        json_answer({"detail": HOSTILE}, status=401),
        json_answer({"error": HOSTILE}, status=503),
        json_answer({"detail": [{"loc": ["body", HOSTILE], "msg": HOSTILE}]}, status=422),
        json_answer({"detail": {"nested": HOSTILE}}, status=500),
        json_answer({"available_hardware_profiles": [HOSTILE]}),
    ],
)
def test_a_server_commands_no_terminal(wire: WireServer, answer: object) -> None:
    wire.on("GET", paths.AVAILABLE_HARDWARE, answer)
    wire.on("POST", paths.START_PYTHON, answer)
    # As a program that does not expect it: Python prints the error itself.
    code = "import lyceum_magic\nlyceum_magic.submit('1', auto_requirements=False)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    text = done.stderr.decode()
    assert "�]0;owned" in text or "nested" in text, text
    assert_harmless(text)


def test_tables_and_rows_show_one_harmless_line_each() -> None:
    table = Table([HOSTILE], [[HOSTILE]], title=HOSTILE)
    assert len(repr(table).splitlines()) == 3
    facts = RunFacts("", State.FAILED, HOSTILE, name=HOSTILE, detail=HOSTILE, note=HOSTILE)
    assert len(to_text(facts).splitlines()) == 1
    html = table._repr_html_()
    assert html is not None
    for shown in (repr(table), html, to_text(facts), to_html(facts), repr(Says(HOSTILE))):
        assert_harmless(shown)


def test_words_that_run_from_right_to_left_keep_to_their_place_in_a_page() -> None:
    hebrew = "שלום"
    html = Table(["name"], [[hebrew]])._repr_html_()
    assert html is not None
    assert f"<bdi>{hebrew}</bdi>" in html
    assert f"<bdi>{hebrew}</bdi>" in to_html(RunFacts("", State.FAILED, "cpu", name=hebrew))


def test_a_run_by_a_hostile_name_is_listed_in_one_line(own_machine: Path) -> None:
    printed = run_program(
        f"""
        from IPython.core.interactiveshell import InteractiveShell
        import lyceum_magic
        run = lyceum_magic.submit("pass", name={HOSTILE!r}).result()
        shell = InteractiveShell.instance()
        shell.run_line_magic("load_ext", "lyceum_magic")
        print(repr(shell.run_line_magic("lyceum", "list --all")))
        shell.history_manager.end_session()
        """
    )
    row = printed.splitlines()[-1]
    assert "a�]0;owned�b�2Jc�txt.exe�d e" in row
    assert_harmless(row)


def test_files_that_a_run_names_are_told_of_in_harmless_lines(own_machine: Path) -> None:
    name = HOSTILE.replace("/", "_")
    printed = run_program(
        f"""
        import os, tempfile
        os.chdir(tempfile.mkdtemp())
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        shell.run_line_magic("load_ext", "lyceum_magic")
        cell = "open(" + repr({name!r}) + ", 'w').close()"
        for _ in range(2):
            shell.run_cell_magic("lyceum", "--save a*", cell)
        shell.history_manager.end_session()
        """
    )
    assert "[lyceum] wrote a�]0;owned" in printed
    assert_harmless(printed)


def test_the_server_sends_no_such_text_either(tmp_path: Path) -> None:
    with served(tmp_path / "state") as server:
        reply = server.client.post(
            paths.START_PYTHON,
            json={"code": "1", "execution_type": "cpu", "requirements_content": HOSTILE},
        )
        run_id = reply.json()["execution_id"]
        stream = server.client.post(paths.stream(run_id))
        record = server.client.get(paths.record(run_id)).json()
    assert record["system_errors"] != []
    assert_harmless(record["system_errors"][0])
    for line in stream.text.splitlines():
        if line.startswith("data: "):
            assert_harmless(line)
            result = json.loads(line[6:]).get("jobFinished", {}).get("job", {}).get("result", {})
            assert_harmless(result.get("error", ""))


def test_the_command_line_says_errors_in_one_harmless_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lyceum_magic.cli", "serve", "--index-url-file", HOSTILE],
        capture_output=True,
        timeout=60,
        check=False,
    )
    (line,) = done.stderr.decode().splitlines()
    assert "a�]0;owned" in line
    assert_harmless(line)


def test_errors_keep_what_they_know(wire: WireServer) -> None:
    wire.on("GET", paths.AVAILABLE_HARDWARE, json_answer({"available_hardware_profiles": []}))
    wire.on("POST", paths.START_PYTHON, json_answer({"detail": HOSTILE}, status=400))
    with pytest.raises(lyceum_magic.LyceumError) as refusal:
        lyceum_magic.submit("1", auto_requirements=False)
    assert refusal.value.status_code == 400  # type: ignore[attr-defined]
