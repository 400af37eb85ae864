"""The deliveries that follow from the end of a run."""

from __future__ import annotations

import pytest

from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server.outbox.planning import deliveries_of
from lyceum_magic.server.stores.base import RunRecord

RECORD = RunRecord("run", StartPython(code=""), 1.0, State.COMPLETED, finished_at=2.0)


def test_there_is_one_for_each_distinct_url_due_at_once() -> None:
    urls = ["https://a.example/1", "https://a.example/2", "https://a.example/1"]
    first, second = deliveries_of(RECORD, urls, 5.0)
    assert [first.url, second.url] == urls[:2]
    assert first.body == second.body
    assert first.run_id == "run"
    assert (first.next_at, first.planned_at, first.created_at) == (5.0, 5.0, 5.0)
    assert first.shown_url == "https://a.example/..."


def test_no_two_have_the_same_id() -> None:
    ids = {deliveries_of(RECORD, ["https://a.example/"], 0.0)[0].delivery_id for _ in range(50)}
    assert len(ids) == 50
    assert all(len(each) == 36 and each.startswith("msg_") for each in ids)


def test_what_is_for_the_same_receiver_has_the_same_endpoint() -> None:
    one, other = "https://[2606:4700:0:0::1]:443/a", "https://[2606:4700::1]/b"
    first, second = deliveries_of(RECORD, [one, other], 0.0)
    assert first.endpoint == second.endpoint == "https://[2606:4700::1]:443"


def test_what_an_earlier_server_accepted_and_nothing_can_be_sent_to_is_said_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    urls = ["https://[canary/", "ftp://canary", "https://a.example/"]
    assert [each.url for each in deliveries_of(RECORD, urls, 0.0)] == urls[2:]
    assert caplog.text.count("run run cannot be used") == 2
    assert "canary" not in caplog.text
