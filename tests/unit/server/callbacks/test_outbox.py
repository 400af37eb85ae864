"""Which deliveries follow from the end of a run."""

from __future__ import annotations

import pytest

from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server.callbacks.outbox import deliveries_of, endpoint_of, problem_of
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


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://Example.ORG/x", "https://example.org:443"),
        ("HTTPS://example.org:8443?a", "https://example.org:8443"),
        ("http://127.0.0.1/", "http://127.0.0.1:80"),
        ("http://[::1]:81/", "http://[::1]:81"),
    ],
)
def test_an_endpoint_is_scheme_host_and_port(url: str, endpoint: str) -> None:
    assert endpoint_of(url) == endpoint


def test_what_an_earlier_server_accepted_and_nothing_can_be_sent_to_is_said_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    urls = ["https://[canary/", "ftp://canary", "https://a.example/"]
    assert [each.url for each in deliveries_of(RECORD, urls, 0.0)] == urls[2:]
    assert caplog.text.count("run run cannot be used") == 2
    assert "canary" not in caplog.text


def test_a_shared_server_sends_over_https_alone() -> None:
    assert problem_of("http://127.0.0.1/canary", "local") is None
    assert "use https" in (problem_of("http://127.0.0.1/canary", "shared") or "")
    assert "canary" not in (problem_of("http://127.0.0.1/canary", "shared") or "")
    assert problem_of("https://example.org/", "shared") is None
    assert problem_of("ftp://example.org/", "local") is not None
