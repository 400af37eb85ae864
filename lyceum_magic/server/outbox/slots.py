"""The number of attempts that each endpoint may have at a time."""

from __future__ import annotations

from collections.abc import Iterable

#: Attempts at a time to an endpoint whose last attempt succeeded or failed within `QUICK_S`, and so
#: holds no slot for long; and to any other endpoint.
SLOTS, SLOTS_UNTRIED = 4, 1
QUICK_S = 1.0
#: Attempts at a time to all endpoints. A hung receiver holds its slot until its attempt times out;
#: with 64 slots, 50 hung and 50 slow receivers would make all others wait.
ALL_SLOTS = 256
#: The pause before another look at an endpoint that has only attempts under way.
RECHECK_S = 1.0

_MANY = 1000


class EndpointSlots:
    """The slots of one endpoint.

    Attributes:
        under_way: Ids of deliveries that are being sent, or whose result is still to be written.
        left_out: Ids of deliveries whose results cannot be written; this process sends them no
            more.
        is_well: Whether the last attempt succeeded, or failed within `QUICK_S`.
        drained_at: When nothing was due except deliveries under way, in monotonic seconds; None if
            something may have come since.
    """

    def __init__(self) -> None:
        self.under_way: set[str] = set()
        self.left_out: set[str] = set()
        self.is_well = False
        self.drained_at: float | None = None

    @property
    def free(self) -> int:
        """The number of further attempts that may begin; below 0 if a failure took slots away."""
        return (SLOTS if self.is_well else SLOTS_UNTRIED) - len(self.under_way)

    def is_drained(self, now: float) -> bool:
        """Return whether the endpoint can be left out of the next look.

        Without this, slow receivers whose only deliveries are under way would be asked about each
        time another endpoint gets a delivery.
        """
        return self.drained_at is not None and now - self.drained_at < RECHECK_S


class Slots:
    """The slots of all endpoints."""

    def __init__(self) -> None:
        self._by_endpoint: dict[str, EndpointSlots] = {}
        self._under_way = 0

    def of(self, endpoint: str) -> EndpointSlots:
        if endpoint not in self._by_endpoint and len(self._by_endpoint) >= _MANY:
            busy = {
                name: each
                for name, each in self._by_endpoint.items()
                if each.under_way or each.left_out
            }
            self._by_endpoint = busy
        return self._by_endpoint.setdefault(endpoint, EndpointSlots())

    @property
    def under_way(self) -> int:
        """The number of attempts that hold a slot, at all endpoints together."""
        return self._under_way

    def free(self, endpoint: str) -> int:
        """Return the number of further attempts that may begin at an endpoint now."""
        return min(self.of(endpoint).free, ALL_SLOTS - self._under_way)

    def take(self, endpoint: str, delivery_id: str) -> None:
        """Take a slot for a delivery."""
        self.of(endpoint).under_way.add(delivery_id)
        self._under_way += 1

    def release(self, endpoint: str, delivery_id: str) -> None:
        """Give a slot back; the delivery in the store counts again."""
        slots = self.of(endpoint)
        slots.under_way.remove(delivery_id)
        slots.drained_at = None
        self._under_way -= 1

    def leave_out(self, endpoint: str, delivery_id: str) -> None:
        """Give back the slot of a delivery that is still due in the store, but must not be sent."""
        self.of(endpoint).left_out.add(delivery_id)
        self.release(endpoint, delivery_id)

    def wake(self, endpoints: Iterable[str] | None) -> None:
        """Note that something may be due at these endpoints, or at any."""
        for endpoint in self._by_endpoint if endpoints is None else endpoints:
            self.of(endpoint).drained_at = None
