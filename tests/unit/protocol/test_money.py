"""Sums are worded with sensible digits, and a budget is never exceeded."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.protocol.money import cost_of, dollars, per_hour, spent, time_limit

PRICES = st.floats(min_value=1e-6, max_value=1000)


@pytest.mark.parametrize(
    ("amount", "text", "ceiling"),
    [
        (0, "$0.00", "$0.00"),
        (0.00003, "under $0.0001", "$0.0001"),
        (0.0003, "$0.0003", "$0.0003"),
        (0.00031, "$0.0003", "$0.0004"),
        (0.0096, "$0.01", "$0.01"),
        (0.0091, "$0.009", "$0.01"),
        (0.02, "$0.02", "$0.02"),
        (0.0201, "$0.02", "$0.03"),
        (0.07, "$0.07", "$0.07"),
        (1.5, "$1.50", "$1.50"),
        (2, "$2.00", "$2.00"),
        (1234.5, "$1,234.50", "$1,234.50"),
        (0.1 + 0.2, "$0.30", "$0.30"),
    ],
)
def test_sums_in_words(amount: float, text: str, ceiling: str) -> None:
    assert dollars(amount) == text
    assert dollars(amount, is_ceiling=True) == ceiling


@given(amount=st.floats(min_value=0, max_value=1e6))
def test_a_ceiling_is_never_below_the_sum(amount: float) -> None:
    text = dollars(amount, is_ceiling=True)
    assert re.fullmatch(r"\$[\d,]+\.\d{2,4}", text)
    assert float(text[1:].replace(",", "")) >= amount - 1e-9


@pytest.mark.parametrize(
    ("budget", "price", "asked_s", "limit_s"),
    [
        (0.5, 3.6, 600, 500),
        (0.1, 3.6, 600, 100),
        (0.07, 3.6, 600, 70),
        (5, 3.6, 600, 600),
        (0.5, 3.6, 60, 60),
        (0.001, 3.6, 600, 1),
        (0.0009, 3.6, 600, None),
        (1e-9, 0, 600, 600),
        (1e12, 1e-9, 600, 600),
    ],
)
def test_a_budget_limits_the_time(
    budget: float, price: float, asked_s: int, limit_s: int | None
) -> None:
    assert time_limit(budget, price, asked_s) == limit_s


@given(budget=st.floats(min_value=1e-6, max_value=1000), price=PRICES)
def test_a_budget_is_never_exceeded_nor_wasted(budget: float, price: float) -> None:
    limit_s = time_limit(budget, price, 600)
    assert cost_of(price, limit_s or 0) <= budget * (1 + 1e-9)
    if limit_s != 600:
        assert cost_of(price, (limit_s or 0) + 1) > budget * (1 - 1e-9)


def test_what_was_billed_is_no_estimate() -> None:
    assert spent(0.02, is_billed=True) == "$0.02"
    assert spent(0.02, is_billed=False) == "about $0.02"


def test_a_price_in_words() -> None:
    assert per_hour(2.99) == "$2.99 an hour"
