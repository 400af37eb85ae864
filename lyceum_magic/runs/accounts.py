"""The client of the account that a place or a past run means: the cloud, or an embedded server."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import anyio

from .. import config
from ..embedded import local_server
from ..exceptions import ConfigError, OptionError, RequestRefused, ServerError
from ..journal.journal import Entry
from ..protocol.lines import one_line
from .loop import LoopThread
from .once import Once

if TYPE_CHECKING:
    from ..client.api import Client
    from ..client.sessions import SessionKeeper

#: The place of a cell's run: as the credentials say, on the embedded server, or on the cloud.
Place = Literal["auto", "local", "cloud"]


class Accounts:
    """The clients of one process: one for each account, made at its first use.

    Args:
        sessions_of: returns what keeps the sessions of a cloud's client; None leaves it to the
            server.
    """

    def __init__(
        self, loop: LoopThread, sessions_of: Callable[[Client], SessionKeeper] | None = None
    ) -> None:
        self._loop = loop
        self._sessions_of = sessions_of
        self._clients: Once[tuple[object, ...], Client] = Once()
        # The state folders of the embedded servers.
        self._folders: WeakKeyDictionary[Client, Callable[[], Path]] = WeakKeyDictionary()

    def client(self, place: Place = "auto") -> Client:
        """Return the client of the account that a place means now.

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

    def client_of(self, entry: Entry) -> Client:
        """Return the client of the server that has a run.

        Raises:
            ConfigError: it is on a cloud that the credentials are not for.
            EmbeddedServerError: it is on an embedded server that cannot be started.
        """
        if entry.is_embedded:
            folder = local_server.present_folder(Path(entry.server_folder), entry.created_at)
            return self.embedded(folder)
        client = self.client("cloud")
        if client.account.base_url != entry.base_url:
            raise ConfigError(
                f"The run is on {entry.base_url}, and the credentials are for "
                f"{client.account.base_url}; set LYCEUM_BASE_URL and LYCEUM_API_KEY for it."
            )
        return client

    def embedded(self, folder: Path | None = None) -> Client:
        """Return the client of an embedded server, which is started if it does not run.

        Args:
            folder: a state folder; the one in which this environment's runs begin if None.
        """
        folder = folder or local_server.current_folder(make_room=True)
        return self._clients.get(("embedded", folder), lambda: self._make_embedded(folder))

    def embedded_if_running(self) -> Client | None:
        """Return the client of this environment's embedded server; None if it does not run."""
        folder = local_server.current_folder()
        return None if local_server.find(folder) is None else self.embedded(folder)

    def server_folder(self, client: Client) -> str:
        """Return the state folder of an embedded server's client; empty for any other client."""
        folder = self._folders.get(client)
        return "" if folder is None else str(folder())

    def check_machine(self, client: Client, machine: str) -> None:
        """Refuse a machine that the account cannot use, before anything is sent.

        Raises:
            OptionError: with the machines that it can use.
            LyceumError: the server cannot be asked: wrong key, not reachable, not Lyceum.
        """
        if machine in client.known_hardware:
            return  # without a visit to the loop thread, because every cell comes along here
        try:
            available = self._loop.ask(client.available_hardware)
        except (RequestRefused, ServerError):
            return  # this server does not say; it will judge the start
        if available and machine not in available:
            raise OptionError(
                f"There is no machine {machine!r} for this account; choose one of "
                f"{one_line(', '.join(sorted(available)))}."
            )

    def check(self, account: config.Account) -> None:
        """Ask the server whether it takes an account's key.

        Raises:
            LyceumError: it does not, or it cannot be asked.
        """
        from ..client.api import Client

        async def ask() -> None:
            async with Client(account) as client:
                await client.machine_types()

        self._loop.ask(ask)

    async def close(self) -> None:
        """Close all clients."""
        for client in self._clients.made():
            await client.aclose()

    def _cloud(self, account: config.Account) -> Client:
        from ..client.api import Client

        key = ("cloud", account.base_url, account.token, account.org)

        def make() -> Client:
            client = Client(account)
            if self._sessions_of is not None:
                client.sessions = self._sessions_of(client)
            return client

        return self._clients.get(key, make)

    def _make_embedded(self, folder: Path) -> Client:
        from ..client.api import Client

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
