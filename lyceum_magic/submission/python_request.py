"""The spec of a run of Python -> the start request that travels, with all that goes along."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..protocol.requests import StartPython
from ..remote.values import encode_inputs
from .files import check_patterns, pack_files, read_files, sizes_of
from .inputs import (
    AUTO,
    PackedInputs,
    check_load,
    check_outputs,
    choose_inputs,
    list_sizes,
    pack_values,
)
from .installs import take_installs
from .modules import Import, find_needs, imports_of
from .requirements import names_in, read_named, requirements_of
from .source import ParsedCell, parse_cell
from .specs import PythonSpec
from .start import build_start
from .wrapping import stub_of

_NOTHING: Mapping[str, object] = {}


@dataclass(frozen=True)
class PreparedPython:
    """A run of Python, ready to start.

    Attributes:
        request: without the bootstrap; `wrapping.for_server` adds it.
        code: the Python that runs.
        inputs: the values that travel.
        files: path below the current folder -> content.
        notes: sentences about packages that will be missing there.
    """

    request: StartPython
    code: str
    inputs: PackedInputs
    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


def prepare_python(
    spec: PythonSpec,
    namespace: Mapping[str, object] = _NOTHING,
    of_shell: Mapping[str, object] = _NOTHING,
    say: Callable[[str], object] = lambda sentence: None,
) -> PreparedPython:
    """Check the code, pack what travels with it, and build the request.

    Args:
        namespace: the notebook's variables, from which `--in` takes.
        of_shell: what IPython itself has put there.
        say: called with each sentence for the user, such as what `--in auto` found.

    Raises:
        OptionError: something is missing, cannot travel, or is too much; nothing was started.
        SyntaxError: the code cannot be compiled.
    """
    save = check_patterns(spec.save)
    cell = parse_cell(spec.code, check=spec.check, raw=spec.raw, first_line=spec.first_line)
    named = [*spec.requirements]
    if not spec.raw:
        cell, installs = take_installs(cell)
        named += installs
    if spec.is_cell:
        inputs = choose_inputs(
            spec.input_names, cell.tree, namespace,
            allow_pickle=spec.allow_pickle, of_shell=of_shell,
        )  # fmt: skip
    else:
        inputs = pack_values(spec.inputs or {}, allow_pickle=spec.allow_pickle)
    check_outputs(cell.tree, spec.outputs, inputs.packed)
    files = read_files(spec.files)
    _say_inputs(inputs, say, is_auto=AUTO in spec.input_names)
    may_be_large = spec.yes or not spec.is_cell
    check_load({**inputs.sizes, **sizes_of(files)}, may_be_large=may_be_large)
    job: dict[str, object] = {
        "inputs": encode_inputs(dict(inputs.packed)) if inputs.packed else "",
        "outputs": list(spec.outputs),
        "pickle": spec.allow_pickle,
        "files": pack_files(files),
        "save": save,
        "first_line": spec.first_line,
    }
    return _request(spec, cell, named, inputs, files, job)


def _request(
    spec: PythonSpec,
    cell: ParsedCell,
    named: list[str],
    inputs: PackedInputs,
    files: Mapping[str, bytes],
    job: Mapping[str, object],
) -> PreparedPython:
    """Find what the cell needs, and build the request."""
    named = read_named(named)
    unpacking = {*inputs.needs, *(["cloudpickle"] if spec.allow_pickle and spec.outputs else [])}
    imports = [*imports_of(cell.tree), *map(Import, sorted(unpacking))]
    needs = find_needs(imports, apart_from=names_in(named))
    wanted = requirements_of(needs.imports if spec.auto_requirements else (), named)
    # Not a guess: --pickle means this package, also where it is not installed here.
    lines = [*wanted.lines, *({"cloudpickle"} & {*wanted.guesses})]
    job = {name: value for name, value in job.items() if value}
    request = build_start(
        StartPython,
        spec,
        code=cell.code if spec.raw else stub_of(cell.code, mark=spec.mark, **job),
        requirements_content="\n".join(lines) or None,
        import_files=json.dumps(needs.files) if needs.files else None,
        file_name="cell.py",
    )
    return PreparedPython(request, cell.code, inputs, files, tuple(wanted.notes))


def _say_inputs(inputs: PackedInputs, say: Callable[[str], object], *, is_auto: bool) -> None:
    if is_auto:
        say(f"--in auto: {list_sizes(inputs.sizes) or 'nothing to send'}")
        for sentence in inputs.left_out:
            say(f"--in auto leaves out: {sentence}")
    for sentence in inputs.changed:
        say(f"--in: {sentence}")
