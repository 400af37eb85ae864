"""The values and files that a `%%lyceum` cell brings back: `--out` and `--save`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..exceptions import TransferError
from ..protocol.lines import one_line
from ..protocol.states import State
from ..runs.run import Run
from ..submission.inputs import list_sizes
from ..submission.specs import PythonSpec


def say_what_will_come(spec: PythonSpec) -> None:
    """Print where the results of a detached cell will be, since they are not brought back."""
    name = spec.as_name or "_run"
    if spec.outputs:
        say(f"{name}.values will have {', '.join(spec.outputs)}")
    if spec.save:
        say(f"{name}.save_files() will write {', '.join(spec.save)}")


def bring_home(run: Run, spec: PythonSpec, bind: Callable[[str, object], None]) -> None:
    """Write the files of a run that has ended, and bind its values if it completed.

    Prints the files that were written, and those that could not be.

    Raises:
        TransferError: it completed, and a value or a file is missing. All others have arrived.
    """
    problems = _save(run, spec) if spec.save else []
    if run.state is not State.COMPLETED:
        for problem in problems:
            say(problem)
        return
    problems = [*_bind_outputs(run, spec, bind), *problems]
    problems += [lost for lost in run.harvest.problems if lost not in " ".join(problems)]
    if problems:
        raise TransferError(" ".join(problems))


def _bind_outputs(run: Run, spec: PythonSpec, bind: Callable[[str, object], None]) -> list[str]:
    values, problems = {}, []
    for name in spec.outputs:
        try:
            values[name] = run.values[name]
        except KeyError:
            lost = run.harvest.problems or [f"the cell did not set {name}."]
            problems.append(f"--out: {' '.join(lost)}")
        except TransferError as exc:
            problems.append(f"--out: {exc}")
    for name, value in values.items():
        if change := run.values.source[name].change:
            say(f"--out: {change}")
        bind(name, value)
    came_along = dict.fromkeys(run.values.came_along)
    if along := [name for name in came_along if name not in spec.outputs]:
        say(f"--out also binds {', '.join(along)}, which functions read")
    if problems and values:
        problems.append(f"Bound: {', '.join(values)}.")
    return problems


def _save(run: Run, spec: PythonSpec) -> list[str]:
    saved = run.write_files(Path(), overwrite=spec.yes)
    if saved.written:
        sizes = {path: len(run.files[path]) for path in saved.written}
        say(f"wrote {list_sizes(sizes)}")
    way_out = '--yes would do it, and _run.save_files("folder") writes elsewhere'
    problems = saved.problems(way_out)
    if run.state is not State.COMPLETED:
        return problems
    return [*(f"{file.problem}." for file in run.harvest.files.values() if file.problem), *problems]


def say(sentence: str) -> None:
    print(one_line(f"[lyceum] {sentence}"))  # noqa: T201 - a cell shows what it prints
