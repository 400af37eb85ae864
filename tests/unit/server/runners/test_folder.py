"""A run's folder: what a runner prepares in it, and what the server believes of what it finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.server.output.spool import read_spool
from lyceum_magic.server.runners import folder as run_folder
from lyceum_magic.server.runners.base import Refusal, RunOrder

END = {
    "reason": "exited", "return_code": 0, "error": "", "started_at": 1.0, "finished_at": 2.0,
}  # fmt: skip


def python(code: str = "print(1)", **fields: str) -> StartPython:
    return StartPython(code=code, **fields)  # type: ignore[arg-type]


def test_an_attempt_of_an_earlier_server_is_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "work/old").mkdir(parents=True)
    for name in ("spool", "control.sock", "own", "supervisor.log"):
        (folder / name).touch()
    run_folder.clear(folder, "own")
    work = run_folder.new_work_folder(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["supervisor.log", "work"]
    assert list(work.iterdir()) == []


def test_a_program_is_written_with_the_files_that_it_brings_along(tmp_path: Path) -> None:
    run_folder.write_program(
        tmp_path, python("import a.b", file_name="x/train.py"), {"a/b.py": "1"}
    )
    work = tmp_path / "work"
    assert (work / "train.py").read_text() == "import a.b"
    assert (work / "a/b.py").read_text() == "1"


@pytest.mark.parametrize(
    ("asked", "taken", "name"),
    [
        (None, [], "main.py"),
        ("train.py", [], "train.py"),
        ("../../etc/a.py", [], "a.py"),
        ("-rf.py", [], "main.py"),
        ("notes.txt", [], "main.py"),
        ("a.py", ["a.py"], "main.py"),
        ("a.py", ["a.py", "main.py", "_main.py"], "__main.py"),
    ],
)
def test_a_program_has_a_name_that_no_other_file_has(
    asked: str | None, taken: list[str], name: str
) -> None:
    request = StartPython(code="", file_name=asked)
    assert run_folder.script_name(request, taken) == name


def test_a_file_that_cannot_be_written_refuses_the_run(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"'a/b\.py' cannot be written"):
        run_folder.write_program(tmp_path, python(), {"a": "1", "a/b.py": "2"})


def test_a_report_is_masked_output_of_the_run(tmp_path: Path) -> None:
    run_order = RunOrder("id", tmp_path, python(), {"KEY": "hunter2-hunter2"})
    run_folder.report(run_order, b"with hunter2-hunter2\n")
    assert [record.data for record in read_spool(tmp_path / "spool", 0)] == [b"with ***\n"]


def test_a_note_is_read_as_written_and_empty_without_one(tmp_path: Path) -> None:
    assert run_folder.read_note(tmp_path) == ""
    run_folder.note(RunOrder("id", tmp_path, python()), "on the CPU")
    assert run_folder.read_note(tmp_path) == "on the CPU"


def test_an_end_is_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "exit.json").write_text(json.dumps(END))
    end = run_folder.read_end(tmp_path)
    assert end is not None
    assert vars(end) == END


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "bored"}, {"return_code": "0"}, {"return_code": True}, {"error": None},
        {"started_at": "now"}, {"finished_at": None}, {"finished_at": True},
        {"finished_at": -1}, {"finished_at": 1e300}, {"more": 1},
    ],
)  # fmt: skip
def test_an_end_that_no_supervisor_writes_is_none(
    tmp_path: Path, change: dict[str, object]
) -> None:
    (tmp_path / "exit.json").write_text(json.dumps({**END, **change}))
    assert run_folder.read_end(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "[" * 100_000, "\xff", "17"])
def test_facts_that_are_no_object_are_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "supervisor.json").write_bytes(text.encode("latin-1"))
    assert run_folder.read_facts(tmp_path) == {}
    assert run_folder.read_facts(tmp_path, "none.json") == {}
