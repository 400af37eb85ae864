"""Each import path that the README or the CHANGELOG names, now or in an earlier version, works."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: The paths of all versions of both files. A release adds those that it documents.
EVER_DOCUMENTED = {
    "lyceum_magic",
    "lyceum_magic.RunFailed",
    "lyceum_magic.Session",
    "lyceum_magic.attach",
    "lyceum_magic.callbacks",
    "lyceum_magic.callbacks.InvalidCallback",
    "lyceum_magic.callbacks.MAX_BODY_BYTES",
    "lyceum_magic.callbacks.SqliteSeen",
    "lyceum_magic.callbacks.verify",
    "lyceum_magic.jupyter",
    "lyceum_magic.nest_loops",
    "lyceum_magic.on_finish",
    "lyceum_magic.runs",
    "lyceum_magic.server_extension",
    "lyceum_magic.signing_secret",
    "lyceum_magic.submit",
    "lyceum_magic.testing",
}


def documented_now() -> set[str]:
    """Return the paths in the two files as they are."""
    text = "".join((ROOT / name).read_text("utf-8") for name in ("README.md", "CHANGELOG.md"))
    found = set(re.findall(r"\blyceum_magic(?:\.[A-Za-z_]+)*(?!/)\b", text))
    for module, names in re.findall(r"from (lyceum_magic[.\w]*) import ([\w, ]+)", text):
        found |= {f"{module}.{name.strip()}" for name in names.split(",")}
    return found


def resolves(path: str) -> bool:
    try:
        import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return bool(module) and hasattr(import_module(module), name)
    return True


@pytest.mark.parametrize("path", sorted(EVER_DOCUMENTED | documented_now()))
def test_a_path_that_was_documented_works(path: str) -> None:
    assert resolves(path)


def test_the_paths_of_today_are_found() -> None:
    assert {"lyceum_magic.callbacks.SqliteSeen", "lyceum_magic.submit"} <= documented_now()


def test_a_path_that_does_not_exist_is_noticed() -> None:
    assert not resolves("lyceum_magic.callbacks.gone")
