"""The workspace of a process: the loop thread, clients, journal, inbox and handles of its runs.

Nothing is made before the first run needs it, and nothing at module level, so that an import costs
nothing and no lock or client binds itself to a loop that is gone.
"""

from __future__ import annotations

import atexit
import gc
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ..exceptions import UnknownRun
from ..inbox.inbox import Inbox
from ..journal.journal import Entry
from ..protocol import money
from ..protocol.callbacks import HERE
from .accounts import Accounts, Place
from .budget import Spending
from .held import HeldRuns
from .history import History
from .hooks import Hooks
from .loop import LoopThread
from .once import Once
from .session_use import SessionUse

if TYPE_CHECKING:  # the client's libraries take longest to import, and no list of runs needs them
    from ..client.api import Client
    from ..client.sessions import SessionKeeper
    from ..protocol.requests import Start
    from .run import Run

T = TypeVar("T")
StartT = TypeVar("StartT", bound="Start")


class Workspace:
    """The things that the runs of one process share. Use `workspace()` to get it.

    Attributes:
        process_id: marks the runs of this process in the journal.
        hooks: the functions that the user wants called when a run of this process has ended.
        accounts: the clients.
        history: the journal.
        spending: prices and budgets.
        runs: the runs of which this process holds a handle.
        inbox: where callbacks to this process arrive.
        sessions: the use that this process makes of sessions.
        listening: what shows callbacks that arrive; see `magic.commands.listen`.
    """

    def __init__(self, hooks: Hooks | None = None) -> None:
        self._loop = LoopThread("lyceum-magic")
        self.process_id = uuid.uuid4().hex
        self.hooks = hooks or Hooks()
        self.accounts = Accounts(self._loop, self._sessions_of)
        self.history = History(self._loop, self.process_id)
        self.spending = Spending(self._loop, self.history)
        self.inbox = Inbox(self._loop.portal, self.process_id, lambda tag: self.runs.get(tag))
        self.runs = HeldRuns(
            self._loop, self.history, self.hooks, self.accounts.client_of, self.inbox.adopt
        )
        self.listening: object = None
        self.sessions = SessionUse()

    def _sessions_of(self, client: Client) -> SessionKeeper:
        from .cloud_sessions import CloudSessions

        return CloudSessions(client, self._loop, self.history, lambda: self.runs)

    def close(self) -> None:
        """End the loop thread; runs that are under way go on where they run."""
        self.runs.leave()
        self.inbox.close()
        try:
            self._loop.ask(self.accounts.close)
            self._loop.ask(self.history.close)
        finally:
            self._loop.close()

    def ask(self, question: Callable[..., Awaitable[T]], *args: object) -> T:
        """Return the result of a client's coroutine function, called on the loop thread."""
        return self._loop.ask(question, *args)

    def wait_for(
        self, question: Callable[[], Awaitable[T]], *, while_waiting: Callable[[], object]
    ) -> T:
        """Return the result of a coroutine function; see `LoopThread.wait_for`."""
        return self._loop.wait_for(question, while_waiting=while_waiting)

    def client(self, place: Place = "auto") -> Client:
        """Return the client of the account that a place means now; see `Accounts.client`."""
        return self.accounts.client(place)

    def submit(
        self,
        client: Client,
        request: Start,
        *,
        budget: float | None = None,
        allow_pickle: bool = False,
    ) -> Run:
        """Start a run and return when the server has accepted it.

        Args:
            budget: see `Spending.priced`.
            allow_pickle: see `Run`.

        Raises:
            LyceumError: it could not be started.
        """
        self.accounts.check_machine(client, request.execution_type)
        run, request = self.new_run(client, request, budget=budget, allow_pickle=allow_pickle)
        run.begin(request)
        run.wait_started()
        return run

    def new_run(
        self,
        client: Client,
        request: StartT,
        *,
        budget: float | None = None,
        notes: Sequence[str] = (),
        allow_pickle: bool = False,
        callback_base: str = "",
    ) -> tuple[Run, StartT]:
        """Return a run that has not begun, and the request with the tag that identifies it.

        Args:
            budget: see `Spending.priced`.
            notes: what the reader of the run should know.
            allow_pickle: see `Run`.
            callback_base: see `inbox.public_base`.

        Raises:
            OptionError: see `Spending.priced`; or the request is larger than a server takes; or it
                asks for callbacks to `here`, and none can reach this process.
        """
        from .starting import check_body, tagged

        check_body(request)
        request, price, remarks = self.spending.priced(client, request, budget)
        if price and not self.spending.has_begun():
            remarks.insert(0, f"from here on this notebook spends money: {money.per_hour(price)}")
        if not client.account.is_embedded:
            remarks += request.cloud_remarks
        request, tag = tagged(request)
        expects_callback = HERE in (request.user_callback_urls or ())
        if expects_callback:
            request = self._with_address(request, tag, client, callback_base)
        run = self.runs.add(client, self._entry(client, request, tag, price))
        run.following.expects_callback = expects_callback
        run.note = " · ".join([*remarks, *notes])
        run.allow_pickle = allow_pickle
        return run, request

    def _entry(self, client: Client, request: Start, tag: str, price: float | None) -> Entry:
        return Entry(
            tag=tag,
            run_id=None,
            base_url=client.account.base_url,
            is_embedded=client.account.is_embedded,
            server_folder=self.accounts.server_folder(client),
            streaming_url=None,
            machine=request.execution_type,
            name=request.run_name or "",
            timeout_s=request.timeout,
            created_at=time.time(),
            price_per_hour=price,
            process=self.process_id,
        )

    def _with_address(
        self, request: StartT, tag: str, client: Client, callback_base: str
    ) -> StartT:
        """Return the request with an address of this process in the place of `here`."""
        # A function of its own: tracebacks show what is in the frames of others.
        address = self.inbox.address_for(tag, client.account, callback_base)
        urls = [address if url == HERE else url for url in request.user_callback_urls or ()]
        return request.model_copy(update={"user_callback_urls": urls})

    def attach(self, run_id: str) -> Run:
        """Return a run of this user, from this process or another, and follow it on.

        Args:
            run_id: an id, a unique beginning of one, or "last".

        Raises:
            UnknownRun: no run, or more than one.
        """
        return self.runs.follow(self.history.find(run_id))

    def own(self, run_id: str) -> Run:
        """Return a run as `attach` does, for ending it: "last" is a run of this process alone."""
        entry = self.history.find(run_id)
        if run_id == "last" and entry.process != self.process_id:
            raise UnknownRun(
                "This notebook has started no run: name another's by its id; see "
                "`%lyceum list --all`."
            )
        return self.runs.follow(entry)

    def forget(self, entries: Sequence[Entry]) -> None:
        """Remove runs from the journal, with their output and the callbacks that came for them."""
        tags = [entry.tag for entry in entries]
        self.inbox.forget(tags)
        self.history.forget(tags)


_workspaces: Once[int, Workspace] = Once()
#: The functions of `on_finish`: the one thing that a forked child takes over from its parent.
_hooks = Hooks()


def workspace() -> Workspace:
    """Return this process's workspace, made at its first use; a forked child makes its own."""
    return _workspaces.get(os.getpid(), _make_workspace)


def _make_workspace() -> Workspace:
    made = Workspace(_hooks)
    atexit.register(_close_at_exit, os.getpid(), made)
    return made


def _close_at_exit(pid: int, made: Workspace) -> None:
    if pid == os.getpid():
        made.close()


def _before_fork() -> None:
    if _workspaces.made():
        import ctypes  # noqa: F401 - while imports are safe


def _begin_child() -> None:
    """Start a forked child without the workspace of its parent, whose loop thread it has not got.

    What belongs to the parent is never destroyed here. Its coroutines would run their `finally`
    blocks, its database would be closed, and its loop would be told, all of it at this child's
    exit, which would then hang or do damage to the parent.
    """
    global _workspaces
    inherited, _workspaces = _workspaces, Once()
    if not inherited.made():
        return
    import ctypes

    _hooks.forget_due()
    for made in inherited.made():
        made.runs.leave_to_parent()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    # The collection at the child's exit would visit, and so copy, every object of the parent: of
    # the libraries that are loaded here, that takes half a second and more.
    gc.freeze()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_begin_child)
