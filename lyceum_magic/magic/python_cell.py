"""`%%lyceum`: a cell of Python, with what goes along and what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..journal.snapshots import Carried
from ..protocol.requests import StartPython
from ..runs.run import Run
from ..sessions.steps import NextCell
from ..submission.files import sizes_of
from ..submission.python_request import prepare_python
from ..submission.specs import PythonSpec
from .cell import Cell
from .defaults import Bind, Defaults
from .offload import is_offloaded
from .options import read_line
from .transfer import bring_home, say, say_what_will_come


class PythonCell(Cell):
    """A cell of Python.

    Args:
        line, text: as IPython gives them.
        namespace: the user's, from which `--in` takes.
        of_shell: what IPython itself has put there.

    Raises:
        OptionError, SyntaxError: the line or the cell is wrong.
    """

    spec: PythonSpec
    request: StartPython

    def __init__(
        self,
        line: str,
        text: str,
        defaults: Defaults,
        namespace: Mapping[str, object],
        of_shell: Mapping[str, object],
    ) -> None:
        first_line = {"has_line": False} if is_offloaded(line) else {}
        self.spec = read_line(PythonSpec, line, code=text, **defaults.of_run(), **first_line)
        spec = self.spec
        # A configured session is none of a cell that is sent as it is.
        default = "" if spec.raw else defaults.session
        self.session = default if spec.session is None else spec.session
        self._prepared = prepared = prepare_python(
            spec, namespace, of_shell, say, is_session=bool(self.session)
        )
        self.python, self.request = prepared.code, prepared.request
        self.notes = [*prepared.notes]
        self.allow_pickle = self.spec.allow_pickle

    def join(self, cell: NextCell) -> None:
        carried = cell.carried
        self.request = self._prepared.in_session(
            cell.step,
            requirements=carried.requirements,
            modules=carried.modules,
            urls=cell.urls,
        )

    def carried(self) -> Carried:
        lines = (self.request.requirements_content or "").splitlines()
        return Carried(tuple(lines), tuple(self._prepared.own_modules))

    def sizes(self) -> Iterator[tuple[str, Mapping[str, int]]]:
        yield "inputs", self._prepared.inputs.sizes
        yield "files", sizes_of(self._prepared.files)

    def say_what_will_come(self) -> None:
        say_what_will_come(self.spec)

    def bring_home(self, run: Run, bind: Bind) -> None:
        bring_home(run, self.spec, bind)
