"""The spec of a run of Python -> the start request that travels, with all that goes along."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..protocol.requests import SessionStep, StartPython
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
from .session_job import session_job
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
        mark: see `Run.mark`.
        job: the parts of `remote.bootstrap.Job` beside the code.
        modules: the user's own modules that the cell needs: path -> source.
    """

    request: StartPython
    code: str
    inputs: PackedInputs
    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()
    mark: str = ""
    job: Mapping[str, object] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)

    def in_session(
        self,
        step: SessionStep,
        *,
        requirements: Sequence[str] = (),
        modules: Sequence[str] = (),
        urls: Mapping[str, object] | None = None,
    ) -> StartPython:
        """Return the request of a cell of a session.

        Args:
            requirements: lines that earlier cells asked for; those of this cell count first.
            modules: names of the user's own modules that earlier cells needed.
            urls: presigned URLs of the state, where the server keeps none.
        """
        own = self.requirements
        taken = names_in(own)
        lines = [*own, *(line for line in requirements if not names_in([line]) & taken)]
        files = dict(self.modules)
        if more := set(modules) - set(self.own_modules):
            files |= find_needs([Import(name) for name in sorted(more)]).files
        job = {**self.job, "session": session_job(step, urls)}
        return self.request.model_copy(
            update={
                "code": stub_of(self.code, mark=self.mark, **job),
                "requirements_content": "\n".join(lines) or None,
                "import_files": json.dumps(files) if files else None,
                "session": step if urls is None else None,
            }
        )

    @property
    def requirements(self) -> list[str]:
        """The requirement lines of the cell."""
        return (self.request.requirements_content or "").splitlines()

    @property
    def own_modules(self) -> list[str]:
        """The names of the user's own modules that the cell needs."""
        return sorted({path.partition("/")[0].removesuffix(".py") for path in self.modules})


def prepare_python(
    spec: PythonSpec,
    namespace: Mapping[str, object] = _NOTHING,
    of_shell: Mapping[str, object] = _NOTHING,
    say: Callable[[str], object] = lambda sentence: None,
    *,
    is_session: bool = False,
) -> PreparedPython:
    """Check the code, pack what travels with it, and build the request.

    Args:
        namespace: the notebook's variables, from which `--in` takes.
        of_shell: what IPython itself has put there.
        say: called with each sentence for the user, such as what `--in auto` found.
        is_session: whether it is a cell of a session.

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
    inputs = _inputs_of(spec, cell, namespace, of_shell)
    if not is_session:  # where the values may be those of earlier cells
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


def _inputs_of(
    spec: PythonSpec,
    cell: ParsedCell,
    namespace: Mapping[str, object],
    of_shell: Mapping[str, object],
) -> PackedInputs:
    if not spec.is_cell:
        return pack_values(spec.inputs or {}, allow_pickle=spec.allow_pickle)
    return choose_inputs(
        spec.input_names, cell.tree, namespace, allow_pickle=spec.allow_pickle, of_shell=of_shell
    )


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
    return PreparedPython(
        request, cell.code, inputs, files, tuple(wanted.notes), spec.mark, job, needs.files
    )


def _say_inputs(inputs: PackedInputs, say: Callable[[str], object], *, is_auto: bool) -> None:
    if is_auto:
        say(f"--in auto: {list_sizes(inputs.sizes) or 'nothing to send'}")
        for sentence in inputs.left_out:
            say(f"--in auto leaves out: {sentence}")
    for sentence in inputs.changed:
        say(f"--in: {sentence}")
