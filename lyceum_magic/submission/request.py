"""A cell and what was chosen for it -> the start request that travels."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from ..exceptions import OptionError
from ..protocol.limits import MARK_CHARACTERS, MAX_METADATA, TAG_KEY
from ..protocol.requests import StartPython
from .files import check_patterns, pack_files
from .inputs import PackedInputs
from .modules import find_needs, imports_of
from .requirements import names_in, read_named, requirements_of
from .source import BELOW_MAGIC_LINE, wrap_cell
from .there.values import encode_inputs

#: What the wire's fields are called by those who choose their values.
_CHOICES = {"execution_type": "machine", "timeout": "timeout_s", "run_name": "name"}

_NO_INPUTS = PackedInputs()
_NO_FILES: Mapping[str, bytes] = {}


def python_request(
    code: str,
    *,
    machine: str,
    timeout_s: int,
    requirements: Sequence[str] = (),
    auto_requirements: bool = True,
    name: str | None = None,
    labels: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    raw: bool = False,
    inputs: PackedInputs = _NO_INPUTS,
    outputs: Sequence[str] = (),
    allow_pickle: bool = False,
    files: Mapping[str, bytes] = _NO_FILES,
    save: Sequence[str] = (),
    first_line: int = BELOW_MAGIC_LINE,
    note: Callable[[str], object] = lambda sentence: None,
) -> StartPython:
    """The request that starts `code`; see `lyceum_magic.submit` for the arguments.

    Args:
        inputs: values for the cell's namespace.
        outputs: names whose values come back.
        allow_pickle: whether values may travel as pickles.
        files: path below the run's folder -> content.
        save: patterns of the files to send back.
        first_line: the number of the code's first line in tracebacks.
        note: told what the reader should know about packages that will be missing there.

    Raises:
        OptionError: a value that the wire does not take, in one sentence.
    """
    tag = uuid.uuid4().hex
    named = read_named(requirements)
    needs = find_needs(code, apart_from=names_in(named))
    unpacking = {*inputs.needs, *(["cloudpickle"] if allow_pickle and outputs else [])}
    imports = needs.imports.union(*(imports_of(f"import {name}") for name in unpacking))
    wanted = requirements_of(imports if auto_requirements else (), named)
    for sentence in wanted.notes:
        note(sentence)
    # One is taken by the tag under which the client finds its run again.
    if metadata is not None and len(metadata) > MAX_METADATA - 1:
        raise OptionError(f"metadata: at most {MAX_METADATA - 1} pairs, not {len(metadata)}.")
    job: dict[str, object] = {
        "inputs": encode_inputs(dict(inputs.packed)) if inputs.packed else "",
        "outputs": list(outputs),
        "pickle": allow_pickle,
        "files": pack_files(files),
        "save": check_patterns(save),
        "first_line": first_line,
    }
    job = {name: value for name, value in job.items() if value}
    try:
        return StartPython(
            code=code if raw else wrap_cell(code, mark=tag[:MARK_CHARACTERS], **job),
            timeout=timeout_s,
            execution_type=machine,
            requirements_content="\n".join(wanted.lines) or None,
            import_files=json.dumps(needs.files) if needs.files else None,
            file_name="cell.py",
            run_name=name,
            labels=list(labels) or None,
            metadata={**(metadata or {}), TAG_KEY: tag},
        )
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_context=False)[0]
    field, *place = map(str, problem["loc"])
    where = ".".join([_CHOICES.get(field, field), *place])
    raise OptionError(f"{where}: {problem['msg']}, not {str(problem['input'])[:80]!r}.")
