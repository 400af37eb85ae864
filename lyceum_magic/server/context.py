"""The things that every part of one server shares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from .bell import Bell
from .troubles import Troubles

#: Coroutine function that returns the account's secrets, name -> value.
Secrets = Callable[[], Awaitable[Mapping[str, str]]]


async def no_secrets() -> Mapping[str, str]:
    """Return the secrets of an account without any."""
    return {}


@dataclass(frozen=True)
class Context:
    """Clocks, the account's secrets, and what is going on in the server now.

    Attributes:
        secrets: Returns the account's secrets, name -> value.
        troubles: The work that fails at the moment.
        activity: Rings when a run, a follower or a delivery comes or goes.
        clock: Seconds since 1970. A user may set this clock.
        monotonic: Seconds of a clock that cannot be set.
        pause: Waits for a number of seconds before another attempt.
    """

    secrets: Secrets = no_secrets
    troubles: Troubles = field(default_factory=Troubles)
    activity: Bell = field(default_factory=Bell)
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
