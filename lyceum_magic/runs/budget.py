"""The price of a machine, and the time limit that a budget pays for."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ..exceptions import OptionError
from ..protocol import money
from ..protocol.limits import MIN_TIMEOUT_S
from .history import History
from .loop import LoopThread

if TYPE_CHECKING:
    from ..client.api import Client
    from ..protocol.requests import Start

StartT = TypeVar("StartT", bound="Start")


class Spending:
    """The money side of the runs of one process."""

    def __init__(self, loop: LoopThread, history: History) -> None:
        self._loop = loop
        self._history = history
        self._has_begun = False

    def has_begun(self) -> bool:
        """Return whether an earlier run of this process was paid for."""
        self._has_begun = self._has_begun or any(
            entry.price_per_hour and entry.run_id is not None for entry in self._history.paid()
        )
        return self._has_begun

    def priced(
        self, client: Client, request: StartT, budget: float | None
    ) -> tuple[StartT, float | None, list[str]]:
        """Return the request with a time limit that its budget pays for.

        Args:
            budget: the most that the run may cost, in dollars; None for no limit.

        Returns:
            The request, the price of its machine in dollars an hour (None: free or unknown), and
            what the reader should know about it.

        Raises:
            OptionError: the budget does not pay for a run, or the price is unknown.
        """
        if client.account.is_embedded:
            return request, None, []
        machine = request.execution_type
        if not client.knows_prices:
            self._loop.ask(client.learn_prices)
        price = client.known_price(machine)
        if price is None and budget is not None:
            self._loop.ask(client.learn_prices)  # the last answer had no price, and now it matters
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
