"""Programs that save a snapshot as a cell of a session does, and the steps that go with them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

#: The beginning of every program: `save(**changes)` writes the snapshot of STEP, the manifest last.
_SAVE = """
import json, os
STEP = json.loads({step!r})
FOLDER = os.environ["LYCEUM_SESSION_FOLDER"]

def write(path, data):
    draft = os.path.join(FOLDER, path + ".draft")
    with open(draft, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, os.path.join(FOLDER, path))

def save(data=b"state", **changes):
    write("packs/" + STEP["id"] + ".pack", data)
    group = {{"names": ["x"], "pickle": [STEP["id"], 0, len(data), "0" * 64], "buffers": []}}
    manifest = {{
        "version": 1, **STEP, "groups": [group], "variables": {{"x": {{"type": "int"}}}}, **changes
    }}
    write("cells/" + STEP["id"] + ".json", json.dumps(manifest, sort_keys=True).encode())
"""


def step(
    key: str = "a", cell: int = 1, parent: dict[str, Any] | None = None, branch: str = "main"
) -> dict[str, Any]:
    """Return a step of a session as the wire has it.

    Args:
        parent: The record of the head that it continues.
    """
    name = None if parent is None else {"id": parent["id"], "sha256": parent["sha256"]}
    return {
        "key": key, "title": "a.ipynb", "branch": branch, "cell": cell, "id": os.urandom(16).hex(),
        "parent": name,
    }  # fmt: skip


def program(step: dict[str, Any], code: str = "save()") -> str:
    """Return a program that has `save()` for this step."""
    return _SAVE.format(step=json.dumps(step)) + code


def save_snapshot(
    folder: Path, step: dict[str, Any], data: bytes = b"state", **changes: Any
) -> dict[str, str]:
    """Write the snapshot of a step to a session's folder, and return its id and SHA-256.

    Args:
        changes: Members of the manifest.
    """
    (folder / "packs" / f"{step['id']}.pack").write_bytes(data)
    group = {"names": ["x"], "pickle": [step["id"], 0, len(data), "0" * 64], "buffers": []}
    manifest = {"version": 1, **step, "groups": [group], "variables": {"x": {}}, **changes}
    content = json.dumps(manifest, sort_keys=True).encode()
    (folder / "cells" / f"{step['id']}.json").write_bytes(content)
    return {"id": step["id"], "sha256": hashlib.sha256(content).hexdigest()}
