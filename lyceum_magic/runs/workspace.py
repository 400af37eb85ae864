"""One for each process: the loop thread, the journal and the clients that all runs share.

Nothing is made before the first run needs it, and nothing at module level, so that an import costs
nothing and no lock or client binds itself to a loop that is gone.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import dataclasses
import functools
import gc
import logging
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import anyio

from .. import config
from ..client import debug_log
from ..client.api import Client, billed_of, ended_at_of
from ..embedded import local_server
from ..exceptions import (
    ConfigError,
    JournalUnavailable,
    LyceumError,
    OptionError,
    RequestRefused,
    ServerError,
    UnknownRun,
)
from ..folders import journal_folder
from ..inbox.here import Here
from ..journal.journal import Entry, Journal
from ..protocol import money
from ..protocol.callbacks import HERE
from ..protocol.limits import MAX_BODY_BYTES, MIN_TIMEOUT_S, TAG_KEY
from ..protocol.lines import one_line
from ..protocol.requests import Start
from ..protocol.states import State, parse_state
from .hooks import Hooks
from .loop import LoopThread
from .once import Once
from .run import Run, new_tag

logger = logging.getLogger(__name__)

T = TypeVar("T")
StartT = TypeVar("StartT", bound=Start)

#: A start that was not answered within this time has no kernel any more that waits for it.
START_LIMIT_S = 120.0

#: The pause between two steps of removing old runs: cells come first.
PRUNE_PAUSE_S = 1.0

#: Where Jupyter's servers say which notebook a kernel belongs to.
NOTEBOOK_VARIABLE = "JPY_SESSION_NAME"

#: How often something is done while an answer is waited for.
TICK_S = 0.2

#: Where a cell runs: as the credentials say, on the embedded server, or on the cloud.
Place = Literal["auto", "local", "cloud"]


class Workspace:
    """What the runs of one process share. Use `workspace()` to get it."""

    def __init__(self, hooks: Hooks | None = None) -> None:
        self._stack = ExitStack()
        loop = LoopThread("lyceum-magic")
        self._stack.callback(loop.close)
        self._portal = loop.portal
        self._clients: Once[tuple[object, ...], Client] = Once()
        # The state folders of the embedded ones.
        self._folders: WeakKeyDictionary[Client, Callable[[], Path]] = WeakKeyDictionary()
        self._journals: Once[None, Journal] = Once()
        # Weak: one that is under way is held by its own task, one that is over by its user alone.
        self._runs: WeakValueDictionary[str, Run] = WeakValueDictionary()
        #: In the journal, of the runs that this process started.
        self.id = new_tag()
        #: What the user wants to happen when a run of this process has ended.
        self.hooks = hooks or Hooks()
        #: Where callbacks to this process come in.
        self.here = Here(self._portal, self.id, self._runs.get)
        #: What shows them; see `magic.commands.listen`.
        self.listening: object = None
        self._has_spent = False
        self._pruning: asyncio.Task[None] | None = None

    @property
    def _journal(self) -> Journal:
        """Opened lazily, so that `%lyceum doctor` works on a full disk."""
        return self._journals.get(None, lambda: self._portal.call(self._open_journal))

    async def _open_journal(self) -> Journal:
        journal = Journal(journal_folder())
        debug_log.begin(journal_folder())
        # On the loop thread too, and before that ends.
        self._stack.callback(self._portal.call, _in_loop, journal.close)
        if notebook := os.environ.get(NOTEBOOK_VARIABLE):
            try:
                journal.write_session(self.id, notebook)
            except JournalUnavailable as exc:  # what is there can be read, and runs be followed
                logger.warning("%s Each kernel of this notebook lists its own runs.", exc)
        self._pruning = asyncio.create_task(_prune(journal))
        return journal

    def close(self) -> None:
        """Ends the loop thread; runs that are under way go on where they run."""
        for run in list(self._runs.values()):
            run.leave()
        self.here.close()
        self._portal.call(self._close)
        self._stack.close()

    async def _close(self) -> None:
        if self._pruning is not None:
            self._pruning.cancel()
            await asyncio.wait([self._pruning])
        for client in self._clients.made():
            await client.aclose()

    def leave_to_parent(self) -> None:
        """Let go of what a forked child has inherited and would keep from others."""
        for run in list(self._runs.values()):
            run.leave_to_parent()

    # Accounts.

    def client(self, place: Place = "auto") -> Client:
        """The client of the account that `place` means now.

        Raises:
            ConfigError: "cloud" without credentials, or credentials that cannot be used.
            EmbeddedServerError: the embedded server is meant and cannot be started.
        """
        account = None if place == "local" else config.find_account()
        if account is None and place == "cloud":
            raise ConfigError(
                "--cloud needs an API key: set LYCEUM_API_KEY, or sign in with `lyceum auth login`."
            )
        return self.embedded() if account is None else self._cloud(account)

    def embedded(self, folder: Path | None = None) -> Client:
        """The client of the embedded server in a folder, which is started if it does not run.

        Args:
            folder: a state folder; the one in which this environment's runs begin if None.
        """
        folder = folder or local_server.current_folder(make_room=True)
        return self._clients.get(("embedded", folder), lambda: self._make_embedded(folder))

    def _make_embedded(self, folder: Path) -> Client:
        made_at, folder_now = time.time(), folder

        def ensure() -> config.Account:
            nonlocal folder_now
            folder_now = local_server.present_folder(folder, made_at)
            return local_server.ensure(folder_now)

        async def relocate() -> config.Account:
            # A start takes a second; the loop goes on following other runs meanwhile.
            return await anyio.to_thread.run_sync(ensure)

        client = Client(
            ensure(),
            relocate=relocate,
            check_connection=local_server.guard(
                lambda: folder_now, lambda: client.account.base_url
            ),
        )
        self._folders[client] = lambda: folder_now
        return client

    def embedded_if_running(self) -> Client | None:
        """The client of this environment's embedded server; None if there is none to talk to."""
        folder = local_server.current_folder()
        return None if local_server.find(folder) is None else self.embedded(folder)

    def _server_folder(self, client: Client) -> str:
        """The state folder of an embedded server's client; empty for any other client."""
        folder = self._folders.get(client)
        return "" if folder is None else str(folder())

    def _cloud(self, account: config.Account) -> Client:
        key = ("cloud", account.base_url, account.token, account.org)
        return self._clients.get(key, lambda: Client(account))

    def check_machine(self, client: Client, machine: str) -> None:
        """Refuses a machine that the account cannot use, before anything travels.

        Raises:
            OptionError: with the machines that it can use.
            LyceumError: the server cannot be asked: wrong key, not reachable, not Lyceum.
        """
        if machine in client.known_hardware:
            return  # without a visit to the loop thread, for this is on the way of every cell
        try:
            available = self._portal.call(client.available_hardware)
        except (RequestRefused, ServerError):
            return  # this server does not say; it will judge the start
        if available and machine not in available:
            raise OptionError(
                f"There is no machine {machine!r} for this account; choose one of "
                f"{one_line(', '.join(sorted(available)))}."
            )

    def check_account(self, account: config.Account) -> None:
        """Asks the server whether it takes this account's key.

        Raises:
            LyceumError: it does not, or it cannot be asked.
        """

        async def ask() -> None:
            async with Client(account) as client:
                await client.machine_types()

        self._portal.call(ask)

    # Runs.

    def submit(
        self,
        client: Client,
        request: Start,
        *,
        budget: float | None = None,
        allow_pickle: bool = False,
    ) -> Run:
        """Starts a run and returns when the server has accepted it.

        Args:
            budget: see `priced`.
            allow_pickle: see `Run`.

        Raises:
            LyceumError: it could not be started.
        """
        self.check_machine(client, request.execution_type)
        run, request = self.new_run(client, request, budget=budget, allow_pickle=allow_pickle)
        run.begin(request)
        run.wait_started()
        return run

    def ask(self, question: Callable[..., Awaitable[T]], *args: object) -> T:
        """Waits for a coroutine function of a client, on the loop thread."""
        return self._portal.call(question, *args)

    def wait_for(
        self, question: Callable[[], Awaitable[T]], *, while_waiting: Callable[[], object]
    ) -> T:
        """As `ask`, with something to do meanwhile, several times a second, on this thread.

        An interrupt ends what is waited for.
        """
        answer = self._portal.start_task_soon(question)
        try:
            while not futures.wait([answer], TICK_S).done:
                while_waiting()
        except BaseException:
            answer.cancel()
            futures.wait([answer])
            raise
        return answer.result()

    def price_of(self, client: Client, machine: str) -> float | None:
        """A machine's price in dollars an hour; 0 where it is free, None where nobody says."""
        if client.account.is_embedded:
            return 0.0
        if not client.knows_prices:
            self._portal.call(client.learn_prices)
        return client.known_price(machine)

    def priced(
        self, client: Client, request: StartT, budget: float | None
    ) -> tuple[StartT, float | None, list[str]]:
        """The request with a time limit that its budget pays for.

        Args:
            budget: the most that the run may cost, in dollars; None for no limit.

        Returns:
            The request, the price of its machine in dollars an hour (None: free or unknown), and
            what the reader should know about it.

        Raises:
            OptionError: the budget pays for no run, or nobody knows what it would pay for.
        """
        machine = request.execution_type
        price = self.price_of(client, machine)
        if price is None and budget is not None:
            self._portal.call(client.learn_prices)  # not to be had a while ago, but now it matters
            price = client.known_price(machine)
        if budget is None or price == 0:
            return request, price or None, []
        if price is None:
            raise OptionError(
                f"A budget cannot be kept here: {client.account.base_url} names no price for "
                f"{machine}; leave it out, and limit the time instead."
            )
        limit_s = money.time_limit(budget, price, request.timeout)
        if limit_s is None:
            raise OptionError(
                f"A budget of {money.dollars(budget)} does not pay for {MIN_TIMEOUT_S} s of "
                f"{machine} at {money.per_hour(price)}; choose a larger one, or a cheaper machine."
            )
        if limit_s == request.timeout:
            return request, price, []
        note = f"a budget of {money.dollars(budget)} limits it to {limit_s} s"
        return request.model_copy(update={"timeout": limit_s}), price, [note]

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
        """A run that has not begun, and the request with the tag by which it can be found.

        Args:
            budget: see `priced`.
            notes: what the reader of the run should know.
            allow_pickle: see `Run`.
            callback_base: see `Here`.

        Raises:
            OptionError: see `priced`; or the request is larger than a server takes; or it asks for
                callbacks to `here`, and none can come.
        """
        check_body(request)
        request, price, remarks = self.priced(client, request, budget)
        if price and not self._is_spending():
            remarks.insert(0, f"from here on this notebook spends money: {money.per_hour(price)}")
        if not client.account.is_embedded:
            remarks += request.cloud_remarks
        tag = (request.metadata or {}).get(TAG_KEY)
        if tag is None:
            tag = new_tag()
            request = request.model_copy(
                update={"metadata": {**(request.metadata or {}), TAG_KEY: tag}}
            )
        account = client.account
        is_told_here = HERE in (request.user_callback_urls or ())
        if is_told_here:
            request = self._with_address(request, tag, account, callback_base)
        entry = Entry(
            tag=tag,
            run_id=None,
            base_url=account.base_url,
            is_embedded=account.is_embedded,
            server_folder=self._server_folder(client),
            streaming_url=None,
            machine=request.execution_type,
            name=request.run_name or "",
            timeout_s=request.timeout,
            created_at=time.time(),
            price_per_hour=price,
            session=self.id,
        )
        run = self._runs[tag] = Run(self._portal, self._journal, client, entry, self.hooks)
        run.expects_callback = is_told_here
        run.note = " · ".join([*remarks, *notes])
        run.allow_pickle = allow_pickle
        return run, request

    def _with_address(
        self, request: StartT, tag: str, account: config.Account, callback_base: str
    ) -> StartT:
        """The request with an address of this process in the place of `here`."""
        # A function of its own: tracebacks show what is in the frames of others.
        address = self.here.address_for(tag, account, callback_base)
        urls = [address if url == HERE else url for url in request.user_callback_urls or ()]
        return request.model_copy(update={"user_callback_urls": urls})

    def _is_spending(self) -> bool:
        """Whether an earlier run of this process was paid for."""
        self._has_spent = self._has_spent or any(
            entry.price_per_hour and entry.run_id is not None for entry in self.paid()
        )
        return self._has_spent

    def attach(self, run_id: str) -> Run:
        """A run of this user, from this process or another, followed on from where it was left.

        Args:
            run_id: an id, a unique beginning of one, or "last".

        Raises:
            UnknownRun: there is none, or more than one.
        """
        return self._follow(self.find_entry(run_id))

    def _follow(self, entry: Entry) -> Run:
        known = self._runs.get(entry.tag)
        if known is not None and not known.is_out_of_sight:
            return known
        client = self.client_for(entry)
        run = self._runs[entry.tag] = Run(self._portal, self._journal, client, entry, self.hooks)
        if not entry.is_final:
            run.begin(None)
            self.here.adopt(run, entry.tag)
        return run

    def _client_of(self, entry: Entry) -> Client:
        client = self.client("cloud")
        if client.account.base_url != entry.base_url:
            raise ConfigError(
                f"The run is on {entry.base_url}, and the credentials are for "
                f"{client.account.base_url}; set LYCEUM_BASE_URL and LYCEUM_API_KEY for it."
            )
        return client

    def forget(self, entries: list[Entry]) -> None:
        """Removes runs from the journal, with their output and what called back for them."""
        self.here.forget(entry.tag for entry in entries)
        self._portal.call(_in_loop, self._journal.forget, [entry.tag for entry in entries])

    def find_entry(self, run_id: str) -> Entry:
        """The journal's entry of a run, by id, unique beginning, or "last".

        "last" is the newest of this process, or of all where this one has none.
        """
        entry: Entry = self._portal.call(_in_loop, self._journal.find, run_id, self.id)
        return entry

    def own(self, run_id: str) -> Run:
        """As `attach`, for who wants to end it: "last" is a run of this process, or none."""
        entry = self.find_entry(run_id)
        if run_id == "last" and entry.session != self.id:
            raise UnknownRun(
                "This notebook has started no run: name another's by its id; see "
                "`%lyceum list --all`."
            )
        return self._follow(entry)

    def as_now(self, entries: list[Entry]) -> list[Entry]:
        """Entries, with the present state of those that another kernel left unfinished."""
        return [
            entry if entry.is_final or self._is_followed(entry) else self._refreshed(entry)
            for entry in entries
        ]

    def _is_followed(self, entry: Entry) -> bool:
        """Whether its row is kept up here: it is not once its end could not be written down."""
        run = self._runs.get(entry.tag)
        return run is not None and not run.state.is_final

    def _refreshed(self, entry: Entry) -> Entry:
        if entry.run_id is None:
            return self._found_again(entry)
        try:
            record = self.ask(self.client_for(entry).record, entry.run_id)
        except LyceumError:
            return entry  # not to be asked now; what is known is better than nothing
        state = parse_state(str(record.get("status"))) or State(entry.state)
        errors = record.get("system_errors") or [""]
        return dataclasses.replace(
            entry,
            state=state.value,
            reason=one_line(errors[0]),
            billed=billed_of(record),
            ended_at=ended_at_of(record) if state.is_final else None,
        )

    def _found_again(self, entry: Entry) -> Entry:
        """A run whose start nobody heard the answer of, as the server knows it."""
        if entry.created_at > time.time() - START_LIMIT_S:
            return entry  # another kernel may be starting it right now
        with contextlib.suppress(LyceumError):
            self._follow(entry).wait_started()
        return self.find_entry(entry.tag)

    def client_for(self, entry: Entry) -> Client:
        """The client of the server that has a run.

        Raises:
            ConfigError: it is on a cloud that the credentials are not for.
            EmbeddedServerError: it is on an embedded server that cannot be started.
        """
        if entry.is_embedded:
            folder = local_server.present_folder(Path(entry.server_folder), entry.created_at)
            return self.embedded(folder)
        return self._client_of(entry)

    def entries(self, limit: int = -1) -> list[Entry]:
        """The journal's runs, newest first."""
        return self._portal.call(_in_loop, functools.partial(self._journal.entries, limit=limit))

    def entries_here(self, limit: int = -1) -> list[Entry]:
        """The journal's runs of this notebook, newest first."""
        entries = functools.partial(self._journal.of_notebook, self.id, limit=limit)
        return self._portal.call(_in_loop, entries)

    def unfinished(self) -> list[Entry]:
        """The journal's runs that have not ended as far as is known here, newest first."""
        return self._portal.call(_in_loop, self._journal.unfinished)

    def ended_before(self, moment: float) -> list[Entry]:
        """The journal's ended runs that were sent at a moment or earlier, newest first."""
        return self._portal.call(_in_loop, self._journal.ended_before, moment)

    def paid(self) -> list[Entry]:
        """The runs of this process that cost money, newest first."""
        return self._portal.call(_in_loop, self._journal.paid, self.id)

    def count(self, *, here: bool) -> int:
        """How many runs the journal has, of this notebook or of all."""
        number: int = self._portal.call(_in_loop, self._journal.count, self.id if here else None)
        return number


def check_body(request: Start) -> None:
    """
    Raises:
        OptionError: the request is larger than a server takes.
    """
    if request.may_exceed(MAX_BODY_BYTES) and (size := request.size()) > MAX_BODY_BYTES:
        raise OptionError(
            f"The request may have {MAX_BODY_BYTES:,} bytes, and has {size:,}; --dry-run shows "
            "what is large, and large data belongs into storage."
        )


async def _in_loop(function: Callable[..., T], *args: Any) -> T:
    """Calls `function` on the loop thread, where the journal lives."""
    return function(*args)


async def _prune(journal: Journal) -> None:
    """Removes what is old from the journal while other things happen."""
    try:
        for _forgotten in journal.prune(now=time.time()):
            await anyio.sleep(PRUNE_PAUSE_S)
    except (LyceumError, OSError, sqlite3.Error) as exc:
        # The next kernel tries again, and a run that needs the journal says what is wrong with it.
        logger.info("old runs could not be removed from the journal: %s", exc)


_workspaces: Once[int, Workspace] = Once()
#: The functions of `on_finish`: the one thing that a forked child takes over from its parent.
_hooks = Hooks()


def workspace() -> Workspace:
    """This process's workspace, made at its first use; a forked child makes its own."""
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
        made.leave_to_parent()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    # The collection at the child's exit would visit, and so copy, every object of the parent: of
    # the libraries that are loaded here, that takes half a second and more.
    gc.freeze()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_begin_child)
