"""The places to which callbacks may go: a URL in, addresses to connect to out.

The text of a URL is checked first, and every address of its host at the moment of sending. The
sender uses these addresses and does not look the name up again, so an answer that changes in
between (DNS rebinding) has no effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Collection

from ...protocol.addresses import address_of, is_loopback, is_public
from ...protocol.callback_urls import CallbackUrl, read_url
from ..settings import Profile
from .slots import ALL_SLOTS

#: Look-ups at a time, each on a thread of its own. One may hang for half a minute, longer than its
#: attempt, and counts until then.
_LOOKUPS = ALL_SLOTS


class TargetRefused(Exception):
    """A callback may not go there. The text is one sentence that shows at most an origin."""


def problem_of(url: str, profile: Profile) -> str | None:
    """Return why a server of this profile sends no callback to a URL, in one sentence; else None.

    This checks the URL's text. Its addresses are checked when something is sent.
    """
    try:
        _read_for(url, profile)
    except TargetRefused as exc:
        return str(exc)
    return None


def _read_for(url: str, profile: Profile) -> CallbackUrl:
    try:
        read = read_url(url)
    except ValueError as exc:
        raise TargetRefused(str(exc)) from None
    if is_loopback(read.host) and profile != "local":
        raise TargetRefused(
            f"{read.origin} is the server's own machine. A shared server sends callbacks only to "
            "public addresses."
        )
    return read


class Targets:
    """The places to which the callbacks of one server may go.

    Args:
        profile: `local` sends to public addresses over https, and to this machine's loopback;
            `shared`, whose users may be strangers to the machine, only to public addresses.
        own_ports: Returns the ports on which the server itself listens: a callback must not be an
            order to it.
    """

    def __init__(self, profile: Profile, own_ports: Callable[[], Collection[int]]) -> None:
        self._profile = profile
        self._own_ports = own_ports
        self._lookups = asyncio.Semaphore(_LOOKUPS)

    def read(self, url: str) -> CallbackUrl:
        """Return the parts of a URL whose text is allowed.

        Raises:
            TargetRefused: It is not allowed.
        """
        read = _read_for(url, self._profile)
        if is_loopback(read.host) and read.port in self._own_ports():
            raise TargetRefused(f"{read.origin} is this server itself. Name another port.")
        return read

    async def addresses(self, url: CallbackUrl) -> list[str]:
        """Return the addresses of a URL's host, each checked, in the order to try them.

        A single address that is not allowed refuses them all: the others may be there to pass a
        check.

        Raises:
            TargetRefused: An address is not allowed.
            OSError: The name has no address, or could not be looked up.
        """
        answers = [url.host] if address_of(url.host) else await self._look_up(url)
        for answer in answers:
            address = address_of(answer)
            allowed = (
                is_loopback(answer)
                # A public name that leads to this machine is a trick.
                if is_loopback(url.host)
                else address is not None and is_public(address)
            )
            if not allowed:
                raise TargetRefused(
                    f"{url.origin} leads to {answer}, an address to which this server sends no "
                    "callbacks."
                )
        return answers

    async def _look_up(self, url: CallbackUrl) -> list[str]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()

        def end(answers: list[str] | Exception) -> None:
            self._lookups.release()
            if found.done():  # the attempt is over
                return
            if isinstance(answers, Exception):
                found.set_exception(answers)
            else:
                found.set_result(answers)

        def look_up() -> None:
            answers: list[str] | Exception
            try:
                rows = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
                answers = list(dict.fromkeys(str(row[4][0]) for row in rows))
            except Exception as exc:  # noqa: BLE001 - raised in the event loop
                answers = exc
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(end, answers)

        await self._lookups.acquire()
        try:
            # Not on a pool: Python would wait for its threads before it ends.
            threading.Thread(target=look_up, name="lyceum-look-up", daemon=True).start()
        except RuntimeError as exc:
            self._lookups.release()
            raise OSError(errno.EAGAIN, "there is no thread to look its name up") from exc
        return await found
