"""The failure of a run, and the notebook's state -> one sentence of advice."""

from __future__ import annotations

import ast
import re
import signal
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..exceptions import OptionError, RunFailed, RunTimedOut
from ..protocol.limits import MAX_TIMEOUT_S
from ..protocol.requests import Kind
from ..runs.run import Run
from ..submission.modules import Import, find_needs, imports_of
from ..submission.requirements import is_namespace, requirements_of

_MORE_MEMORY = "choose a machine with more of it with -m; `%lyceum machines` lists them"


def hint_for(
    run: Run, failure: RunFailed, namespace: Mapping[str, object], *, kind: Kind = "python"
) -> str:
    """Return advice about the failure; empty if there is none.

    Args:
        namespace: the notebook's.
        kind: the run's; each kind of cell has options of its own.
    """
    if isinstance(failure, RunTimedOut):
        if run.timeout_s >= MAX_TIMEOUT_S:
            return f"{MAX_TIMEOUT_S} seconds are the most; split the work into several runs."
        return f"Give it more time with -t SECONDS, up to {MAX_TIMEOUT_S}."
    raised = run.harvest.raised
    described = raised.error.get("exceptions") if raised is not None and failure.ename else None
    if isinstance(described, list) and described and isinstance(described[0], dict):
        if kind != "python":
            return _hint_for_raised_in_image(described[0])
        files = raised.error.get("files") if raised is not None else None
        return _hint_for_raised(described[0], namespace, files)
    return _hint_for_end(failure.return_code, failure.reason)


def _hint_for_raised(
    error: dict[str, Any], namespace: Mapping[str, object], files: object = None
) -> str:
    kind, name, file = (error.get(member) for member in ("builtin", "name", "filename"))
    if kind == "NameError":
        if not isinstance(name, str):  # Python before 3.10 says it in its message alone
            found = re.match(r"name '(\w+)' is not defined", str(error.get("value")))
            name = found[1] if found else ""
        if name in namespace:
            return _hint_for_name(name, namespace[name])
    if kind == "FileNotFoundError" and isinstance(file, str) and _exists(file):
        return f"The file {file} is here: send it along with --file {file}."
    if kind == "ModuleNotFoundError" and isinstance(name, str):
        return _hint_for_module(name, _line_that_raised(error, files))
    if kind == "MemoryError":
        return f"The memory of the machine did not suffice: {_MORE_MEMORY}."
    return ""


def _hint_for_raised_in_image(error: dict[str, Any]) -> str:
    name = error.get("name")
    if error.get("builtin") == "ModuleNotFoundError" and isinstance(name, str):
        return f"The image has no {name}: choose one that has it."
    return ""


def _hint_for_name(name: str, value: object) -> str:
    if isinstance(value, types.ModuleType):
        import_as = "" if value.__name__ == name else f" as {name}"
        return f"Modules do not travel: begin the cell with `import {value.__name__}{import_as}`."
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        module = str(value.__module__)
        is_there = vars(sys.modules.get(module, object)).get(name) is value
        if is_there and module != "__main__":
            return f"Begin the cell with `from {module} import {name}`, as the notebook does."
        return (
            f"The notebook has {name}: define it in the cell too, or send it along with "
            f"-i {name} --pickle."
        )
    return f"The notebook has {name}: send it along with -i {name}."


def _line_that_raised(error: dict[str, Any], files: object) -> str:
    """Return the text of the innermost line of a traceback; empty if it is not known."""
    try:
        place = error["places"][error["calls"][-1]]
        return str(files[place["file"]][str(place["line"])]).strip()  # type: ignore[index]
    except (LookupError, TypeError):
        return ""


def _hint_for_module(name: str, line: str = "") -> str:
    """Return advice about a missing module.

    Args:
        name: Python's own; of a package in a namespace it may be the namespace's.
        line: the import itself, which says which package of the namespace is meant.
    """
    try:
        needs = find_needs([Import(name)] if name.replace(".", "").isidentifier() else [])
    except OptionError as exc:  # it is here and cannot travel: the sentence says what could
        return str(exc)
    if needs.files:
        return (
            f"{name} is a module of your own: it travels if the cell itself says `import {name}`."
        )
    try:
        imports = imports_of(ast.parse(line))
    except SyntaxError:  # a part of a longer statement
        imports = ()
    of_line = [one for one in imports if f"{one.module}.".startswith(f"{name}.")]
    wanted = requirements_of(of_line or needs.imports)
    if wanted.lines:
        return f"It is not installed there: add -r {wanted.lines[0]}."
    if wanted.guesses:
        return f"It is installed neither there nor here: add -r {wanted.guesses[0]}."
    if wanted.notes:
        return f"{wanted.notes[0]}."
    if is_namespace(name):
        return f"Many packages bring a part of {name}: add -r with the name of the one you mean."
    return ""


def _hint_for_end(return_code: int | None, reason: str) -> str:
    if "requirements cannot be installed" in reason:
        return (
            "Packages that the cell imports are asked for in the version that is here; -r NAME "
            "asks for any, and --no-auto-requirements for none."
        )
    if return_code is None or not 128 < return_code < 128 + signal.NSIG:
        return ""
    number = return_code - 128
    if number == signal.SIGKILL:
        return f"If it was memory, {_MORE_MEMORY}."
    if "signal" in reason:
        return ""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return ""
    return f"Exit code {return_code} is what signal {number} ({name}) leaves."


def _exists(file: str) -> bool:
    try:
        return Path(file).is_file()
    except (OSError, ValueError):
        return False
