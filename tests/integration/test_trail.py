"""The debug trail of a real server and its supervisors: every border of a run, and no content."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyceum_magic import trail
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

TEXT = "Sesame-8361"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def followed(server: ServedProcess, code: str) -> str:
    """Run a program and read its stream to the end; return its id."""
    reply = server.start(code)
    stream = server.client.get(reply["streaming_url"])
    assert "jobFinished" in stream.text
    return str(reply["execution_id"])


def stations(lines: list[str]) -> list[str]:
    return [" ".join((words := line.split())[1:4:2] + words[4:]) for line in lines]


def test_every_border_of_a_run_has_its_line(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trail.VARIABLE, trail.ON)
    with served(tmp_path / "state") as server:
        run_id = followed(
            server,
            "import os, sys\n"
            "assert 'LYCEUM_MAGIC_LOG' not in os.environ\n"
            f"os.write(1, b'{TEXT} \\xe2\\x82')\n"  # the end of it is held back
            "sys.stdin.read()\n"
            "os.write(1, b'\\xac')",
        )
        eventually(
            lambda: any(" left" in line for line in trail.run_lines([log], run_id)), "the last line"
        )
    lines = trail.run_lines([log], run_id)
    found = stations(lines)
    assert {station.partition(" ")[2].partition(" ")[0] for station in found} >= {
        "accepted", "queued", "started", "up", "program", "running", "spool", "follow", "read",
        "sent", "end", "left",
    }  # fmt: skip
    assert found[:2] == ["server accepted kind=python", "server queued ahead=0"]
    # A record has 13 bytes before its payload: what is held back shows as an end that is short of
    # what came in.
    spooled = [station for station in found if " spool " in station]
    sums = trail.borders(lines)
    assert [sums[name].size for name in ("spool", "written", "read", "encoded")] == [
        len(TEXT) + 4
    ] * 4
    reads = [station for station in found if " read " in station]
    end = spooled[-1].split("offset=")[1]
    assert reads[0].startswith("server read from=0 ")
    assert f" to={end} " in reads[-1]
    assert f"supervisor end reason=exited offset={end}" in found
    assert "server end state=completed" in found
    assert TEXT not in "".join(lines)
    assert server.facts()["api_key"] not in log.read_text()
    assert "?" not in "".join(lines)  # no station has a fact that had to be cut


def test_without_the_variable_there_is_no_line(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(trail.VARIABLE, raising=False)
    with served(tmp_path / "state") as server:
        followed(server, "print(1)")
    assert trail.run_lines([log]) == []
