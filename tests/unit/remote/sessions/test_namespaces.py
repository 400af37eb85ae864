"""Each namespace of the list is right in the next cell, or refused in a sentence; never wrong."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.remote.sessions.namespaces import LIBRARIES, Namespace

LIMIT_S = 600
#: The others take longer to import than to test.
OFTEN = {"", "numpy", "pandas"}
SELDOM = pytest.mark.exhaustive


@pytest.mark.parametrize(
    "library",
    [
        pytest.param(name, id=name or "python", marks=[] if name in OFTEN else SELDOM)
        for name in LIBRARIES
    ],
)
def test_each_namespace_is_right_or_refused(library: str, tmp_path: Path) -> None:
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    saved, checked = (_run(act, library, tmp_path) for act in ("save", "check"))
    wrong = [
        (row.name, saved[row.name], checked[row.name])
        for row in LIBRARIES[library]
        if not _is_as_promised(row, saved[row.name], checked[row.name])
    ]
    assert wrong == []


def _run(act: str, library: str, folder: Path) -> dict[str, Any]:
    program = "tests.unit.remote.sessions.keeper"
    done = subprocess.run(
        [sys.executable, "-m", program, act, library, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _is_as_promised(row: Namespace, saved: dict[str, Any], checked: dict[str, Any]) -> bool:
    if saved["error"] or not saved["told"]["sha256"]:
        return False
    if not row.refused:
        return checked.get("result") is True
    said = [reason for _, reason in saved["told"]["lost"]] + [*checked["failed"].values()]
    return any(row.refused in reason and "\n" not in reason for reason in said)


def test_the_list_is_long_enough() -> None:
    assert sum(map(len, LIBRARIES.values())) >= 113
