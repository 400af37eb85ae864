"""The names that `lyceum_magic` offers: there, whatever was imported before, and lazy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lyceum_magic


@pytest.mark.parametrize("name", lyceum_magic.__all__)
def test_each_public_name_is_what_it_says(name: str) -> None:
    value = getattr(lyceum_magic, name)
    assert value.__name__ == name
    assert callable(value)


@pytest.mark.parametrize(
    "room", ["runs.run", "runs.workspace", "journal.journal", "magic.cell", "api"]
)
def test_a_room_of_the_same_name_never_hides_a_function(room: str) -> None:
    program = f"import lyceum_magic.{room}, lyceum_magic as m; assert m.runs.__name__ == 'runs'"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = lyceum_magic.nonsense  # type: ignore[attr-defined]


def test_importing_the_package_imports_none_of_its_dependencies() -> None:
    program = (
        "import sys, lyceum_magic;"
        "heavy = {'httpx', 'anyio', 'pydantic', 'ipywidgets', 'anywidget', 'IPython', 'fastapi'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
