"""What a cell's imports ask for, and what they do not."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.submission.requirements import imported_names, requirements_of


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import numpy", {"numpy"}),
        ("import a.b.c as d, e", {"a", "e"}),
        ("from a.b import c", {"a"}),
        ("def f():\n    import inside", {"inside"}),
        ("try:\n    import maybe\nexcept ImportError: pass", {"maybe"}),
        ("if TYPE_CHECKING:\n    import typed", {"typed"}),
        ("from . import sibling\nfrom .. import other", set()),
        ("import os, sys, tomllib, __future__, __main__, _thread, zoneinfo", set()),
        ("await x\nimport a", {"a"}),
        ("# import no\n'import no'", set()),
        ("not python at all", set()),
        ("x = '\0'", set()),
        ("", set()),
    ],
)
def test_names_come_from_import_statements_alone(code: str, names: set[str]) -> None:
    assert imported_names(code) == names


def test_an_installed_package_is_pinned_to_the_version_here() -> None:
    assert requirements_of("import httpx, anyio") == [
        f"anyio=={version('anyio')}",
        f"httpx=={version('httpx')}",
    ]


def test_a_package_is_called_by_its_name_on_the_index() -> None:
    assert requirements_of("import dateutil") == [f"python-dateutil=={version('python-dateutil')}"]


@pytest.mark.parametrize(
    ("code", "line"), [("import cv2", "opencv-python-headless"), ("import nowhere", "nowhere")]
)
def test_a_package_that_is_not_here_is_asked_for_without_a_version(code: str, line: str) -> None:
    assert requirements_of(code) == [line]


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


def test_detection_can_be_switched_off() -> None:
    assert requirements_of("import httpx", ["rich"], detect=False) == ["rich"]
    assert requirements_of("import httpx", detect=False) == []


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
    "named", ["https://example.org/" + "x" * 300 + ".whl", "name\0", "~nobody-at-all"]
)
def test_what_cannot_be_a_path_is_a_requirement(named: str) -> None:
    assert requirements_of("", [named]) == [named]
