"""The debug trail's file on the client's side, and what `%lyceum doctor --log` says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyceum_magic import trail
from lyceum_magic.client import debug_log


@pytest.fixture
def trail_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "is_on", True)
    monkeypatch.setattr(trail, "_descriptor", trail._descriptor)  # put back at the end


def test_lines_of_one_run_are_found_among_others(tmp_path: Path, trail_on: None) -> None:
    debug_log.begin(tmp_path)
    trail.mark("client", "run-1", "stream", event="7", bytes=12)
    trail.mark("client", "run-2", "stream", event="8", bytes=12)
    (tmp_path / "server.log").write_text(
        "INFO: started\n2026-01-01T00:00:00.000000Z server run-1 accepted\n"
    )
    said = debug_log.last_lines(tmp_path, [tmp_path / "server.log"], "run-1")
    first, *lines = said.partition("\n\n")[0].splitlines()
    assert first == f"The debug trail is on: this kernel writes to {tmp_path / 'debug.log'}."
    assert [line.split(" ", 1)[1] for line in lines] == [
        "server run-1 accepted",
        "client run-1 stream event=7 bytes=12",
    ]


def test_of_many_lines_the_last_ones_are_shown(tmp_path: Path, trail_on: None) -> None:
    debug_log.begin(tmp_path)
    for number in range(30):
        trail.mark("client", "run", "stream", event=number)
    said = debug_log.last_lines(tmp_path, [], count=5).splitlines()
    assert said[1] == "The last 5 of 30 lines:"
    assert [line.rpartition("=")[2] for line in said[2:]] == ["25", "26", "27", "28", "29"]


def test_it_says_how_to_turn_the_trail_on(tmp_path: Path) -> None:
    assert not trail.is_on
    debug_log.begin(tmp_path)
    assert not (tmp_path / "debug.log").exists()
    said = debug_log.last_lines(tmp_path, [], "run")
    assert "LYCEUM_MAGIC_LOG=debug" in said
    assert said.endswith("There are no lines of run run.")


def test_a_large_file_is_put_aside(
    tmp_path: Path, trail_on: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debug_log, "MAX_BYTES", 10)
    debug_log.begin(tmp_path)
    trail.mark("client", "run", "stream", event="1")
    debug_log.begin(tmp_path)
    trail.mark("client", "run", "stream", event="2")
    lines = debug_log.last_lines(tmp_path, []).splitlines()[1:]
    assert [line.rpartition("=")[2] for line in lines] == ["1", "2"]
    assert (tmp_path / "debug.log").read_text().count("\n") == 1
