"""What goes with a `%%lyceum` cell and what comes home: `--in`, `--out`, `--file`, `--save`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..exceptions import TransferError
from ..protocol.lines import one_line
from ..protocol.states import State
from ..runs.run import Run
from ..submission.files import check_patterns, read_files, sizes_of
from ..submission.inputs import (
    AUTO,
    PackedInputs,
    check_load,
    check_outputs,
    check_raw,
    choose_inputs,
    list_sizes,
)
from .options import CellOptions


@dataclass(frozen=True)
class Transfer:
    """What travels with a cell beside its code.

    Attributes:
        files: path below the current folder -> content.
    """

    inputs: PackedInputs = field(default_factory=PackedInputs)
    files: Mapping[str, bytes] = field(default_factory=dict)


def gather(
    code: str,
    options: CellOptions,
    namespace: Mapping[str, object],
    of_shell: Mapping[str, object],
) -> Transfer:
    """Takes what the options name from the notebook and the disk, before the start.

    Prints what `--in auto` found.

    Args:
        of_shell: what IPython itself has put into the namespace.

    Raises:
        OptionError: something is missing, cannot travel, or is too much.
    """
    if options.raw:
        check_raw(
            {
                "--in": options.inputs,
                "--out": options.outputs,
                "--file": options.files,
                "--save": options.save,
            }
        )
    check_patterns(options.save)
    inputs = choose_inputs(
        options.inputs, code, namespace, allow_pickle=options.pickle, of_shell=of_shell
    )
    check_outputs(code, options.outputs, inputs.packed)
    transfer = Transfer(inputs, read_files(options.files))
    if AUTO in options.inputs:
        _say(f"--in auto: {list_sizes(inputs.sizes) or 'nothing to send'}")
        for sentence in inputs.left_out:
            _say(f"--in auto leaves out: {sentence}")
    for sentence in inputs.changed:
        _say(f"--in: {sentence}")
    check_load({**inputs.sizes, **sizes_of(transfer.files)}, may_be_large=options.yes)
    return transfer


def say_what_will_come(options: CellOptions) -> None:
    """Prints where the results of a detached cell will be, for nobody will bring them home."""
    name = options.as_name or "_run"
    if options.outputs:
        _say(f"{name}.values will have {', '.join(options.outputs)}")
    if options.save:
        _say(f"{name}.save_files() will write {', '.join(options.save)}")


def bring_home(run: Run, options: CellOptions, bind: Callable[[str, object], None]) -> None:
    """Writes the files of a run that has ended, and binds its values if it completed.

    Prints what was written, and for a run that did not complete what could not be.

    Raises:
        TransferError: it completed, and a value or a file is missing. All others are at home.
    """
    problems = _save(run, options) if options.save else []
    if run.state is not State.COMPLETED:
        for problem in problems:
            _say(problem)
        return
    problems = [*_bind_outputs(run, options, bind), *problems]
    problems += [lost for lost in run.harvest.problems if lost not in " ".join(problems)]
    if problems:
        raise TransferError(" ".join(problems))


def _bind_outputs(run: Run, options: CellOptions, bind: Callable[[str, object], None]) -> list[str]:
    values, problems = {}, []
    for name in options.outputs:
        try:
            values[name] = run.values[name]
        except KeyError:
            lost = run.harvest.problems or [f"the cell did not set {name}."]
            problems.append(f"--out: {' '.join(lost)}")
        except TransferError as exc:
            problems.append(f"--out: {exc}")
    for name, value in values.items():
        if change := run.values.source[name].change:
            _say(f"--out: {change}")
        bind(name, value)
    came_along = dict.fromkeys(run.values.came_along)
    if along := [name for name in came_along if name not in options.outputs]:
        _say(f"--out also binds {', '.join(along)}, which functions read")
    if problems and values:
        problems.append(f"Bound: {', '.join(values)}.")
    return problems


def _save(run: Run, options: CellOptions) -> list[str]:
    saved = run.write_files(Path(), overwrite=options.yes)
    if saved.written:
        sizes = {path: len(run.files[path]) for path in saved.written}
        _say(f"wrote {list_sizes(sizes)}")
    way_out = '--yes would do it, and _run.save_files("folder") writes elsewhere'
    problems = saved.problems(way_out)
    if run.state is not State.COMPLETED:
        return problems
    return [*(f"{file.problem}." for file in run.harvest.files.values() if file.problem), *problems]


def _say(sentence: str) -> None:
    print(one_line(f"[lyceum] {sentence}"))  # noqa: T201 - a cell shows what it prints
