"""Save the namespaces of a library, or check them, each in a fork: `python -m ... save|check`."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from lyceum_magic.remote import frames, session
from tests.unit.remote.sessions.namespaces import LIBRARIES

LIMIT_S = 60


def job(cell: int, parent: dict[str, str] | None) -> dict[str, Any]:
    return {
        "key": "a", "title": "a", "branch": "main", "cell": cell, "id": f"{cell:032x}",
        "parent": parent,
    }  # fmt: skip


def run_cell(folder: Path, source: str, step: dict[str, Any]) -> tuple[Any, session.Session]:
    """Run a cell in a fresh `__main__`, and save it; return its error, if any."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    os.environ["LYCEUM_SESSION_FOLDER"] = str(folder)
    os.chdir(tempfile.mkdtemp(dir=folder))
    sys.path.insert(0, os.getcwd())
    told: list[dict[str, Any]] = []
    frames.send = lambda kind, head, *more, exact=None, **options: told.append(
        {**head, **(exact or {})}
    )
    step_of = session.begin(step, source, vars(main))
    error = None
    flags = step_of.future_flags
    try:
        exec(compile(source, "<cell>", "exec", flags, dont_inherit=True), vars(main))
    except Exception as exc:  # noqa: BLE001 - it is reported
        error = f"{type(exc).__name__}: {exc}"
    step_of.end(vars(main))
    return (error, told[-1], vars(main).get("result_")), step_of


def save(folder: Path, row: Any) -> Any:
    (error, told, _), _ = run_cell(folder, row.cell, job(1, None))
    return {"error": error, "told": told}


def check(folder: Path, row: Any) -> Any:
    told = json.loads((folder / "saved.json").read_text())["told"]
    step = job(2, {"id": told["id"], "sha256": told["sha256"]})
    (error, _, result), step_of = run_cell(folder, f"result_ = bool({row.check})", step)
    return {"error": error, "result": result, "failed": step_of._restored.failed}


def in_child(work: Any, *given: Any) -> Any:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        signal.alarm(LIMIT_S)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        if not os.environ.get("KEEPER_DEBUG"):
            os.dup2(null, 2)
        with contextlib.suppress(BaseException):
            try:
                found = work(*given)
            except BaseException as exc:  # noqa: BLE001 - it is reported
                found = {"error": f"! {type(exc).__name__}: {exc}", "told": {}, "failed": {}}
            os.write(writer, json.dumps(found, default=str).encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    return json.loads(content) if content else {"error": "! died", "told": {}, "failed": {}}


def main(act: str, library: str, root: str, only: str = "") -> None:
    if library:
        importlib.import_module(library)
    found = []
    for number, row in enumerate(LIBRARIES[library]):
        if only and only not in row.name:
            continue
        folder = Path(root) / f"{library or 'python'}-{number}"
        folder.mkdir(exist_ok=True)
        if act == "save":
            answer = in_child(save, folder, row)
            (folder / "saved.json").write_text(json.dumps(answer))
        else:
            answer = in_child(check, folder, row)
        found.append([row.name, answer])
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
