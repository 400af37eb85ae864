"""`%%lyceum`: a cell of Python, with what goes along and what comes home."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..runs.run import Run
from ..submission.files import sizes_of
from ..submission.installs import take_installs
from ..submission.python_request import python_request
from ..submission.source import code_of
from .cell import Cell, choices_of
from .defaults import Bind, Defaults
from .options import CellOptions, parse_cell_line
from .transfer import bring_home, gather, say_what_will_come


class PythonCell(Cell):
    """A cell of Python.

    Args:
        line, text: as IPython gives them.
        namespace: the user's, from which `--in` takes.
        of_shell: what IPython itself has put there.

    Raises:
        OptionError, SyntaxError: the line or the cell is wrong.
    """

    options: CellOptions

    def __init__(
        self,
        line: str,
        text: str,
        defaults: Defaults,
        namespace: Mapping[str, object],
        of_shell: Mapping[str, object],
    ) -> None:
        self.options = options = parse_cell_line(line)
        self.python = code_of(text, check=options.check, raw=options.raw)
        installs: list[str] = []
        if not options.raw:
            self.python, installs = take_installs(self.python)
        self.notes = []
        self.allow_pickle = options.pickle
        self._transfer = transfer = gather(self.python, options, namespace, of_shell)
        self.request = python_request(
            self.python,
            choices_of(options, defaults),
            requirements=[*options.requirements, *installs],
            auto_requirements=options.auto_requirements,
            raw=options.raw,
            inputs=transfer.inputs,
            outputs=options.outputs,
            allow_pickle=options.pickle,
            files=transfer.files,
            save=options.save,
            note=self.notes.append,
        )

    def sizes(self) -> Iterator[tuple[str, Mapping[str, int]]]:
        yield "inputs", self._transfer.inputs.sizes
        yield "files", sizes_of(self._transfer.files)

    def say_what_will_come(self) -> None:
        say_what_will_come(self.options)

    def bring_home(self, run: Run, bind: Bind) -> None:
        bring_home(run, self.options, bind)
