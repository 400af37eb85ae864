"""A cell and what was chosen for it -> the start request that travels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from ..protocol.requests import StartPython
from ..remote.values import encode_inputs
from .files import check_patterns, pack_files
from .inputs import PackedInputs
from .modules import find_needs
from .requirements import names_in, read_named, requirements_of
from .source import BELOW_MAGIC_LINE
from .start import Choices, build_start
from .wrapping import stub_of

_NO_INPUTS = PackedInputs()
_NO_FILES: Mapping[str, bytes] = {}


def python_request(
    code: str,
    choices: Choices,
    *,
    requirements: Sequence[str] = (),
    auto_requirements: bool = True,
    raw: bool = False,
    inputs: PackedInputs = _NO_INPUTS,
    outputs: Sequence[str] = (),
    allow_pickle: bool = False,
    files: Mapping[str, bytes] = _NO_FILES,
    save: Sequence[str] = (),
    first_line: int = BELOW_MAGIC_LINE,
    note: Callable[[str], object] = lambda sentence: None,
) -> StartPython:
    """The request that starts `code`, without the bootstrap; see `lyceum_magic.submit` for the
    arguments, and `wrapping.for_server`.

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
    named = read_named(requirements)
    unpacking = {*inputs.needs, *(["cloudpickle"] if allow_pickle and outputs else [])}
    needs = find_needs(code, also=sorted(unpacking), apart_from=names_in(named))
    wanted = requirements_of(needs.imports if auto_requirements else (), named)
    # Not a guess: --pickle means this package, also where it is not installed here.
    lines = [*wanted.lines, *({"cloudpickle"} & {*wanted.guesses})]
    for sentence in wanted.notes:
        note(sentence)
    job: dict[str, object] = {
        "inputs": encode_inputs(dict(inputs.packed)) if inputs.packed else "",
        "outputs": list(outputs),
        "pickle": allow_pickle,
        "files": pack_files(files),
        "save": check_patterns(save),
        "first_line": first_line,
    }
    job = {name: value for name, value in job.items() if value}
    return build_start(
        StartPython,
        choices,
        code=code if raw else stub_of(code, mark=choices.mark, **job),
        requirements_content="\n".join(lines) or None,
        import_files=json.dumps(needs.files) if needs.files else None,
        file_name="cell.py",
    )
