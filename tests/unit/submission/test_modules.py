"""The user's own modules travel with a cell, and none of them is run to find them."""

from __future__ import annotations

import gc
import importlib
import sys
import types
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.protocol.requests import StartPython, decode_import_files
from lyceum_magic.submission import modules
from lyceum_magic.submission.modules import Needs, imports_of
from lyceum_magic.submission.modules import find_needs as needs_of
from lyceum_magic.submission.python_request import prepare_python
from lyceum_magic.submission.source import parse_cell
from lyceum_magic.submission.specs import PythonSpec


def find_needs(code: str) -> Needs:
    return needs_of(imports_of(parse_cell(code, check=False).tree))


def python_request(code: str, **options: Any) -> StartPython:
    return prepare_python(PythonSpec(code, **options)).request


#: In each file, so that a file that is run is noticed.
TRAP = "raise AssertionError('executed')\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The notebook's folder."""
    folder = tmp_path / "notebook"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    return folder


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(TRAP + text, encoding="utf-8")


def travelling(code: str) -> set[str]:
    return set(find_needs(code).files)


def outside(code: str) -> set[str]:
    return {item.module for item in find_needs(code).imports}


PROJECT = {
    "mine.py": "import httpx",
    "other.py": "from mine import x",
    "pkg/__init__.py": "from .base import Base\n",
    "pkg/base.py": "from . import shared\nimport anyio",
    "pkg/shared.py": "from .. import nothing_above",
    "pkg/deep/__init__.py": "",
    "pkg/deep/a.py": "from ..base import Base\nfrom .b import y",
    "pkg/deep/b.py": "from pkg.deep import a  # a circle",
    "pkg/unused.py": "",
    "space/one.py": "",
    "space/inner/two.py": "",
    "all/__init__.py": "__all__ = ['first', 'NotAModule']\n__all__ += ['second']",
    "all/first.py": "",
    "all/second.py": "",
    "all/third.py": "",
}
PKG = {"pkg/__init__.py", "pkg/base.py", "pkg/shared.py"}


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("import mine", {"mine.py"}),
        ("import other as o", {"mine.py", "other.py"}),
        ("def f():\n    try:\n        import mine\n    except ImportError: pass", {"mine.py"}),
        ("if condition:\n    import mine", {"mine.py"}),
        ("import pkg", PKG),
        ("from pkg import Base", PKG),
        ("from pkg import unused", PKG | {"pkg/unused.py"}),
        ("import pkg.unused as u", PKG | {"pkg/unused.py"}),
        (
            "from pkg.deep.a import y",
            PKG | {"pkg/deep/__init__.py", "pkg/deep/a.py", "pkg/deep/b.py"},
        ),
        ("from space import one", {"space/one.py"}),
        ("import space.inner.two", {"space/inner/two.py"}),
        ("import space", set()),
        ("from all import *", {"all/__init__.py", "all/first.py", "all/second.py"}),
        ("from importlib import import_module as i\nimport_module('mine')", {"mine.py"}),
        ("import pkg.missing", PKG),
        ("import missing", set()),
        ("if TYPE_CHECKING:\n    import mine", set()),
        ("from . import mine", set()),
        ("import __main__", set()),
        ("this is no Python", set()),
    ],
)
def test_what_a_cell_imports_travels_and_nothing_else(
    here: Path, code: str, files: set[str]
) -> None:
    write(here, PROJECT)
    assert travelling(code) == files


def test_what_local_modules_import_is_known_too(here: Path) -> None:
    write(here, PROJECT)
    assert outside("import other, pkg") == {"httpx", "anyio"}
    assert outside("import mine, numpy") == {"httpx", "numpy"}


def test_the_request_carries_sources_and_requirements(here: Path) -> None:
    write(here, PROJECT)
    request = python_request("import other")
    assert decode_import_files(request.import_files or "") == {
        name: TRAP + PROJECT[name] for name in ("mine.py", "other.py")
    }
    assert (request.requirements_content or "").startswith("httpx==")


def test_a_local_package_is_no_requirement(here: Path) -> None:
    write(here, PROJECT)
    request = python_request("import space.one, pkg.missing")
    assert "pkg" not in (request.requirements_content or "")


def test_a_module_that_is_named_with_r_is_installed_instead(here: Path) -> None:
    write(here, {"my_tool.py": ""})
    request = python_request("import my_tool", requirements=["My.Tool>=2"])
    assert (request.import_files, request.requirements_content) == (None, "My.Tool>=2")


def test_a_module_that_was_changed_is_read_again(here: Path) -> None:
    write(here, {"mine.py": "import httpx"})
    assert outside("import mine") == {"httpx"}
    write(here, {"mine.py": "import anyio, httpx"})
    assert outside("import mine") == {"anyio", "httpx"}


def test_no_cell_is_kept() -> None:
    class Text(str):
        """A text that can be watched."""

    cell = Text("import httpx")
    watched = weakref.ref(cell)
    find_needs(cell)
    del cell
    gc.collect()
    assert watched() is None


@pytest.mark.parametrize(
    "lazy",
    [
        "def __getattr__(name):\n    from importlib import import_module\n    return name",
        "import importlib\nPARTS = [importlib.import_module(f'{__name__}.{p}') for p in 'ab']",
    ],
)
def test_a_package_that_imports_by_made_up_names_travels_whole(here: Path, lazy: str) -> None:
    files = {"lazy/__init__.py": lazy, "lazy/a.py": "import numpy", "lazy/b/__init__.py": "",
             "lazy/b/deep.py": "import nowhere", "lazy/notes.txt": "", "other.py": ""}  # fmt: skip
    write(here, files)
    assert travelling("import lazy") == set(files) - {"lazy/notes.txt", "other.py"}
    assert outside("import lazy") == {"numpy", "nowhere"}
    assert all(item.is_optional for item in find_needs("import lazy").imports)


def test_a_circle_ends(here: Path) -> None:
    write(here, {"ring.py": "import rung", "rung.py": "import ring, rung"})
    assert travelling("import ring") == {"ring.py", "rung.py"}


def test_a_long_chain_is_followed(here: Path) -> None:
    write(here, {f"link{n}.py": f"import link{n + 1}" for n in range(1500)})
    assert len(travelling("import link0")) == 1500


# Which one an import would find here.


def test_the_notebooks_folder_comes_before_installed_packages_and_the_library(here: Path) -> None:
    write(here, {"tabnanny.py": "", "nest_asyncio2.py": ""})
    assert "tabnanny" not in sys.modules
    assert travelling("import tabnanny, nest_asyncio2") == {"tabnanny.py", "nest_asyncio2.py"}


def test_a_module_of_the_library_that_is_loaded_already_is_not_shadowed(here: Path) -> None:
    write(here, {"random.py": "", "sys.py": "", "os.py": "", "json/__init__.py": ""})
    importlib.import_module("random")
    importlib.import_module("json")
    needs = find_needs("import random, sys, os, json")
    assert (needs.files, needs.imports) == ({}, frozenset())


def test_a_folder_without_init_gives_way_to_a_package_behind_it(here: Path) -> None:
    write(here, {"httpx/data.py": ""})
    assert travelling("import httpx") == set()
    assert outside("import httpx") == {"httpx"}


def test_a_namespace_is_gathered_from_all_of_the_path(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    write(here, {"space/mine.py": ""})
    write(tmp_path / "lib", {"space/yours.py": ""})
    write(site, {"space/installed.py": ""})
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "lib"), str(site)])
    code = "from space import mine, yours, installed"
    assert travelling(code) == {"space/mine.py", "space/yours.py"}
    assert outside(code) == {"space"}
    assert outside("from space import mine") == set()


def test_a_module_is_still_found_when_the_notebook_has_gone_elsewhere(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "wanderer.py").write_text("x = 1")
    importlib.import_module("wanderer")
    monkeypatch.chdir(tmp_path)
    try:
        assert travelling("import wanderer") == {"wanderer.py"}
    finally:
        del sys.modules["wanderer"]


def test_a_module_that_a_program_made_is_neither_sent_nor_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = types.ModuleType("made_up_here")
    made.__dict__["__getattr__"] = lambda name: pytest.fail(f"asked for {name}")
    monkeypatch.setitem(sys.modules, "made_up_here", made)
    needs = find_needs("import made_up_here")
    assert (needs.files, needs.imports) == ({}, frozenset())


def test_an_editable_install_is_local_whether_by_folder_or_by_table(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "src", {"byfolder.py": "import tabled.sub, single"})
    write(tmp_path / "away", {"t/__init__.py": "", "t/sub.py": "", "single.py": ""})
    write(tmp_path / "away", {"part/__init__.py": ""})
    finder_home = types.ModuleType("__editable___tabled_finder")
    finder_home.__dict__["MAPPING"] = {
        "tabled": str(tmp_path / "away/t"),
        "single": str(tmp_path / "away/single"),
        "ns.part": str(tmp_path / "away/part"),
    }
    finder = type("_EditableFinder", (), {"__module__": finder_home.__name__})
    monkeypatch.setitem(sys.modules, finder_home.__name__, finder_home)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "src")])
    assert travelling("import byfolder, ns.part") == {
        "byfolder.py", "tabled/__init__.py", "tabled/sub.py", "single.py", "ns/part/__init__.py",
    }  # fmt: skip


# What the files are.


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"# -*- coding: latin-1 -*-\nx = '\xe9'\n", "# -*- coding: utf-8 -*-\nx = 'é'\n"),
        (
            b"#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\nx = '\x80'",
            "#!/usr/bin/python\n# vim: set fileencoding=utf-8 :\nx = '€'",
        ),
        (b"# coding=latin-1", "# coding=utf-8"),
        (b"# coding: utf-8\nx = '\xc3\xa9'\r\ny = 1\r\n", "# coding: utf-8\nx = 'é'\r\ny = 1\r\n"),
        (b"\xef\xbb\xbfx = '\xc3\xa9'\n", "x = 'é'\n"),
        (b"x = '\x0c\xe2\x80\xa8'\n", "x = '\f\u2028'\n"),
    ],
)
def test_a_source_travels_as_the_text_that_it_is(here: Path, raw: bytes, text: str) -> None:
    (here / "mine.py").write_bytes(raw)
    (sent,) = find_needs("import mine").files.values()
    assert sent == text
    namespaces: list[dict[str, object]] = [{}, {}]
    exec(raw, namespaces[0])
    exec(sent.encode(), namespaces[1])
    assert namespaces[0].get("x") == namespaces[1].get("x")


@pytest.mark.parametrize(
    "raw", [b"x = '\xe9'\n", b"# coding: none-such\n", b"# coding: ascii\n\xe9"]
)
def test_a_source_that_is_no_text_is_one_sentence(here: Path, raw: bytes) -> None:
    (here / "mine.py").write_bytes(raw)
    with pytest.raises(OptionError, match="is no text that Python can read") as caught:
        find_needs("import mine")
    assert "\n" not in str(caught.value)


def test_a_compiled_module_is_one_sentence_unless_the_program_can_do_without(here: Path) -> None:
    suffix = modules.importlib.machinery.EXTENSION_SUFFIXES[0]
    (here / f"fast{suffix}").write_bytes(b"\x7fELF")
    (here / "slow.py").write_text("try:\n    from fast import f\nexcept ImportError:\n    f = None")
    assert travelling("import slow") == {"slow.py"}
    with pytest.raises(OptionError, match="only source can travel") as caught:
        find_needs("import slow, fast")
    assert "\n" not in str(caught.value)


def test_too_much_source_is_one_sentence_that_names_the_biggest(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "MAX_MODULE_BYTES", 1000)
    write(here, {"small.py": "", "large.py": "#" * 900, "larger.py": "#" * 950})
    assert travelling("import small") == {"small.py"}
    with pytest.raises(OptionError, match=r"biggest are \S+larger.py \(983 bytes\), \S+large.py"):
        find_needs("import small, large, larger")


def test_a_module_with_a_mistake_travels_and_fails_there_as_it_would_here(here: Path) -> None:
    write(here, {"broken.py": "def f(:"})
    assert travelling("import broken") == {"broken.py"}


def test_a_module_that_cannot_be_read_is_one_sentence(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, {"secret.py": ""})

    def refuse(*arguments: object, **members: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(modules, "open", refuse, raising=False)
    with pytest.raises(OptionError, match=r"secret\.py, which cannot be read: Permission denied"):
        find_needs("import secret")
