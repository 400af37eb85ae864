"""`%lyceum storage` against a scripted cloud: whole files or none, and nothing written over."""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path

import pytest

from lyceum_magic.exceptions import LyceumError, OptionError
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.line import run_line
from lyceum_magic.protocol import paths
from tests.tools.waiting import eventually
from tests.tools.wire_server import (
    Request,
    WireServer,
    answer,
    hang_up,
    json_answer,
    refusal,
    stream,
)

DEFAULTS = Defaults(machine="cpu", timeout_s=600, max_lines=10, max_bytes=1000)
CONTENT = bytes(range(256)) * 3000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, empty."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def say(line: str) -> str:
    return repr(run_line(f"storage {line}", DEFAULTS, lambda name, value: None))


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


# ls


@pytest.mark.parametrize(
    "listing",
    [
        {"files": [{"key": "b", "size": 1500}, {"key": "a/x", "size": 0}], "truncated": False},
        [{"name": "b", "size": 1500}, {"path": "a/x", "size": 0}],
        {"objects": [{"Key": "b", "Size": 1500}, {"Key": "a/x", "Size": 0}]},
        {"items": [{"key": "b", "size": 1500}, {"key": "a/x", "size": 0}, 7, None, {"x": 1}]},
    ],
)
def test_files_are_listed_however_the_server_words_it(wire: WireServer, listing: object) -> None:
    wire.on("GET", paths.LIST_FILES, json_answer(listing))
    assert say("ls").splitlines() == ["key  size     modified", "a/x  0 bytes", "b    1.5 kB"]


def test_a_prefix_travels_and_more_is_said(wire: WireServer) -> None:
    listed = {"files": [{"key": "a", "last_modified": "2026-11-22T08:00:00Z"}], "truncated": True}
    wire.on("GET", paths.LIST_FILES, json_answer(listed), json_answer({"files": []}))
    said = say("ls 'a&b '")
    assert "2026-11-22T08:00:00" in said
    assert "and more; name a PREFIX" in said
    assert "prefix=a%26b" in wire.requests[-1].query
    assert say("ls x/") == "no files whose keys begin with 'x/'"


# put


@pytest.mark.parametrize(
    ("line", "key"),
    [("data.bin", "data.bin"), ("data.bin a/b.bin", "a/b.bin"), ("data.bin a/", "a/data.bin")],
)
def test_a_file_is_put(
    wire: WireServer, folder: Path, line: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "data.bin").write_bytes(CONTENT)
    wire.on("POST", paths.UPLOAD, json_answer({"key": key, "size": len(CONTENT)}))
    say(f"put {line}")
    (request,) = wire.asked("POST", paths.UPLOAD)
    assert request.query == f"key={key.replace('/', '%2F')}"
    assert CONTENT in request.body
    said = capsys.readouterr().out
    assert said.startswith(f"put data.bin as {key}: 768 kB in ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [("put none", "none cannot be read: No such file"), ("put .", ". is a folder")],
)
def test_what_cannot_be_put_is_one_sentence(wire: WireServer, line: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        say(line)
    assert wire.requests == []


def test_a_put_that_is_refused_says_why(wire: WireServer, folder: Path) -> None:
    (folder / "x").touch()
    wire.on("POST", paths.UPLOAD, refusal(413, "at most 5 GiB"))
    with pytest.raises(LyceumError, match="at most 5 GiB"):
        say("put x")


# get


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("a/data.bin", "data.bin"),
        ("a/data.bin other", "other"),
        ("a/data.bin new/", "new/data.bin"),
        ("a/data.bin new/other", "new/other"),
    ],
)
def test_a_file_is_got(
    wire: WireServer, folder: Path, line: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wire.on("GET", paths.download("a/data.bin"), answer(CONTENT, kind="application/octet-stream"))
    say(f"get {line}")
    assert (folder / place).read_bytes() == CONTENT
    assert left_in(folder) == sorted(Path(place).parts)
    assert capsys.readouterr().out.startswith(f"got a/data.bin as {place}: 768 kB in ")


def test_any_key_is_named_as_it_is(wire: WireServer, folder: Path) -> None:
    wire.on("GET", paths.download("a%20b/%23%3F%25%C3%BC"), answer(b"x"))
    say("get 'a b/#?%ü' x")
    assert (folder / "x").read_bytes() == b"x"


def test_nothing_is_written_over_unless_asked_for(wire: WireServer, folder: Path) -> None:
    wire.on("GET", paths.download("x"), answer(b"new"))
    (folder / "x").write_bytes(b"old")
    with pytest.raises(OptionError, match="x is here already; --yes writes over it"):
        say("get x")
    assert ((folder / "x").read_bytes(), wire.requests) == (b"old", [])
    say("get x --yes")
    assert (folder / "x").read_bytes() == b"new"


def test_a_file_that_comes_meanwhile_is_kept(wire: WireServer, folder: Path) -> None:
    whole = answer(b"new")

    async def late(request: Request, writer: object) -> None:
        (folder / "x").write_bytes(b"mine")
        await whole(request, writer)  # type: ignore[arg-type]

    wire.on("GET", paths.download("x"), late)
    with pytest.raises(OptionError, match="x is here already"):
        say("get x")
    assert (folder / "x").read_bytes() == b"mine"
    assert left_in(folder) == ["x"]


def test_an_interrupt_ends_a_download_and_leaves_nothing(wire: WireServer, folder: Path) -> None:
    main = threading.main_thread().ident
    assert main is not None

    async def held(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome of it")
        await writer.drain()
        await asyncio.to_thread(eventually, lambda: left_in(folder), "a draft of the file")
        signal.pthread_kill(main, signal.SIGINT)
        await asyncio.Event().wait()

    wire.on("GET", paths.download("x"), held)
    with pytest.raises(KeyboardInterrupt):
        say("get x")
    assert left_in(folder) == []


@pytest.mark.parametrize("reply", [hang_up, stream(b"half of it", cut=True)])
def test_half_a_file_is_none(wire: WireServer, folder: Path, reply: object) -> None:
    wire.on("GET", paths.download("x"), reply)  # type: ignore[arg-type]
    with pytest.raises(LyceumError, match="broke"):
        say("get x")
    assert left_in(folder) == []


def test_a_file_that_is_not_there_is_one_sentence(wire: WireServer, folder: Path) -> None:
    for path in (paths.download("x"), paths.delete_file("x"), paths.delete_folder("x/")):
        wire.on("GET", path, refusal(404, "no"))
    for line in ("get x", "rm x", "rm x/"):
        with pytest.raises(OptionError, match=r"The storage has no 'x/?'; `%lyceum storage ls`"):
            say(line)
    with pytest.raises(OptionError, match="'x/' names a folder"):
        say("get x/")
    assert left_in(folder) == []


def test_a_place_that_cannot_be_written_is_one_sentence(wire: WireServer, folder: Path) -> None:
    wire.on("GET", paths.download("x"), answer(b"new"))
    (folder / "file").touch()
    with pytest.raises(OptionError, match="file/x cannot be written: "):
        say("get x file/x")


# rm


def test_files_and_folders_are_removed(wire: WireServer) -> None:
    wire.on("DELETE", paths.delete_file("a/x"), json_answer({"deleted": 1}))
    wire.on("DELETE", paths.delete_folder("a/"), json_answer({"deleted": 3}))
    assert say("rm a/x") == "a/x is removed."
    assert say("rm a/") == "a/ is removed."
