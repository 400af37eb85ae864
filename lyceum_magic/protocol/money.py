"""Prices, times and sums -> each other, and words: pure functions. Sums are US dollars."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal

from .limits import MIN_TIMEOUT_S


def cost_of(price_per_hour: float, seconds: float) -> float:
    """Return the cost of a machine of this price for this time."""
    return price_per_hour * max(seconds, 0.0) / 3600


def time_limit(budget: float, price_per_hour: float, timeout_s: int) -> int | None:
    """Return the longest time limit that a budget pays for, in whole seconds, at most `timeout_s`.

    None if it does not pay for the shortest run there is.
    """
    if price_per_hour <= 0:
        return timeout_s
    # Through the shortest decimal forms: 0.1 dollars at 3.6 an hour are 100 s, not 99.
    affordable_s = Decimal(repr(budget)) * 3600 / Decimal(repr(price_per_hour))
    limit_s = min(int(affordable_s), timeout_s)
    return limit_s if limit_s >= MIN_TIMEOUT_S else None


def dollars(amount: float, *, is_ceiling: bool = False) -> str:
    """Return a sum as `$1.50`, `$0.02` or `$0.0003`: cents, and below them one digit.

    `strip.js` words it the same way.

    Args:
        is_ceiling: round up, for a sum that must not be exceeded.
    """
    exact = round(Decimal(repr(float(amount))), 9)
    if 0 < exact < Decimal("0.0001") and not is_ceiling:
        return "under $0.0001"
    digits = 2 if exact >= Decimal("0.01") or not exact else min(4, -exact.adjusted())
    rounding = ROUND_CEILING if is_ceiling else ROUND_HALF_EVEN
    rounded = exact.quantize(Decimal(1).scaleb(-digits), rounding)
    return f"${rounded.quantize(Decimal('0.01')) if rounded >= Decimal('0.01') else rounded:,}"


def estimate(amount: float) -> str:
    """Return a sum as `about $0.02`."""
    text = dollars(amount)
    return text if text.startswith("under") else f"about {text}"


def spent(amount: float, *, is_billed: bool) -> str:
    """Return a sum as `$0.02` if it is billed, else as `about $0.02`."""
    return dollars(amount) if is_billed else estimate(amount)


def per_hour(price_per_hour: float) -> str:
    """Return a price as `$2.99 an hour`."""
    return f"{dollars(price_per_hour)} an hour"
