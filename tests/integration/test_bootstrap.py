"""The bootstrap stays at home where the server has the same one, and travels where it has not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import lyceum_magic
from lyceum_magic.folders import server_folder
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.bootstrap import digest_in
from lyceum_magic.submission.wrapping import digest, stub_of
from tests.tools.served_process import command, served

CELL = "import sys\nprint('lyceum_magic_remote' in sys.modules)\n1 / 0"


def sent_program(folder: Path) -> str:
    """The request that came to the server for its only run."""
    [program] = folder.glob("runs/*/work/*.py")
    return program.read_text("utf-8")


def test_a_server_with_the_same_one_is_sent_the_cell_alone() -> None:
    run = lyceum_magic.submit(CELL, outputs="sys", place="local")
    with pytest.raises(lyceum_magic.RunFailed, match="division by zero"):
        run.result()
    assert run.text == "True\n"
    code = sent_program(server_folder())
    assert digest_in(code) == digest()
    assert len(code) < 1000


def test_a_raw_program_finds_nothing_of_it() -> None:
    run = lyceum_magic.submit(
        "import sys\nprint([n for n in sys.modules if 'lyceum' in n], "
        "[f for f in sys.meta_path if 'lyceum' in getattr(f, '__module__', '')])",
        raw=True,
        place="local",
    )
    run.result()
    assert run.text == "[] []\n"


def test_a_server_of_another_checkout_is_sent_all_of_it(tmp_path: Path) -> None:
    """A bootstrap of the same version, with one line changed."""
    package = Path(lyceum_magic.__file__).parent
    shutil.copytree(package, tmp_path / "other/lyceum_magic")
    with (tmp_path / "other/lyceum_magic/remote/streams.py").open("a") as file:
        file.write("CHANGED = True\n")
    folder = server_folder()
    folder.mkdir(parents=True, mode=0o700)
    process = subprocess.Popen(
        command("--state-dir", str(folder)),
        stdout=subprocess.PIPE,
        cwd=tmp_path,  # where there is no other package of this name
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "other")},
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        run = lyceum_magic.submit(CELL, place="local")
        with pytest.raises(lyceum_magic.RunFailed, match="division by zero"):
            run.result()
        assert run.text == "True\n"
        assert digest_in(sent_program(folder)) == ""
    finally:
        process.terminate()
        process.communicate()


def test_a_cell_for_an_earlier_server_runs_with_what_that_one_left(tmp_path: Path) -> None:
    """And ends with a sentence where nothing is left."""
    stub = stub_of("1")
    with served(tmp_path / "state") as server:
        folder = tmp_path / "state/bootstraps"
        other = "0" * 64
        shutil.copyfile(folder / f"{digest()}.py", folder / f"{other}.py")
        found = server.start(stub.replace(digest(), other))
        missing = server.start(stub.replace(digest(), "1" * 64))

        def end_of(run: dict[str, object]) -> dict[str, object]:
            server.client.get(paths.stream(str(run["execution_id"])))  # to its end
            return dict(server.client.get(paths.record(str(run["execution_id"]))).json())

        assert end_of(found)["status"] == "completed"
        end = end_of(missing)
        assert end["status"].startswith("failed")
        assert "run the cell again" in json.dumps(end)
