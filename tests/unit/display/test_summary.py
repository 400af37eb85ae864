"""The summary says what happened, and nothing in it can break out of it."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.display.summary import LOOKS, RunFacts, duration, to_html, to_text
from lyceum_magic.protocol.states import State

FACTS = RunFacts("3f2a9c1e-0000-4000", State.COMPLETED, "cpu", is_local=True, elapsed_s=1.2)


def words(html: str) -> str:
    """Return the text without any tag and style."""
    return unescape(re.sub(r"<[^>]*>", "", html))


def test_a_completed_run_is_one_line():
    assert to_text(FACTS) == "lyceum ✓ completed in 1.2 s on cpu (LOCAL) · run 3f2a9c1e"
    assert words(to_html(FACTS)) == "✓ completed LOCAL cpu · 1.2 s · run 3f2a9c1e"


def test_a_failed_run_says_why():
    facts = RunFacts(
        "3f2a9c1e-0000-4000", State.FAILED, "gpu.a100", name="train", detail="out of\nmemory",
        note="ran on the CPU", billed=0.02, is_detached=True, elapsed_s=75, return_code=137,
    )  # fmt: skip
    assert to_text(facts) == (
        "lyceum ✗ failed after 1 min 15 s on gpu.a100 · train · detached · exit code 137"
        " · out of memory · ran on the CPU · billed $0.02 · run 3f2a9c1e"
    )


def test_a_live_run_has_not_ended_in_any_words():
    facts = RunFacts("", State.STARTING, "cpu", detail="installing", elapsed_s=3)
    assert to_text(facts) == "lyceum ◔ starting, 3.0 s so far, on cpu · installing"


@given(text=st.text(max_size=1000))
def test_foreign_text_stays_text_and_stays_on_one_short_line(text):
    facts = RunFacts(text, State.FAILED, text, name=text, detail=text, note=text)
    html = to_html(facts)
    assert set(re.findall(r"<(\w+)", html)) == {"div", "span", "bdi"}
    for line in (to_text(facts), html):
        assert len(line.splitlines()) == 1
        assert len(line) < 12_000


def test_a_terminal_is_not_sent_the_escapes_of_a_server():
    assert "\x1b" not in to_text(RunFacts("", State.FAILED, "cpu", detail="\x1b[2Jgone"))


@pytest.mark.parametrize("state", State)
def test_each_state_has_its_own_words(state):
    assert LOOKS[state].label in to_text(RunFacts("", state, "cpu"))


@pytest.mark.parametrize("state", State)
def test_a_badge_can_be_read(state):
    def luminance(colour: str) -> float:
        parts = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    # WCAG 2.2, 1.4.3: 4.5 : 1 for text of this size.
    assert 1.05 / (luminance(LOOKS[state].colour) + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.04, "0.0 s"),
        (9.96, "9.9 s"),
        (10, "10 s"),
        (59.9, "59 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7384, "2 h 03 min"),
        (400_000, "111 h 06 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("members", "cost"),
    [
        ({"state": State.PENDING, "waited_s": None}, "at most $0.10"),
        ({"state": State.STARTING}, "$0.03 so far, at most $0.10"),
        ({"state": State.RUNNING, "waited_s": 20.5}, "$0.01 so far, at most $0.10"),
        ({"state": State.RUNNING}, "$0.03 so far, at most $0.10"),
        ({"state": State.RUNNING, "timeout_s": 0}, "$0.03 so far"),
        ({"state": State.COMPLETED}, "about $0.03"),
        ({"state": State.COMPLETED, "billed": 0.0312}, "billed $0.03"),
        ({"state": State.FAILED, "billed": 0.0004}, "billed $0.0004"),
        ({"state": State.SYSTEM_FAILURE, "waited_s": None}, ""),
        ({"state": State.ABORTED, "waited_s": None}, ""),
        ({"state": State.RUNNING, "price_per_hour": None}, ""),
        ({"state": State.RUNNING, "price_per_hour": 0.0}, ""),
        ({"state": State.COMPLETED, "price_per_hour": 0.0}, ""),
    ],
)
def test_a_run_says_what_it_may_cost_costs_and_has_cost(members, cost):
    facts = RunFacts(
        "3f2a9c1e", State.PENDING, "gpu.a100", price_per_hour=3.6, timeout_s=95, elapsed_s=31
    )
    facts = replace(facts, **members)
    assert facts.cost == cost
    for shown in (to_text(facts), words(to_html(facts))):
        assert ("$" in shown) == bool(cost)
        assert cost in shown
