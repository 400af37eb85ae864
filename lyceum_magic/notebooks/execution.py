"""A notebook -> its cells as runs of one session; what they show -> its outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..display.session import not_kept
from ..exceptions import LyceumError, RunFailed
from ..magic.errors import as_in_a_cell
from ..outputs.decoding import decode
from ..outputs.notebook import ErrorOutput, to_outputs
from ..protocol.lines import one_line
from ..runs.run import Run
from ..sessions.session import Session
from .file import Notebook, source_of, tags_of

#: Function that tells the user something while the notebook is executed.
Say = Callable[[str], object]

_MAX_HEADLINE = 200


class Execution:
    """The execution of a notebook in a session that has no cell yet.

    Args:
        session: in which its cells run.
        say: is told of each cell's end, and of what the cell could not keep.
        options: of `submit`, for the first cell alone, such as the files that go along.
    """

    def __init__(
        self, notebook: Notebook, session: Session, say: Say, options: dict[str, Any]
    ) -> None:
        self._notebook, self._session, self._say = notebook, session, say
        self._options = options
        self._cells = notebook.code_cells

    def run(self) -> bool:
        """Run the cells in their order, up to the first that fails; fill in their outputs.

        Returns:
            Whether all of them ran as they should: one tagged `raises-exception` may fail.

        Raises:
            KeyboardInterrupt: the user has ended it; the present cell has its outputs so far.
            LyceumError: a cell could not be started or followed.
        """
        self._notebook.clear()
        with _shell() as shell:
            for count, cell in enumerate(self._cells, 1):
                options, self._options = self._options, {}
                # A cell that cannot be compiled fails as it would in a kernel: in its place.
                run = self._session.start(source_of(cell), check=False, **options)
                name = str(shell.compile.cache(source_of(cell), count))
                try:
                    run.wait()
                finally:
                    failure = run.failure(name)
                    self._fill(cell, run, count, failure)
                self._tell(run, count, failure)
                if failure is not None and "raises-exception" not in tags_of(cell):
                    return False
        return True

    def _fill(self, cell: dict[str, Any], run: Run, count: int, failure: RunFailed | None) -> None:
        """Put the outputs of a run into its cell."""
        cell["execution_count"] = count
        cell["outputs"] = [dict(output) for output in to_outputs(_items(run), count)]
        if failure is not None:
            cell["outputs"].append(dict(_error(failure)))

    def _tell(self, run: Run, count: int, failure: RunFailed | None) -> None:
        """Say in a line how a cell ended, and in another one what it could not keep."""
        end = f"in {run.elapsed_s:.1f} s"
        if failure is not None:
            named = filter(None, (failure.ename, failure.evalue))
            end = f"failed: {one_line(': '.join(named) or failure, _MAX_HEADLINE)}"
        self._say(f"cell {count} of {len(self._cells)} {end}")
        saved = run.harvest.session
        if saved is None:
            return
        if saved.error:
            self._say(f"cell {count} was not saved: {one_line(saved.error, _MAX_HEADLINE)}")
        elif sentence := not_kept(saved):
            self._say(sentence)


def _items(run: Run) -> Any:
    return decode(run.read_log(), run.mark, is_over=run.state.is_final)


def _error(failure: RunFailed) -> ErrorOutput:
    """Return the output for a failure, whose traceback is shown as by IPython in a notebook."""
    cause = failure.__cause__
    if cause is None:
        name = type(failure).__name__
        return ErrorOutput(
            output_type="error", ename=name, evalue=str(failure), traceback=[f"{name}: {failure}"]
        )
    return ErrorOutput(
        output_type="error",
        ename=failure.ename,
        evalue=failure.evalue,
        traceback=as_in_a_cell(cause, "", failure._style),
    )


@contextmanager
def _shell() -> Iterator[Any]:
    """Yield an IPython shell that only formats tracebacks; it leaves no file of its own."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryAccessor.enabled = False
    with tempfile.TemporaryDirectory(prefix="lyceum-magic-") as folder:
        shell = InteractiveShell.instance(config=config, ipython_dir=folder)
        try:
            yield shell
        finally:
            InteractiveShell.clear_instance()


def execute(
    notebook: Notebook, path: Path, *, name: str | None, say: Say, options: dict[str, Any]
) -> bool:
    """Execute a notebook in a new session, and fill in its outputs.

    Args:
        path: of the notebook; its name is the session's title.
        name: of the session, which is kept; None for one that is removed if all went well.
        say: is told of what happens.
        options: `machine`, `place`, `timeout_s`, and those of `submit` for the first cell.

    Returns:
        Whether all cells ran as they should.

    Raises:
        LyceumError: the session exists already, or a cell could not be started or followed.
    """
    of_session = {key: options.pop(key) for key in ("machine", "place", "timeout_s")}
    session = Session(name, title=path.name if name is None else name, **of_session)
    if name is not None and session.head is not None:
        raise LyceumError(
            f"There is a session {name} already, and a notebook begins a new one: choose another "
            f"name, or remove it with `%lyceum session rm {name}`."
        )
    is_done = Execution(notebook, session, say, options).run()
    if is_done and name is None:
        if session.head is not None:
            session.remove()
    elif session.head is not None:
        say(f"The state is kept: `%%lyceum --session {session.name}` goes on from it.")
    return is_done
