"""Addresses of this process for callbacks, and the runs and listeners that they are handed to.

The callback URL `here` means such an address. Which one depends on the sender: the embedded server
reaches this machine's loopback, the cloud only what is public.
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

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from ..runs.run import Run
    from .store import Arrival
    from .watcher import InboxWatcher

#: The public https address of this user's Jupyter server: its base URL, for senders elsewhere.
BASE_VARIABLE = "LYCEUM_CALLBACK_BASE_URL"
#: The same, where JupyterHub knows it.
HUB_VARIABLE = "JUPYTERHUB_PUBLIC_URL"

_HOW_TO = (
    f"set {BASE_VARIABLE}, or c.LyceumMagics.callback_base_url, to this Jupyter's public https "
    "address"
)


def public_base(setting: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL at which others reach this user's Jupyter server; None if it is not set.

    Args:
        setting: `c.LyceumMagics.callback_base_url`; may be empty.

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


class Inbox:
    """The callbacks of one process, for calls from any thread.

    A method's `setting` is `c.LyceumMagics.callback_base_url`; see `public_base`.

    Args:
        process: tells this process from others; see `Workspace.process_id`.
        run_of: returns the run with a tag, as long as this process holds it.
    """

    def __init__(
        self, portal: BlockingPortal, process: str, run_of: Callable[[str], Run | None]
    ) -> None:
        self._portal = portal
        self._process = process
        self._run_of = run_of
        self._opening = threading.Lock()
        self._task: Future[None] | None = None
        self._watcher: InboxWatcher | None = None
        self._listeners: list[queue.SimpleQueue[Arrival | None]] = []
        self._addresses: dict[str | None, str] = {}

    def address_for(self, tag: str, account: Account, setting: str = "") -> str:
        """Return a new address for the end of one run.

        Raises:
            OptionError: the account's server cannot reach this process, or nothing receives there.
            ConfigError: the folder for callbacks cannot be used.
        """
        base = None
        if not account.is_embedded:  # which is on this machine, and needs no detour
            base = public_base(setting)
            if base is None and not is_loopback(urlsplit(account.base_url).hostname or ""):
                raise OptionError(
                    f"--callback here: {account.base_url} cannot reach this machine; {_HOW_TO}, "
                    "or leave it out: `run.wait_callback()` and `on_finish` then learn of the end "
                    "from the run's stream."
                )
        return self._new_address(base, tag)

    def listening_address(self, setting: str = "") -> tuple[str, str | None]:
        """Return the address for callbacks about any run; the same until the base changes.

        Returns:
            The address, and its public base; None if only this machine reaches it.

        Raises:
            OptionError, ConfigError: as `address_for`.
        """
        base = public_base(setting)
        self._open_watcher()
        if base not in self._addresses:
            self._addresses[base] = self._new_address(base, None)
        return self._addresses[base], base

    def receiver(self) -> str:
        """Return in words which programs receive callbacks for this process."""
        from .jupyter_servers import is_any_receiving, url_of_mine

        if url_of_mine(callback_folder()) is not None:
            return "by this Jupyter server"
        if is_any_receiving(callback_folder()):
            return "by a Jupyter server from elsewhere, by this kernel from this machine"
        return "by this kernel, from this machine alone"

    def listen(self) -> queue.SimpleQueue[Arrival | None]:
        """Return a queue of what arrives at the listening address from now on; None at the end."""
        arrivals: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._listeners.append(arrivals)
        return arrivals

    def adopt(self, run: Run) -> None:
        """Take over the callbacks of a run that another process started, if it asked for any."""
        if _has_store():
            # Without its callbacks, its stream still tells of its end.
            with contextlib.suppress(ConfigError, OSError, sqlite3.Error):
                following = run.following
                can_come = self._portal.call(self._open_watcher().adopt, following.entry.tag)
                following.expects_callback = can_come

    def forget(self, tags: Iterable[str]) -> None:
        """Remove the callbacks of runs, and their addresses.

        Raises:
            ConfigError: they cannot be removed.
        """
        from .store import InboxStore

        if _has_store():
            try:
                InboxStore(callback_folder()).forget(tags)
            except (OSError, sqlite3.Error) as exc:
                raise _unusable(exc) from None

    def close(self) -> None:
        """Stop receiving."""
        for arrivals in self._listeners:
            arrivals.put(None)
        if self._task is not None:
            self._task.cancel()

    def _new_address(self, base: str | None, tag: str | None) -> str:
        try:
            return self._portal.call(self._open_watcher().new_address, base, tag)
        except (OSError, sqlite3.Error) as exc:
            raise _unusable(exc) from None

    def _open_watcher(self) -> InboxWatcher:
        from .watcher import InboxWatcher

        with self._opening:
            if self._task is not None and self._task.done():
                self._watcher = None  # its addresses have gone with it
                self._addresses.clear()
            if self._watcher is None:
                box = InboxWatcher(callback_folder(), self._process, self._deliver)
                try:
                    self._task, self._watcher = self._portal.start_task(box.live)
                    self._task.add_done_callback(log_failure)
                except (OSError, sqlite3.Error) as exc:
                    raise _unusable(exc) from None
            return self._watcher

    async def _deliver(self, arrival: Arrival) -> None:
        if arrival.tag is None:
            for listener in self._listeners:
                listener.put(arrival)
        elif (run := self._run_of(arrival.tag)) is not None:
            await run.following.on_callback(dict(arrival.event.raw))


def _has_store() -> bool:
    """Return whether any process of this user has asked for callbacks yet."""
    return (callback_folder() / "callbacks.db").exists()


def _unusable(exc: OSError | sqlite3.Error) -> ConfigError:
    why = getattr(exc, "strerror", None) or exc
    return ConfigError(
        f"Callbacks cannot be kept in {callback_folder()} ({why}); set LYCEUM_MAGIC_HOME to a "
        "folder that can be written to."
    )
