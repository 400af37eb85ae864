"""Files travel to the cell byte for byte; those it wrote come back, and land where they may."""

from __future__ import annotations

import glob
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.exceptions import OptionError
from lyceum_magic.outputs.decoding import Harvest, decode
from lyceum_magic.protocol.events import Output
from lyceum_magic.remote import files
from lyceum_magic.runs.saving import write_files
from lyceum_magic.submission.files import check_patterns, pack_files, read_files
from lyceum_magic.submission.wrapping import wrap_cell
from tests.unit.remote.interpreters import INTERPRETERS, LIMIT_S

MARK = "abcdefabcdef"
BINARY = bytes(range(256))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# To the cell.


def test_files_keep_their_path_and_every_byte(here: Path) -> None:
    (here / "a b.bin").write_bytes(BINARY)
    (here / "data/deep").mkdir(parents=True)
    for name in ("x.csv", "deep/y.csv", ".hidden", "deep/.also"):
        (here / "data" / name).write_text(name)
    (here / "data/__pycache__").mkdir()
    (here / "data/__pycache__/m.pyc").touch()
    files = read_files(["a b.bin", "./data", "data/x.csv", str(here / "data/.hidden")])
    assert files == {
        "a b.bin": BINARY,
        "data/x.csv": b"x.csv",
        "data/deep/y.csv": b"deep/y.csv",
        "data/.hidden": b".hidden",
    }


def test_what_cannot_be_sent_is_one_sentence(here: Path) -> None:
    (here.parent / "outside.csv").touch()
    (here / "cell.py").touch()
    os.mkfifo(here / "pipe")
    with (here / "large.bin").open("wb") as file:
        file.truncate(11 * 2**20)
    only = f"only files at or below {here} travel; copy it beside the notebook."
    sentences = {
        "nix.csv": f"there is no such file in {here}.",
        "": f"there is no such file in {here}.",
        "../outside.csv": only,
        str(here.parent / "outside.csv"): only,
        "pipe": "this is no regular file.",
        "cell.py": "cell.py is what the cell itself is called there; rename the file.",
        "large.bin": "large.bin has 11,534,336 bytes, and all files may have 10 MiB; put it in the "
        "account's storage, and read it there.",
    }
    for path, said in sentences.items():
        with pytest.raises(OptionError) as caught:
            read_files([path])
        assert str(caught.value) == f"--file {path}: {said}"


def test_a_folder_of_very_many_files_is_refused(here: Path) -> None:
    (here / "many").mkdir()
    for number in range(1001):
        (here / f"many/{number}").touch()
    with pytest.raises(OptionError, match="more than 1000 files; send them as one archive"):
        read_files(["many"])


@pytest.mark.parametrize(
    "pattern",
    ["/etc/*", "../x", "a/../../x", "~/x", "c:/x", "c:x", "a\\b", "", ".", "\\\\host\\x", "x\0"],
)
def test_a_pattern_that_leaves_the_folder_is_refused(pattern: str) -> None:
    with pytest.raises(OptionError, match="--save takes a pattern below the cell's own folder"):
        check_patterns([pattern])
    assert check_patterns(["a/**/*.p?g", "x", "x"]) == ["a/**/*.p?g", "x"]


# From the cell.


@pytest.fixture(params=INTERPRETERS.values(), ids=INTERPRETERS.keys())
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run_there(
    python: str, folder: Path, cell: str, save: list[str], files: dict[str, bytes] | None = None
) -> tuple[dict[str, bytes], list[str]]:
    """What comes back of a cell: files, problems."""
    folder.mkdir(exist_ok=True)
    script = folder / "cell.py"
    script.write_text(wrap_cell(cell, mark=MARK, files=pack_files(files or {}), save=save))
    done = subprocess.run(
        [python, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        cwd=folder,
    )
    harvest = Harvest(decode([Output(done.stdout, "stdout")], MARK))
    came = harvest.files.values()
    assert done.stderr == "" or "ZeroDivisionError" in done.stdout + done.stderr
    return {f.path: f.data for f in came if not f.problem}, [f.problem for f in came if f.problem]


def test_what_the_cell_wrote_comes_back_and_what_was_sent_does_not(
    python: str, tmp_path: Path
) -> None:
    cell = (
        "import os\n"
        "assert open('in/same.bin', 'rb').read() == bytes(range(256))\n"
        "open('in/changed.txt', 'r+').write('B')\n"  # at once, and of the same size
        "os.makedirs('out/deep')\n"
        "open('out/deep/x.bin', 'wb').write(bytes(range(256)))\n"
        "open('out/y.txt', 'w').write('y')\n"
        "open('top.txt', 'w').write('')\n"
        "os.chdir('/')\n"
    )
    sent = {"in/same.bin": BINARY, "in/changed.txt": b"b"}
    files, problems = run_there(python, tmp_path / "run", cell, ["**/*", "*.nix"], sent)
    assert files == {
        "in/changed.txt": b"B",
        "out/deep/x.bin": BINARY,
        "out/y.txt": b"y",
        "top.txt": b"",
    }
    assert problems == ["--save *.nix: the cell wrote no such file"]


def test_a_plain_folder_means_all_in_it(python: str, tmp_path: Path) -> None:
    cell = (
        "import os\nos.makedirs('out/a')\nopen('out/a/x', 'w').write('x')\n"
        "open('out/a/.zattrs', 'w').write('{}')\n1 / 0"
    )
    came = {"out/a/x": b"x", "out/a/.zattrs": b"{}"}
    assert run_there(python, tmp_path / "run", cell, ["out"]) == (came, [])
    assert run_there(python, tmp_path / "same", cell, ["./out/"]) == (came, [])


def test_folders_that_lead_back_are_not_followed(python: str, tmp_path: Path) -> None:
    cell = (
        "import os\nfor name in 'abc': os.symlink('.', name)\nos.symlink('/', 'all')\n"
        "open('x.txt', 'w').write('x')"
    )
    files, problems = run_there(python, tmp_path / "run", cell, ["**/*.txt", "a"])
    assert (files, len(problems)) == ({"x.txt": b"x"}, 1)


@pytest.mark.parametrize(
    "pattern",
    [
        "**", "**/*", "**/*.txt", "*", "*/*", "a/**", "a/**/c/*", "a/*/x.txt", "**/a/**",
        "a*/**/x*", "**/**/x.txt", "a/.h/*", ".*", "**/.h/**", "[ab]/*.txt", "a/?.txt", "**/.*",
        "a/b/c/x.txt", "a//b/./*.txt", "nix", "[a", "*/b/**/*",
    ],
)  # fmt: skip
def test_patterns_mean_what_they_mean_to_glob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    for folder in ("", "a", "a/b", "a/b/c", "a/.h", "a/.h/d", "b", "[a]"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("x.txt", ".x.txt", "y.bin"):
            (tmp_path / folder / name).touch()
    monkeypatch.setattr(files, "_folder", str(tmp_path))
    found = list(files._matches(pattern))
    meant = glob.glob(pattern, root_dir=tmp_path, recursive=True)
    assert sorted(found) == sorted(
        {os.path.normpath(path) for path in meant if (tmp_path / path).is_file()}
    )


def test_no_link_leads_out_of_the_folder(python: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    cell = (
        "import os\n"
        "os.symlink('../secret', 'file')\nos.symlink('..', 'folder')\n"
        "os.mkdir('real')\nopen('real/x', 'w').write('x')\nos.symlink('real', 'other')\n"
        "os.symlink('real/x', 'link')"
    )
    patterns = ["file", "folder/*", "**/*"]
    files, problems = run_there(python, tmp_path / "run", cell, patterns)
    assert files == {"real/x": b"x", "link": b"x"}
    assert len(problems) == 2


def test_ten_mebibytes_come_back_and_the_rest_is_said(tmp_path: Path) -> None:
    cell = (
        "open('a', 'wb').write(b'a' * 6 * 2**20)\n"
        "open('b', 'wb').write(b'b' * 6 * 2**20)\n"
        "open('c', 'w').write('c')"
    )
    python = next(iter(INTERPRETERS.values()))
    files, problems = run_there(python, tmp_path / "run", cell, ["[abc]"])
    assert sorted(files) == ["a", "c"]
    assert problems == [
        (
            "b has 6,291,456 bytes, more than is left of the 10 MiB that --save brings back; put "
            "it in the account's storage"
        )
    ]


# On this side.


def test_files_are_written_below_the_folder_and_never_over_others(tmp_path: Path) -> None:
    (tmp_path / "same").write_bytes(BINARY)
    (tmp_path / "other").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    files = {"same": BINARY, "other": b"theirs", "dangling": b"d", "new/deep/x": BINARY}
    saved = write_files(files, tmp_path, overwrite=False)
    assert (saved.written, saved.same, saved.kept, saved.refused) == (
        ["new/deep/x"],
        ["same"],
        ["other", "dangling"],
        {},
    )
    assert (tmp_path / "other").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    saved = write_files(files, tmp_path, overwrite=True)
    assert (saved.written, saved.same, saved.kept) == (
        ["other", "dangling"],
        ["same", "new/deep/x"],
        [],
    )
    assert (tmp_path / "other").read_text() == "theirs"
    assert (tmp_path / "dangling").read_text() == "d"
    assert not (tmp_path / "nowhere").exists()
    assert not list(tmp_path.glob(".lyceum-*"))


def test_a_link_of_this_side_leads_nowhere_else(tmp_path: Path) -> None:
    home, away = tmp_path / "mine", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    (away / "there").write_text("mine")
    (home / "link").symlink_to(away)
    (home / "file").symlink_to(away / "there")
    saved = write_files(
        {"link/x": b"x", "link/new/x": b"x", "file": b"theirs"}, home, overwrite=True
    )
    assert saved.refused == dict.fromkeys(
        ["link/x", "link/new/x"], "a link leads out of the folder"
    )
    assert (home / "file").read_bytes() == b"theirs"
    assert (away / "there").read_text() == "mine"
    assert list(away.iterdir()) == [away / "there"]


@pytest.mark.parametrize(
    "path",
    [
        "/x",
        "../x",
        "a/../../x",
        "",
        ".",
        "a//b",
        "./a",
        "a/",
        "c:/x",
        "c:x",
        "..\\x",
        "\\\\h\\s\\x",
        "a\0b",
    ],
)
def test_paths_that_mean_another_place_are_refused(tmp_path: Path, path: str) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    saved = write_files({path: b"x"}, home, overwrite=True)
    assert list(saved.refused) == [path]
    assert list(home.iterdir()) == []


@given(path=st.text(st.sampled_from("./\\:aC~ *\0\udc80")))
def test_no_path_writes_elsewhere(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    outer = tmp_path_factory.mktemp("outer")
    home = outer / "home"
    home.mkdir()
    saved = write_files({path: b"x"}, home, overwrite=True)
    assert list(outer.iterdir()) == [home]
    assert saved.written == [path] or path in saved.refused
