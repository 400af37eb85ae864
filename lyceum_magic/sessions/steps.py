"""The next cell of a session: the snapshot that it continues, known or agreed to, and its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ..client.api import Client
from ..client.sessions import Head, SessionFacts
from ..exceptions import OptionError
from ..journal.snapshots import Carried, KnownSnapshot
from ..protocol.lines import one_line
from ..protocol.requests import SessionStep, Snapshot
from ..protocol.times import day_and_time
from ..runs.run import Run
from ..runs.workspace import Workspace
from .naming import SessionName

#: Function that asks the user a question, and returns whether the answer is yes.
Agree = Callable[[str], bool]


@dataclass(frozen=True)
class NextCell:
    """The next cell of a session.

    Attributes:
        name: of the session.
        step: for the start request.
        before: the number of the cell that it continues; 0 if it begins empty.
        carried: what earlier cells need to load their state.
        is_first: whether it is the first of this process.
        saved_at: of the snapshot that it continues, in ISO 8601; empty if it begins empty.
        urls: presigned URLs of its state; None where the server keeps the state.
    """

    name: SessionName
    step: SessionStep
    carried: Carried
    is_first: bool = False
    saved_at: str = ""
    urls: Mapping[str, object] | None = field(default=None, repr=False)

    @property
    def before(self) -> int:
        return self.step.cell - 1

    @property
    def greeting(self) -> str:
        """The sentence for the first cell of a process; empty for others, and for a new session."""
        if not self.is_first or self.step.parent is None:
            return ""
        when = day_and_time(self.saved_at)
        return (
            f"session {self.name.shown(self.step.branch)} continues cell {self.before}"
            f"{f' of {when}' if when else ''}; `%lyceum session new` starts empty"
        )


def next_cell(
    here: Workspace,
    client: Client,
    name: SessionName,
    *,
    agree: Agree,
    branch: str | None = None,
) -> NextCell:
    """Return the next cell of a session.

    Args:
        agree: asks the user whether a snapshot may be loaded that this machine does not know.
        branch: the branch; None for the one on which this process works.

    Raises:
        OptionError: the user does not agree.
        RequestRefused: the server keeps no sessions.
    """
    facts = here.ask(client.sessions.find, name.key)
    branch = branch or here.sessions.branch(name.key)
    head = facts.branches.get(branch) if facts is not None else None
    carried = Carried() if head is None else known(here, client, name, head, agree)
    step = SessionStep(
        key=name.key,
        title=name.title,
        branch=branch,
        cell=head.cell + 1 if head is not None else 1,
        id=uuid.uuid4().hex,
        parent=None if head is None else Snapshot(id=head.id, sha256=head.sha256),
    )
    is_first = here.sessions.begin(name.key)
    return NextCell(name, step, carried, is_first, "" if head is None else head.saved_at)


@contextmanager
def held(here: Workspace, client: Client, cell: NextCell, limit_s: float) -> Iterator[NextCell]:
    """Yield a cell that holds its branch; a block that raises, and so starts no run, gives it back.

    Args:
        limit_s: the run's time limit.

    Raises:
        RequestRefused: the session has moved on by now, or a run works on it (409).
        OptionError: the URLs of its state would end before the run.
    """
    urls = here.ask(client.sessions.begin, cell.step, limit_s)
    try:
        yield replace(cell, urls=urls)
    except BaseException:
        here.ask(client.sessions.abandon, cell.step)
        raise


def settle(here: Workspace, client: Client, run: Run, cell: NextCell) -> str:
    """Move the session's head to what an ended run has saved, where the server does not.

    Returns:
        Why the head stays although the run has saved, in one sentence; else empty.
    """
    if cell.urls is None:
        return ""
    saved = run.harvest.session
    sha256 = saved.sha256 if saved is not None and saved.id == cell.step.id else ""
    return here.ask(client.sessions.end, cell.step, sha256)


def known(here: Workspace, client: Client, name: SessionName, head: Head, agree: Agree) -> Carried:
    """Return what a head carries, if this machine knows it or the user agrees to it.

    Raises:
        OptionError: the user does not agree.
    """
    found = here.history.snapshot(head.id)
    if found is not None and _is_same(found, head, is_embedded=client.account.is_embedded):
        if not found.sha256:
            here.history.write_snapshot(replace(found, sha256=head.sha256))
        return found.carried
    when = day_and_time(head.saved_at)
    about = f"cell {head.cell}{f' of {when}' if when else ''}"
    sentence = one_line(
        f"Session {name.shown()} stands at {about}, which was not written from this machine. To go "
        "on from it runs code that it holds."
    )
    if not agree(sentence):
        raise OptionError(
            f"{sentence} Nothing was started; `%lyceum session new {name.key}` starts empty."
        )
    snapshot = KnownSnapshot(server_of(here, client), name.key, head.id, head.sha256)
    here.history.write_snapshot(snapshot)
    return snapshot.carried


def _is_same(found: KnownSnapshot, head: Head, *, is_embedded: bool) -> bool:
    if found.sha256:
        return found.sha256 == head.sha256
    # The kernel ended before its run did. No other program writes into the embedded server's own
    # folder; a bucket is written to by others.
    return is_embedded and bool(found.tag)


def write_down(here: Workspace, client: Client, run: Run, cell: NextCell, needs: Carried) -> None:
    """Write down the snapshot that a run is to write, before it is started.

    Args:
        needs: of the cell itself.

    Raises:
        JournalUnavailable: the journal cannot be written, and nothing may be started.
    """
    run.following.ending.is_session = True
    carried = Carried(
        needs.requirements or cell.carried.requirements,
        tuple(dict.fromkeys([*needs.modules, *cell.carried.modules])),
    )
    here.history.write_snapshot(
        KnownSnapshot(
            server_of(here, client), cell.step.key, cell.step.id, "", run.following.entry.tag,
            carried,
        )
    )  # fmt: skip


def server_of(here: Workspace, client: Client) -> str:
    """Return the name under which the journal keeps a server."""
    return here.accounts.server_folder(client) or client.account.base_url


def head_of(facts: SessionFacts | None, name: SessionName, branch: str) -> Head:
    """Return the head of a branch.

    Raises:
        OptionError: there is no such session, or it is empty.
    """
    head = facts.branches.get(branch) if facts is not None else None
    if head is None:
        raise OptionError(
            f"Session {name.shown(branch)} has no cell yet; `%lyceum session` lists the others."
        )
    return head
