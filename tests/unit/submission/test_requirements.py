"""The imports of a cell ask for the right packages, and for no others."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.submission.modules import find_needs, imports_of
from lyceum_magic.submission.requirements import Requirements, read_named
from lyceum_magic.submission.requirements import requirements_of as requirements_for
from lyceum_magic.submission.source import parse_cell


def requirements_of(code: str, named: Sequence[str] = ()) -> list[str]:
    return asked_of(code, named).lines


def asked_of(code: str, named: Sequence[str] = ()) -> Requirements:
    tree = parse_cell(f"{code}\n#", check=False).tree
    return requirements_for(find_needs(imports_of(tree)).imports, read_named(named))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, first on the path."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return folder


def install(
    site: Path, name: str, version: str, *files: str, url: object = None, installer: str = "pip"
) -> None:
    """Write the files of an installed package into `site`, as its installer does."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    (info / "INSTALLER").write_text(installer)
    if url is not None:
        (info / "direct_url.json").write_text(json.dumps(url))
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text("")


def test_an_installed_package_is_pinned_to_the_version_here() -> None:
    assert requirements_of("import httpx, anyio") == [
        f"anyio=={version('anyio')}",
        f"httpx=={version('httpx')}",
    ]


def test_a_package_is_called_by_its_name_on_the_index() -> None:
    assert requirements_of("import dateutil") == [f"python-dateutil=={version('python-dateutil')}"]


@pytest.mark.parametrize(
    ("code", "guess"),
    [
        ("import cv2", "opencv-python-headless"),
        ("import nowhere.part", "nowhere"),
        ("open('utils.py', 'w').write('X = 1')\nfrom utils import X", "utils"),
        ("with open('helpers.py', 'w') as f: f.write('')\nimport helpers, httpx", "helpers"),
        ("get_ipython().run_cell_magic('writefile', 'model.py', '')\nimport model", "model"),
    ],
)
def test_a_package_that_is_not_here_is_never_asked_for(code: str, guess: str) -> None:
    asked = asked_of(code)
    assert asked.guesses == [guess]
    assert guess not in "".join(asked.lines)
    assert requirements_of(code, [guess]) == [guess, *asked.lines]


@pytest.mark.parametrize("kind", ["module", "package", "namespace"])
def test_a_local_module_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "module":
        (tmp_path / "helpers_of_mine.py").write_text("x = 1")
    else:
        (tmp_path / "helpers_of_mine").mkdir()
        name = "__init__.py" if kind == "package" else "part.py"
        (tmp_path / "helpers_of_mine" / name).write_text("x = 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert requirements_of("import helpers_of_mine") == []


def test_what_was_named_comes_first_and_is_not_added_again() -> None:
    lines = requirements_of("import httpx, anyio", ["HTTPX[http2]>=0.27 ; python_version>'3'"])
    assert lines == [
        "HTTPX[http2]>=0.27 ; python_version>'3'",
        f"anyio=={version('anyio')}",
    ]


@pytest.mark.parametrize("named", ["Python.Dateutil", "python_dateutil==2.9", "python--dateutil"])
def test_names_are_compared_as_the_index_compares_them(named: str) -> None:
    assert requirements_of("import dateutil", [named]) == [named]


def test_the_lines_of_a_requirements_file_are_sent(tmp_path: Path) -> None:
    file = tmp_path / "needs.txt"
    file.write_text("# about\n\nrich>=13  # colours\n  httpx\n", encoding="utf-8")
    assert requirements_of("import httpx", [str(file)]) == ["rich>=13  # colours", "httpx"]


def test_a_home_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "home" / "needs.txt").write_text("rich")
    assert requirements_of("", ["~/needs.txt"]) == ["rich"]


@pytest.mark.parametrize("named", ["missing.txt", "folder/missing.in", "~nobody-at-all/needs.txt"])
def test_a_file_that_is_not_there_is_one_sentence(named: str) -> None:
    with pytest.raises(OptionError, match="there is no file"):
        requirements_of("", [named])


def test_a_file_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="cannot be read") as caught:
        requirements_of("", [str(tmp_path / "needs.txt")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("https://example.org/" + "x" * 300 + ".whl", "write `name @ URL`"),
        ("name\0", "is no requirement"),
        ("~nobody-at-all", "is no requirement"),
        ("numpy=2", "is no requirement"),
        ("a b c", "name a file that exists"),
        ("", "is no requirement"),
    ],
)
def test_nonsense_is_one_sentence(named: str, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        requirements_of("", [named])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "address",
    [
        "https://user:S3CRET@host.example/x",
        "https://user:p@S3CRET@host.example/x",
        f"https://user:{'x' * 50}S3CRET{'x' * 50}@host.example/x",
    ],
)
@pytest.mark.parametrize(
    "line", ["git+{}", "-e git+{}", "-c {}", "-r {}", "name @ {} and more", "name >= {}", "{}.txt"]
)
def test_what_lets_somebody_in_at_an_address_is_not_told(
    tmp_path: Path, line: str, address: str
) -> None:
    file = tmp_path / "needs.txt"
    file.write_text(line.format(address))
    # An option is for the server to judge, but for those in a file that name another.
    direct = [] if line.startswith("-r") else [line.format(address)]
    for named in [*direct, str(file)]:
        with pytest.raises(OptionError) as caught:
            read_named([named])
        assert "S3CRET" not in str(caught.value)
        assert "xxxx" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["-e .", "--editable=../mine", "-c constraints.txt", "-r missing.txt", "-r needs.txt"]
)
def test_a_file_may_not_name_what_only_this_machine_has(tmp_path: Path, line: str) -> None:
    (tmp_path / "needs.txt").write_text(f"rich\n{line}\n")
    with pytest.raises(OptionError, match=r"^-r: "):
        requirements_of("", [str(tmp_path / "needs.txt")])


def test_an_included_file_is_sent_in_its_place_and_options_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "more.txt").write_text("httpx \\\n  --hash=sha256:00\n")
    (tmp_path / "needs.txt").write_text("--pre\n-r deep/more.txt\nrich\n")
    named = str(tmp_path / "needs.txt")
    assert requirements_of("import httpx, rich", [named]) == [
        "--pre",
        "httpx    --hash=sha256:00",
        "rich",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    import nowhere\nexcept ImportError:\n    import elsewhere",
        "try:\n    import nowhere\nexcept (KeyError, ModuleNotFoundError): pass",
        "def f():\n    try:\n        import nowhere\n    except: pass",
        "if TYPE_CHECKING:\n    import nowhere",
        "import typing\nif typing.TYPE_CHECKING:\n    import nowhere",
        "import importlib; importlib.import_module('nowhere')",
        "import sys\nif sys.platform == 'win32':\n    import nowhere",
        "class A:\n    def f(self):\n        from nowhere.a import b",
        "async def f():\n    import nowhere",
        "import os, sys, tomllib, __future__, __main__, _thread, zoneinfo, msvcrt",
        "from . import sibling\nfrom .. import other",
        "not python at all",
        "x = '\0'",
        "# import no\n'import no'",
        "x = " + "+".join(["1"] * 700),
        "",
    ],
)
def test_nothing_is_asked_for_that_the_program_may_miss_or_the_interpreter_has(code: str) -> None:
    assert asked_of(code) == Requirements()


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    import nowhere\nexcept KeyError: pass",
        "if TYPE_CHECKING: pass\nelse:\n    import nowhere",
        "await x\nimport nowhere.part as p",
        "class A:\n    from nowhere.a import b",
        "with x:\n    for y in z:\n        import nowhere",
        "if __name__ == '__main__':\n    import nowhere",
    ],
)
def test_for_whatever_else_is_imported_a_name_is_guessed(code: str) -> None:
    assert asked_of(code).guesses == ["nowhere"]


def test_an_optional_package_that_is_here_is_asked_for() -> None:
    code = "try:\n    import httpx\nexcept ImportError:\n    httpx = None"
    assert requirements_of(code) == [f"httpx=={version('httpx')}"]


# What is installed.


def test_a_part_of_a_namespace_is_asked_for_by_its_own_package(site: Path) -> None:
    install(site, "google-cloud-storage", "2.1", "google/cloud/storage/__init__.py")
    install(site, "google-cloud-vision", "3.0", "google/cloud/vision/__init__.py")
    install(site, "protobuf", "5.0", "google/protobuf/__init__.py")
    assert requirements_of("from google.cloud import storage") == ["google-cloud-storage==2.1"]
    assert requirements_of("import google.cloud.vision as v") == ["google-cloud-vision==3.0"]
    assert requirements_of("from google.cloud.storage import Client, vision") == [
        "google-cloud-storage==2.1"
    ]
    assert requirements_of("from google.cloud import storage, vision\nimport google.protobuf") == [
        "google-cloud-storage==2.1",
        "google-cloud-vision==3.0",
        "protobuf==5.0",
    ]
    assert asked_of("from google.cloud import bigquery").guesses == ["google-cloud-bigquery"]


def test_a_missing_part_of_a_namespace_is_not_its_namesake_on_the_index(site: Path) -> None:
    install(site, "protobuf", "5.0", "google/protobuf/__init__.py")
    asked = asked_of("from google.cloud import nothing_known")
    assert asked == Requirements(guesses=["google-cloud-nothing-known"])
    assert asked_of("import google") == Requirements()


def test_of_several_packages_that_bring_a_module_one_is_asked_for(site: Path) -> None:
    for name in ("opencv-python", "opencv-python-headless"):
        install(site, name, "4.9", "cv2/__init__.py")
    assert requirements_of("import cv2") == ["opencv-python-headless==4.9"]


def test_a_local_version_tag_is_on_no_index(site: Path) -> None:
    install(site, "torch", "2.1.0+cu121", "torch/__init__.py")
    assert requirements_of("import torch.nn as nn") == ["torch==2.1.0"]


def test_a_package_from_a_public_address_is_asked_for_by_it(site: Path) -> None:
    git = {"vcs": "git", "requested_revision": "main", "commit_id": "abc123"}
    install(
        site, "fromgit", "1.0", "fromgit.py",
        url={"url": "https://example.org/x/y.git", "vcs_info": git, "subdirectory": "py"},
    )  # fmt: skip
    install(
        site, "fromfile", "1.0", "fromfile.py",
        url={"url": "https://example.org/f-1.0.whl", "archive_info": {}},
    )  # fmt: skip
    assert requirements_of("import fromgit, fromfile") == [
        "fromfile @ https://example.org/f-1.0.whl",
        "fromgit @ git+https://example.org/x/y.git@abc123#subdirectory=py",
    ]


@pytest.mark.parametrize(
    "url",
    [
        {"url": "file:///home/me/mine", "dir_info": {}},
        {"url": "file:///home/me/mine.whl", "archive_info": {}},
        {"url": "http://example.org/mine.whl", "archive_info": {}},
        {"url": "https://user:canary@example.org/mine.whl", "archive_info": {}},
        {"url": "https://10.0.0.1/mine.whl", "archive_info": {}},
        {"url": "https://wheels.internal/mine.whl", "archive_info": {}},
        {"url": "ssh://git@example.org/mine.git", "vcs_info": {"vcs": "git", "commit_id": "a"}},
    ],
)
def test_a_package_that_nobody_else_can_get_is_a_notice(site: Path, url: object) -> None:
    install(site, "mine", "1.0", "mine.py", url=url)
    asked = asked_of("import mine")
    assert asked.lines == []
    (notice,) = asked.notes
    assert notice.startswith("mine was installed from ")
    assert "canary" not in notice


def test_a_conda_package_is_asked_for_by_its_version(site: Path) -> None:
    built = {"url": "file:///croot/thing_1/work", "dir_info": {}}
    install(site, "thing", "1.0", "thing.py", url=built, installer="conda")
    assert asked_of("import thing") == Requirements(["thing==1.0"], [])
