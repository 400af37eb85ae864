"""`Session`: variables that last from run to run, from Python."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from ..client.api import Client
from ..client.sessions import Head, SessionFacts, SnapshotFacts
from ..exceptions import OptionError
from ..journal.snapshots import Carried
from ..protocol.session_names import is_session_name
from ..protocol.sessions import MAIN_BRANCH, MAX_TITLE
from ..runs.accounts import Place
from ..runs.run import Run
from ..runs.workspace import Workspace, workspace
from ..submission.python_request import prepare_python
from ..submission.specs import PythonSpec
from ..submission.wrapping import for_server
from .manifest import Manifest, Variable, read_manifest
from .naming import SessionName
from .steps import head_of, held, next_cell, write_down


class Session:
    """A session: each run restores the variables that the one before has saved.

    Args:
        name: of a-z, 0-9, ".", "_" and "-". None makes a new session with a name of its own.
        machine: the machine of its runs, unless a run names another.
        place: as for `submit`.
        branch: the branch on which its runs work.
        title: shown in lists.
        trust: whether to go on from a snapshot that was not written from this machine, which runs
            code that it holds.
        options: further options of `submit`, for every run.

    Attributes:
        name: the name.
        branch: the branch.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        machine: str = "cpu",
        place: str = "auto",
        branch: str = MAIN_BRANCH,
        title: str = "",
        trust: bool = False,
        **options: Any,
    ) -> None:
        self.name = f"s-{uuid.uuid4().hex[:12]}" if name is None else name
        for text in (self.name, branch):
            if not is_session_name(text):
                raise OptionError(
                    "A session and a branch have names of a-z, 0-9, '.', '_' and '-', such as "
                    f"train, not {text!r:.80}."
                )
        self.branch = branch
        self._named = SessionName(self.name, (title or self.name)[:MAX_TITLE])
        self._options: dict[str, Any] = {"machine": machine, "place": place, **options}
        self._trust = trust
        PythonSpec("pass", **self._options).validate()

    def __repr__(self) -> str:
        return f"<Session {self._named.shown(self.branch)}>"

    # Runs.

    def start(self, code: str, **options: Any) -> Run:
        """Start code as the next cell of the session; return when the server has accepted it.

        Args:
            code: Python.
            options: those of `submit`, for this run alone.

        Raises:
            OptionError, SyntaxError: nothing was started.
            RequestRefused: another run works on the session (409).
            LyceumError: it could not be started.
        """
        return self._start(code, self.branch, options)

    def run(self, code: str, **options: Any) -> Run:
        """Run code as the next cell of the session, and return its run when it has completed.

        Raises:
            RunFailed: it did not complete. What it assigned before it raised is kept.
            LyceumError: as `start`.
        """
        run = self.start(code, **options)
        run.wait()
        if not self._client.account.is_embedded:
            self._facts()  # where the server keeps no sessions, this moves the head
        return run.result()

    def get(self, name: str) -> Any:
        """Return a variable of the session, exactly as `--out` brings one back.

        A run reads it on a branch of its own, so that the session stays at its cell.

        Raises:
            KeyError: the session has no such variable.
            TransferError: it cannot travel; `allow_pickle=True` lets it travel as a pickle.
            LyceumError: it could not be read.
        """
        if name not in self.variables:
            raise KeyError(name)
        with self._side_branch() as branch:
            run = self._start(f"{name} = {name}", branch, {"outputs": [name]}).result()
        return run.values[name]

    def set(self, name: str, value: object) -> Run:
        """Give a variable of the session a value; it travels as the values of `--in` do.

        Raises:
            OptionError: it cannot travel.
            LyceumError: as `run`.
        """
        return self.run(f"{name} = {name}", inputs={name: value})

    # Its state.

    @property
    def head(self) -> Head | None:
        """The newest snapshot of the branch; None before the first cell."""
        facts = self._facts()
        return None if facts is None else facts.branches.get(self.branch)

    @property
    def manifest(self) -> Manifest:
        """The description of the newest snapshot: its variables, and what was not kept.

        Raises:
            OptionError: the session has no cell yet.
        """
        head = head_of(self._facts(), self._named, self.branch)
        return read_manifest(
            self._here.ask(self._client.sessions.manifest, self.name, head)
        )  # fmt: skip

    @property
    def variables(self) -> Mapping[str, Variable]:
        """The variables: name -> type, shape, size and first characters. None is loaded."""
        return self.manifest.variables if self.head is not None else {}

    @property
    def snapshots(self) -> list[SnapshotFacts]:
        """The snapshots that the server still has, as it orders them."""
        return self._here.ask(self._client.sessions.snapshots, self.name)

    # Its history.

    def checkout(self, cell: int) -> None:
        """Go back to an earlier cell, or forward again: the next run continues that one.

        Raises:
            OptionError: the server has no such cell any more.
            RequestRefused: a run works on the session (409).
        """
        checkout(self._here, self._client, self._named, self.branch, cell)

    def fork(self, branch: str) -> Session:
        """Return the session on a new branch, which begins with the present snapshot.

        Raises:
            RequestRefused: the branch exists (409).
        """
        forked = Session(self.name, branch=branch, trust=self._trust, **self._options)
        forked._named = self._named
        head = head_of(self._facts(), self._named, self.branch)
        self._move(branch, None, head.id)
        return forked

    def keep(self) -> None:
        """Let the server keep the present snapshot when it removes older ones."""
        head = head_of(self._facts(), self._named, self.branch)
        self._here.ask(self._client.sessions.keep, self.name, head.id)

    def clear(self) -> None:
        """Begin the branch again, without any variable."""
        head = self.head
        if head is not None:
            self._move(self.branch, head.id, None)

    def take_over(self, other: Session) -> None:
        """Go on from the present snapshot of another branch, which is removed.

        Raises:
            RequestRefused: a run works on the session (409).
        """
        facts = self._facts()
        head = head_of(facts, self._named, other.branch)
        mine = facts.branches.get(self.branch) if facts is not None else None
        self._move(self.branch, None if mine is None else mine.id, head.id)
        self._here.ask(self._client.sessions.remove_branch, self.name, other.branch)

    def remove(self) -> None:
        """Remove the session with all its snapshots."""
        self._here.ask(self._client.sessions.remove, self.name)

    # Helpers.

    @property
    def _here(self) -> Workspace:
        return workspace()

    @property
    def _client(self) -> Client:
        return self._here.client(cast(Place, self._options["place"]))

    def _facts(self) -> SessionFacts | None:
        return self._here.ask(self._client.sessions.find, self.name)

    def _move(self, branch: str, before: str | None, to: str | None) -> None:
        sessions = self._client.sessions
        self._here.ask(lambda: sessions.move(self.name, branch, before=before, to=to))

    def _start(self, code: str, branch: str, options: Mapping[str, Any]) -> Run:
        here, client = self._here, self._client
        spec = PythonSpec(code, **{**self._options, **options})
        spec.validate()
        prepared = prepare_python(spec, is_session=True)
        here.accounts.check_machine(client, prepared.request.execution_type)
        cell = next_cell(
            here, client, self._named, agree=lambda _sentence: self._trust, branch=branch
        )
        carried = cell.carried
        with held(here, client, cell, prepared.request.timeout) as cell:
            request = prepared.in_session(
                cell.step, requirements=carried.requirements, modules=carried.modules,
                urls=cell.urls,
            )  # fmt: skip
            run, request = here.new_run(
                client,
                for_server(request, client.account.bootstrap),
                budget=spec.budget,
                notes=() if client.account.is_embedded else prepared.notes,
                allow_pickle=spec.allow_pickle,
            )
            lines = tuple((request.requirements_content or "").splitlines())
            write_down(here, client, run, cell, Carried(lines, tuple(prepared.own_modules)))
        run.begin(request)
        run.wait_started()
        return run

    @contextmanager
    def _side_branch(self) -> Iterator[str]:
        """Yield the name of a branch at the present snapshot, which is removed afterwards."""
        head = head_of(self._facts(), self._named, self.branch)
        branch = f"read-{uuid.uuid4().hex[:12]}"
        self._move(branch, None, head.id)
        try:
            yield branch
        finally:
            self._here.ask(self._client.sessions.remove_branch, self.name, branch)


def checkout(here: Workspace, client: Client, name: SessionName, branch: str, cell: int) -> None:
    """Move the head of a branch to the snapshot of a cell; see `Session.checkout`."""
    facts = here.ask(client.sessions.find, name.key)
    if facts is None:
        raise OptionError(f"There is no session {name.shown()}; `%lyceum session` lists them.")
    head = facts.branches.get(branch)
    snapshots = here.ask(client.sessions.snapshots, name.key)
    target = snapshot_of(snapshots, branch, cell, head)
    if target is None:
        raise no_such_cell(name, branch, cell)
    before = None if head is None else head.id
    here.ask(lambda: client.sessions.move(name.key, branch, before=before, to=target.id))


def no_such_cell(name: SessionName, branch: str, cell: int) -> OptionError:
    """Return the error for a cell that was never there, or was removed."""
    return OptionError(
        f"Session {name.shown(branch)} has no cell {cell}; `%lyceum session show {name.key}` lists "
        "those that it has."
    )


def snapshot_of(
    snapshots: list[SnapshotFacts], branch: str, cell: int, head: Head | None
) -> SnapshotFacts | None:
    """Return the snapshot of a cell: an ancestor of the head, else the newest of its number.

    After a checkout two snapshots may have one number.
    """
    by_id = {snapshot.id: snapshot for snapshot in snapshots}
    at = by_id.get(head.id) if head is not None else None
    while at is not None and at.cell > cell:
        at = by_id.get(at.parent)
    if at is not None and at.cell == cell:
        return at
    same = [one for one in snapshots if one.cell == cell]
    of_branch = [one for one in same if one.branch == branch] or same
    return max(of_branch, key=lambda one: one.saved_at, default=None)
