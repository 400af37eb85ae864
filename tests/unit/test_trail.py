"""The debug trail: the form of its lines, and what they never hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from lyceum_magic import trail
from lyceum_magic.variables import for_run, for_server, for_supervisor


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The trail is on, and goes to this file."""
    monkeypatch.setattr(trail, "is_on", True)
    monkeypatch.setattr(trail, "_descriptor", -1)
    path = tmp_path / "trail.log"
    trail.write_to(path)
    yield path
    os.close(trail._descriptor)


def test_a_line_has_time_side_run_station_and_facts(file):
    trail.mark("server", "run-1", "read", from_=0, to=25, bytes=12)
    time, rest = file.read_text().split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time)
    assert rest == "server run-1 read from=0 to=25 bytes=12\n"


def test_a_run_without_an_id_shows_as_a_dash(file):
    trail.mark("client", "", "stream")
    assert file.read_text().split(" ", 1)[1] == "client - stream\n"


def test_a_text_cannot_bring_in_a_line_or_a_url(file):
    trail.mark("server", "run\n1", "attempt", error="https://u:p@host/?t=1\nserver x y " * 20)
    line, *rest = file.read_text().splitlines()
    assert rest == []
    assert "/" not in line
    assert "@" not in line
    assert len(line) < 150


def test_the_file_is_for_this_user_alone_and_only_grows(file):
    trail.mark("server", "a", "end")
    trail.write_to(file)
    trail.mark("server", "b", "end")
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_text().splitlines()) == 2


def test_a_link_is_not_followed(file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    trail.write_to(link)
    trail.mark("server", "a", "end")
    assert not (tmp_path / "elsewhere").exists()
    assert len(file.read_text().splitlines()) == 1


def test_a_descriptor_that_is_closed_stops_nothing(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(trail, "is_on", True)
    monkeypatch.setattr(trail, "_descriptor", writer)
    trail.mark("server", "a", "end")
    os.close(writer)


def test_off_writes_nothing(file, monkeypatch):
    monkeypatch.setattr(trail, "is_on", False)
    trail.mark("server", "a", "end")
    assert file.read_text() == ""


def test_lines_of_several_files_are_read_in_order(tmp_path):
    log, own = tmp_path / "server.log", tmp_path / "trail.log"
    log.write_text(
        "WARNING something else\n"
        "2026-01-01T00:00:00.000002Z server a read from=0 to=25\n"
        "2026-01-01T00:00:00.000004Z server b read from=0 to=25\n"
    )
    own.write_text(
        "2026-01-01T00:00:00.000001Z client a stream event=12\n"
        "2026-01-01T00:00:00.000003Z client a decoded event=12\n"
    )
    files = [log, own, tmp_path / "none"]
    assert [line.split()[1:4] for line in trail.run_lines(files, "a")] == [
        ["client", "a", "stream"],
        ["server", "a", "read"],
        ["client", "a", "decoded"],
    ]
    assert len(trail.run_lines(files)) == 4


@pytest.mark.parametrize(("value", "is_on"), [("debug", "True"), ("", "False"), ("info", "False")])
def test_the_variable_turns_it_on(value, is_on):
    program = "import lyceum_magic.trail as trail; print(trail.is_on)"
    variables = {**os.environ, trail.VARIABLE: value}
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == is_on


def test_the_variable_reaches_servers_and_supervisors_and_no_program():
    source = {trail.VARIABLE: "debug", "PATH": "/bin", "HTTPS_PROXY": "http://u:p@proxy"}
    assert for_server(source) == source
    assert for_supervisor(source) == {trail.VARIABLE: "debug", "PATH": "/bin"}
    assert for_run(source) == {"PATH": "/bin"}
