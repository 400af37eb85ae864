"""What `here` means as a callback URL: an address of this process, and what comes in there.

Which address that is depends on who sends: the embedded server reaches this machine's loopback, the
cloud only what is public.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..config import Account
from ..exceptions import ConfigError, OptionError
from ..folders import callback_folder
from ..protocol.addresses import is_loopback
from ..protocol.callback_urls import problem_of_url
from ..runs.loop import log_failure
from ..runs.run import Run

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from .mailbox import Mailbox
    from .store import Arrival

#: The public https address of this user's Jupyter server: its base URL, for senders elsewhere.
BASE_VARIABLE = "LYCEUM_CALLBACK_BASE_URL"
#: The same, where JupyterHub knows it.
HUB_VARIABLE = "JUPYTERHUB_PUBLIC_URL"

_HOW_TO = (
    f"set {BASE_VARIABLE}, or c.LyceumMagics.callback_base_url, to this Jupyter's public https "
    "address"
)


def public_base(setting: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The URL at which others reach this user's Jupyter server; None if nobody says.

    Args:
        setting: what the configuration says; may be empty.

    Raises:
        OptionError: it is no such URL.
    """
    base = setting or environ.get(BASE_VARIABLE) or environ.get(HUB_VARIABLE) or None
    if base is None:
        return None
    problem = problem_of_url(base)
    if problem is None and (urlsplit(base).query or urlsplit(base).fragment):
        problem = "It may hold no `?` and no `#`."
    if problem is not None:
        raise OptionError(f"callback_base_url is where others reach this Jupyter. {problem}")
    return base


class Here:
    """The addresses of one process.

    Where a method takes a `setting`, that is `c.LyceumMagics.callback_base_url`; see `public_base`.

    Args:
        session: tells this process from others.
        run_of: the run with a tag, as long as somebody has it.
    """

    def __init__(
        self, portal: BlockingPortal, session: str, run_of: Callable[[str], Run | None]
    ) -> None:
        self._portal = portal
        self._session = session
        self._run_of = run_of
        self._opening = threading.Lock()
        self._life: Future[None] | None = None
        self._box: Mailbox | None = None
        self._listeners: list[queue.SimpleQueue[Arrival | None]] = []
        self._addresses: dict[str | None, str] = {}

    def address_for(self, tag: str, account: Account, setting: str = "") -> str:
        """A new address for the end of one run.

        Raises:
            OptionError: the account's server cannot reach this process, or nothing receives there.
            ConfigError: nothing can be kept here.
        """
        base = None
        if not account.is_embedded:  # which is on this machine, and needs no detour
            base = public_base(setting)
            if base is None and not is_loopback(urlsplit(account.base_url).hostname or ""):
                raise OptionError(
                    f"--callback here: {account.base_url} cannot reach this machine; {_HOW_TO}, "
                    "or leave it out, for `run.wait_callback()` and `on_finish` learn of the end "
                    "from the run's stream."
                )
        return self._new_address(base, tag)

    def listening_address(self, setting: str = "") -> tuple[str, str | None]:
        """The address for whatever comes from outside; the same until the base changes.

        Returns:
            The address, and the public base that it has; None if only this machine reaches it.

        Raises: as `address_for`.
        """
        base = public_base(setting)
        self._mailbox()
        if base not in self._addresses:
            self._addresses[base] = self._new_address(base, None)
        return self._addresses[base], base

    def receiver(self) -> str:
        """Who receives callbacks for this process, in some words."""
        from .jupyter_servers import is_any_receiving, url_of_mine

        if url_of_mine(callback_folder()) is not None:
            return "by this Jupyter server"
        if is_any_receiving(callback_folder()):
            return "by a Jupyter server from elsewhere, by this kernel from this machine"
        return "by this kernel, from this machine alone"

    def listen(self) -> queue.SimpleQueue[Arrival | None]:
        """A queue of what comes to the listening address from now on; None at the end."""
        arrivals: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._listeners.append(arrivals)
        return arrivals

    def adopt(self, run: Run, tag: str) -> None:
        """Hears callbacks of a run that another process started, if it wanted any."""
        if _has_inbox():
            # Who cannot hear of it by callback follows its stream.
            with contextlib.suppress(ConfigError, OSError, sqlite3.Error):
                run.expects_callback = self._portal.call(self._mailbox().adopt, tag)

    def forget(self, tags: Iterable[str]) -> None:
        """Removes what came in for runs, and lets nothing more come.

        Raises:
            ConfigError: it cannot be removed.
        """
        from .store import CallbackInbox

        if _has_inbox():
            try:
                CallbackInbox(callback_folder()).forget(tags)
            except (OSError, sqlite3.Error) as exc:
                raise _unusable(exc) from None

    def close(self) -> None:
        """Nothing is heard any more."""
        for arrivals in self._listeners:
            arrivals.put(None)
        if self._life is not None:
            self._life.cancel()

    def _new_address(self, base: str | None, tag: str | None) -> str:
        try:
            return self._portal.call(self._mailbox().new_address, base, tag)
        except (OSError, sqlite3.Error) as exc:
            raise _unusable(exc) from None

    def _mailbox(self) -> Mailbox:
        from .mailbox import Mailbox

        with self._opening:
            if self._life is not None and self._life.done():
                self._box = None  # with which its addresses have gone
                self._addresses.clear()
            if self._box is None:
                box = Mailbox(callback_folder(), self._session, self._deliver)
                try:
                    self._life, self._box = self._portal.start_task(box.live)
                    self._life.add_done_callback(log_failure)
                except (OSError, sqlite3.Error) as exc:
                    raise _unusable(exc) from None
            return self._box

    async def _deliver(self, arrival: Arrival) -> None:
        if arrival.tag is None:
            for listener in self._listeners:
                listener.put(arrival)
        elif (run := self._run_of(arrival.tag)) is not None:
            await run.on_callback(dict(arrival.event.raw))


def _has_inbox() -> bool:
    """Whether anybody has asked for callbacks yet."""
    return (callback_folder() / "callbacks.db").exists()


def _unusable(exc: OSError | sqlite3.Error) -> ConfigError:
    why = getattr(exc, "strerror", None) or exc
    return ConfigError(
        f"Callbacks cannot be kept in {callback_folder()} ({why}); set LYCEUM_MAGIC_HOME to a "
        "folder that can be written to."
    )
