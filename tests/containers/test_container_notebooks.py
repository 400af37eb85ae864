"""The notebooks for images and stacks as readers run them, in a real kernel and a real engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.tools.environments import ROOT
from tests.tools.notebooks import texts

#: The image that the notebooks name; the tests' own image stands in for it.
PUBLIC_IMAGE = "python:3.12-slim"
LIMIT_S = 400

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(LIMIT_S + 60)]


@pytest.fixture(scope="module", autouse=True)
def public_image(image: str) -> Iterator[None]:
    subprocess.run(["docker", "tag", image, PUBLIC_IMAGE], check=True)
    yield
    subprocess.run(["docker", "rmi", PUBLIC_IMAGE], check=True, capture_output=True)


def execute(name: str, folder: Path) -> Path:
    """The notebook as `lyceum-magic demo` leaves it, with its page beside it."""
    copy = folder / "source" / name
    copy.parent.mkdir()
    shutil.copy(ROOT / "notebooks" / name, copy)
    command = ["lyceum_magic.cli", "demo", str(copy), "--output-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    left = subprocess.run(["docker", "ps", "--all", "--quiet"], capture_output=True, check=True)
    assert left.stdout == b""
    return folder / name


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return execute("images.ipynb", tmp_path_factory.mktemp("images"))


def test_what_an_image_prints_is_in_the_notebook(images: Path) -> None:
    shown = texts(images)
    stdout, stderr, summary = shown["shell"]
    assert "uid=0" in stdout
    assert "six times seven is 42\n" in stdout
    assert "mnt\n" in stderr
    assert "✓ completed" in summary
    stdout, _, summary = shown["env"]
    assert stdout == "".join(f"{n}: good morning from user 1000\n" for n in range(3))
    assert "greet" in summary
    assert shown["words"][0] == "['two words', '$HOME']\n"


def test_python_in_an_image_shows_what_a_cell_shows(images: Path) -> None:
    cells = {cell.id: cell for cell in nbformat.read(images, as_version=4).cells}
    assert texts(images)["python"][0] == "teal, in HTML:\n"
    displays = [output.data for output in cells["python"].outputs if "data" in output]
    assert "background:teal" in displays[1]["text/html"]
    assert displays[1]["text/plain"] == "a swatch of teal"


def test_a_failed_image_leaves_its_exit_code(images: Path) -> None:
    stdout, stderr, summary = texts(images)["fail"]
    assert (stdout, stderr) == ("all is well so far\n", "no disk left\n")
    assert "✗ failed" in summary
    state, code, reason = texts(images)["failed"][0].splitlines()
    assert (state, code) == ("failed", "28")
    assert "28" in reason


def test_files_go_there_and_back(images: Path) -> None:
    shown = texts(images)
    assert shown["put"][0].startswith("put words.txt as demo/words.txt: 18 bytes")
    assert shown["count"][3] == "3"
    assert "storage 7\nis 2\nshared 6\n" in shown["get"][0]
    assert shown["remove"][2] == "no files whose keys begin with 'demo/'"


def test_what_a_run_used_is_drawn(images: Path) -> None:
    assert texts(images)["api"][2] == "<State.COMPLETED: 'completed'>"
    cells = {cell.id: cell for cell in nbformat.read(images, as_version=4).cells}
    (chart,) = [output.data for output in cells["metrics"].outputs]
    assert re.search(r"^Processor +[▁-█]+ ", chart["text/plain"], re.M)
    assert re.search(r"^Memory +[▁-█]+ .* most [\d.]+ MB", chart["text/plain"], re.M)
    drawn = re.findall(r'<polyline points="([^"]+)"', chart["image/svg+xml"])
    assert [len(points.split()) > 1 for points in drawn] == [True, True]


def test_a_stack_ends_with_its_jobs(tmp_path: Path) -> None:
    shown = texts(execute("compose.ipynb", tmp_path))
    stdout, _, summary = shown["stack"]
    assert re.search(r"^worker\S* +\| +the store answers 200$", stdout, re.M)
    assert re.search(r"^job\S* +\| +the job has done its work$", stdout, re.M)
    assert stdout.index("the store answers") < stdout.index("the job has")
    assert "✓ completed" in summary
    stdout, stderr, summary = shown["fail"]
    assert (stdout, stderr) == ("reader | nothing to read\n", "printer | out of paper\n")
    assert "✗ failed" in summary
    state, code, reason = shown["failed"][0].splitlines()
    assert (state, code) == ("failed", "7")
    assert "7" in reason
    assert "web  nginx:1.27\n" in shown["dry"][0]
    assert "cache  redis:7\n" in shown["dry"][0]
    assert shown["dry"][0].endswith("nothing was sent\n")
