"""Secrets in the list of processes, which every user of a machine can read."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.stranger import Stranger
from tests.tools.served_process import command, served

PASSWORD = "canary-of-the-index"

#: All that a stranger can read of all processes: the command lines, and environments if he may.
READ_ALL = """
    import pathlib
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                print(process.name, name, (process / name).read_bytes())
            except OSError:
                pass
    """


@pytest.fixture
def stuck_index() -> Iterator[tuple[str, threading.Event]]:
    """A package index that never answers, so that the installer is there to be looked at."""
    asked, is_over = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.set()
                is_over.wait()

        thread = threading.Thread(target=take)
        thread.start()
        yield f"http://user:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/simple", asked
        is_over.set()
        thread.join()


@pytest.mark.parametrize("way", ["environment", "file"])
def test_the_password_of_the_index_is_in_no_command_line(
    stranger: Stranger,
    tmp_path: Path,
    stuck_index: tuple[str, threading.Event],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    url, asked = stuck_index
    options: list[str] = []
    if way == "environment":
        monkeypatch.setenv("LYCEUM_MAGIC_INDEX_URL", url)
    else:
        (tmp_path / "index").write_text(f"{url}\n")
        options = ["--index-url-file", str(tmp_path / "index")]
    with served(tmp_path / "state", *options) as server:
        server.start("", requirements_content="anything-at-all")
        assert asked.wait(60)
        seen = stranger.run(READ_ALL)
        assert "uv" in seen
        assert "requirements.txt" in seen  # of the installer, which is at work
        assert PASSWORD not in seen
        server.end()


def test_a_password_on_the_command_line_is_warned_of(tmp_path: Path) -> None:
    # Nothing else is started: the folder is a file.
    (tmp_path / "state").touch()
    done = subprocess.run(
        command("--state-dir", str(tmp_path / "state"), "--index-url", f"https://me:{PASSWORD}@x/"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    warning, _ = done.stderr.splitlines()
    assert "everybody on this machine can read the password in --index-url" in warning
    assert "--index-url-file" in warning
    assert PASSWORD not in done.stderr


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file or directory."),
        (b"\xff", "cannot be read: it is not UTF-8."),
        (b"\n", "should hold one URL, and nothing else."),
        (b"https://a\nhttps://b\n", "should hold one URL, and nothing else."),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "index").write_bytes(content)
    done = subprocess.run(
        command("--state-dir", str(tmp_path), "--index-url-file", str(tmp_path / "index")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    path = tmp_path / "index"
    assert done.stderr == f"lyceum-magic: --index-url-file {path} {sentence}\n"
