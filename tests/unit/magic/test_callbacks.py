"""`%lyceum callbacks` against a scripted server: what it asks for, and what it says."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lyceum_magic.exceptions import OptionError, RequestRefused, UnknownRun
from lyceum_magic.magic.commands.callbacks import until
from lyceum_magic.magic.commands.doctor import callbacks_left
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.line import run_line
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.callbacks import LEFT_FILE, DeliveriesLeft
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.runs.workspace import workspace
from lyceum_magic.server.state_folder import write_deliveries_left
from tests.tools.wire_server import WireServer, json_answer, record, started

DEFAULTS = Defaults(machine="cpu", timeout_s=600, max_lines=10, max_bytes=1000)
RUN = "0a1b2c3d-0000-4000-8000-000000000000"
ONE, TWO = "msg_11111111aaaaaaaa", "msg_22222222bbbbbbbb"
URL = "https://host/...?token=canary"
SECRET = "whsec_canary-secret-xyz="


def answer(line: str = "") -> object:
    return run_line(f"callbacks {line}", DEFAULTS, lambda name, value: None)


def say(line: str = "") -> str:
    return repr(answer(line))


def cells(table: object) -> list[list[str]]:
    """The lines of a table's text, each cut where its columns are."""
    return [re.split(" {2,}", line) for line in repr(table).splitlines()]


def delivery(delivery_id: str, run_id: str | None = RUN, **members: object) -> dict[str, object]:
    return {
        "delivery_id": delivery_id,
        "execution_id": run_id,
        "url": "https://host/...",
        "state": "delivered",
        "attempts": 1,
        "error": "",
        "created_at": "2026-11-22T08:00:00+00:00",
        "next_attempt_at": None,
        "delivered_at": None,
        **members,
    }


def attempt(**members: object) -> dict[str, object]:
    return {
        "number": 1,
        "started_at": "2026-11-22T08:00:00.123+00:00",
        "address": "203.0.113.5",
        "status_code": 204,
        "error": "",
        "took_ms": 12.4,
        "next_attempt_at": None,
        **members,
    }


def lists(wire: WireServer, *deliveries: dict[str, object]) -> None:
    wire.on("GET", paths.DELIVERIES, json_answer({"deliveries": list(deliveries)}))


FAILED = delivery(TWO, None, state="dead", error="https://host/... was not found.", attempts=11)


def test_all_are_listed_newest_first(wire: WireServer) -> None:
    lists(wire, delivery(ONE), FAILED)
    assert cells(answer()) == [
        ["delivery", "run", "to", "state", "attempts", "reason", "next try"],
        ["msg_11111111", "0a1b2c3d", "https://host/...", "delivered", "1"],
        ["msg_22222222", "a test", "https://host/...", "dead", "11", FAILED["error"]],
    ]
    assert say("list") == say()


def test_none_yet(wire: WireServer) -> None:
    lists(wire)
    assert say().startswith("no callbacks yet; `--callback URL`")


def test_ids_are_shown_as_long_as_it_takes_to_tell_them_apart(wire: WireServer) -> None:
    lists(wire, delivery("msg_0000000000001"), delivery("msg_0000000000002"))
    assert [line.split()[0] for line in say().splitlines()[1:]] == [
        "msg_0000000000001", "msg_0000000000002",
    ]  # fmt: skip


def test_the_next_try_is_said_from_now(wire: WireServer) -> None:
    soon = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat()
    lists(wire, delivery(ONE, state="pending", next_attempt_at=soon))
    assert say().endswith((" in 59 min 59 s", " in 1 h 00 min"))
    assert until("2026-11-22T08:00:00+00:00", 1.8e12) == "now"
    assert until("soon", 0.0) == "soon"
    assert until(None, 0.0) == ""


def test_a_long_list_says_that_there_is_more(wire: WireServer) -> None:
    lists(wire, *(delivery(f"msg_{number:020}") for number in range(100)))
    assert say().splitlines()[-1] == "… and older ones; name a run"


def begin(wire: WireServer) -> None:
    """A run that this workspace knows."""
    for path in paths.STARTS.values():
        wire.on("POST", path, started(wire, RUN))
    wire.on("POST", f"{paths.stream(RUN)}/canary-stream-secret-77aa", json_answer({}))
    wire.on("GET", paths.record(RUN), json_answer(record(RUN)))
    here = workspace()
    here.submit(here.client("cloud"), StartPython(code="1", execution_type="cpu"))


@pytest.mark.parametrize("named", [RUN, "0a1b", "last"])
def test_those_of_a_run(wire: WireServer, named: str) -> None:
    begin(wire)
    lists(wire, delivery(ONE))
    assert "msg_11111111" in say(named)
    (request,) = wire.asked("GET", paths.DELIVERIES)
    assert f"execution_id={RUN}" in request.query
    lists(wire)
    assert say(named) == "this run has no callbacks, or has not ended"


def test_those_of_a_run_that_the_journal_does_not_have(wire: WireServer) -> None:
    lists(wire, delivery(ONE), delivery(TWO, "ffff-2"), delivery("msg_3", "ffff-1"))
    assert say("0a1").splitlines()[1].startswith("msg_11111111")
    with pytest.raises(UnknownRun, match="More than one run begins with 'ffff'"):
        say("ffff")
    with pytest.raises(UnknownRun, match="No run begins with 'eeee'"):
        say("eeee")


@pytest.mark.parametrize("named", [ONE, "msg_1"])
def test_one_is_shown_with_its_attempts(wire: WireServer, named: str) -> None:
    lists(wire, delivery(ONE), FAILED)
    log = [
        attempt(error="https://host/... did not answer in time.", status_code=None,
                next_attempt_at="2026-11-22T08:00:05.9+00:00"),
        attempt(number=2),
    ]  # fmt: skip
    wire.on("GET", paths.delivery(ONE), json_answer({**delivery(ONE), "log": log}))
    shown, at = answer(named), "2026-11-22T08:00:00"
    assert cells(shown) == [
        [f"{ONE} · run 0a1b2c3d · https://host/... · delivered"],
        ["attempt", "at", "address", "answer", "took", "next try"],
        ["1", at, "203.0.113.5", log[0]["error"], "12 ms", "2026-11-22T08:00:05"],
        ["2", at, "203.0.113.5", "took it (204)", "12 ms"],
    ]
    html = shown._repr_html_()  # type: ignore[attr-defined]
    assert f'<caption style="text-align:left"><bdi>{ONE} ·' in html


def test_one_that_was_not_tried_yet(wire: WireServer) -> None:
    waiting = delivery(ONE, None, state="pending")
    lists(wire, waiting)
    wire.on("GET", paths.delivery(ONE), json_answer({**waiting, "log": []}))
    assert say(ONE) == f"{ONE} · a test · https://host/... · pending: not tried yet"


@pytest.mark.parametrize("action", ["", "redeliver", "rm"])
def test_an_id_that_nothing_or_too_much_has(wire: WireServer, action: str) -> None:
    lists(wire, delivery("msg_10"), delivery("msg_11"), delivery("msg_1"))
    with pytest.raises(OptionError, match="More than one delivery begins with 'msg_'"):
        say(f"{action} msg_")
    with pytest.raises(OptionError, match="No delivery begins with 'msg_2'"):
        say(f"{action} msg_2")
    with pytest.raises(UnknownRun):
        say(f"{action} nonsense")
    with pytest.raises(UnknownRun):
        say(f"{action} last")
    with pytest.raises(OptionError, match="`%lyceum callbacks test URL`") as caught:
        say(f"{action} https://host/canary")
    assert "canary" not in str(caught.value)


def test_deliveries_are_looked_for_on_every_page(wire: WireServer) -> None:
    page = [delivery(f"msg_{number:020}") for number in range(1000)]
    last = json_answer({"deliveries": [delivery(ONE)]})
    wire.on("GET", paths.DELIVERIES, json_answer({"deliveries": page}), last)
    wire.on("DELETE", paths.delivery(ONE), json_answer({}))
    say("rm msg_1111")
    queries = [request.query for request in wire.asked("GET", paths.DELIVERIES)]
    assert queries == ["limit=1000&offset=0", "limit=1000&offset=1000"]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            [attempt()],
            "https://host/... took the test callback: it answered 204 (12 ms, 203.0.113.5).",
        ),
        (
            [attempt(error="https://host/... was not found.", address=None)],
            "The test callback was not taken: https://host/... was not found (12 ms).",
        ),
        ([], "https://host/... has not been tried yet; `%lyceum callbacks msg_11111111` shows"),
    ],
)
def test_a_test_says_what_came_of_it(
    wire: WireServer, log: list[dict[str, object]], said: str
) -> None:
    wire.on("POST", paths.TEST_CALLBACK, json_answer({**delivery(ONE, None), "log": log}))
    assert say(f"test {URL}").startswith(said)
    (request,) = wire.asked("POST", paths.TEST_CALLBACK)
    assert request.json == {"url": URL}


def test_a_test_that_is_tried_again_says_when(wire: WireServer) -> None:
    soon = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat()
    waiting = delivery(ONE, None, next_attempt_at=soon)
    log = [attempt(error="no")]
    wire.on("POST", paths.TEST_CALLBACK, json_answer({**waiting, "log": log}))
    assert "It is tried again in 59 min" in say(f"test {URL}")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("''", "is empty"),
        ("nonsense-canary", "begins with https://, and this one does not"),
        ("ftp://host/canary", "this one with ftp://"),
        ("http://example.org/canary", "http://example.org/... is not encrypted"),
        ("https://me:canary@host/x", "cannot hold a user or a password"),
        ("'https://host/ canary'", "holds no space"),
    ],
)
def test_a_url_that_cannot_be_one_is_not_sent_and_not_shown(
    wire: WireServer, url: str, said: str
) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        say(f"test {url}")
    assert "canary" not in str(caught.value)
    assert wire.requests == []


@pytest.mark.parametrize(
    "line",
    ["test https://h/canary https://h?canary", "tset https://h/canary", "secret https://h/canary"],
)
def test_a_mistaken_line_does_not_show_its_url(wire: WireServer, line: str) -> None:
    with pytest.raises(OptionError, match="unrecognized arguments: https://h/") as caught:
        say(line)
    assert "canary" not in str(caught.value)


def test_one_is_sent_again_whatever_its_state(wire: WireServer) -> None:
    lists(wire, delivery(ONE), FAILED)
    wire.on("POST", paths.redeliver(ONE), json_answer(delivery(ONE)))
    assert say("redeliver msg_1") == (
        "The callback to https://host/... is sent again now; `%lyceum callbacks msg_11111111` "
        "shows what comes of it."
    )


def test_of_a_run_only_what_was_not_delivered_is_sent_again(wire: WireServer) -> None:
    three = delivery("msg_3", RUN, state="pending")
    lists(wire, delivery(ONE), {**FAILED, "execution_id": RUN}, three)
    wire.on("POST", paths.redeliver(TWO), json_answer(FAILED))
    wire.on("POST", paths.redeliver("msg_3"), json_answer(three))
    assert say("redeliver 0a1b") == (
        "2 callbacks are sent again now; `%lyceum callbacks 0a1b` shows what comes of it."
    )
    lists(wire, delivery(ONE))
    assert say("redeliver 0a1b").startswith("No callback of this run is left to be sent")
    assert len([r for r in wire.requests if r.method == "POST"]) == 2


def test_one_is_removed(wire: WireServer) -> None:
    pending = delivery("msg_3", state="pending")
    lists(wire, FAILED, pending)
    wire.on("DELETE", paths.delivery(TWO), json_answer({}))
    wire.on("DELETE", paths.delivery("msg_3"), json_answer({}))
    assert say("rm msg_2") == "The callback to https://host/... is removed."
    assert say("rm msg_3") == (
        "The callback to https://host/... is removed: it is tried no more, but a try that is under "
        "way may still arrive."
    )


def test_of_a_run_only_what_was_given_up_is_removed(wire: WireServer) -> None:
    dead = [delivery(known, state="dead") for known in (ONE, TWO)]
    lists(wire, *dead, delivery("msg_3", state="pending"), delivery("msg_4"))
    for known in (ONE, TWO):
        wire.on("DELETE", paths.delivery(known), json_answer({}))
    assert say("rm 0a1b") == "2 callbacks that were given up are removed."
    lists(wire, delivery("msg_4"))
    assert say("rm 0a1b").startswith("No callback of this run was given up")


def test_the_signing_secret_stays_out_of_the_notebook_unless_it_is_asked_for(
    wire: WireServer,
) -> None:
    wire.on("GET", paths.SIGNING_SECRET, json_answer({"secret": SECRET}))
    masked = say("secret")
    assert masked.startswith("whsec_…xyz= signs the callbacks of this account.")
    assert "--show prints it here" in masked
    assert SECRET not in masked
    assert say("secret --show") == f"{SECRET} signs the callbacks of this account."


def test_the_signing_secret_is_changed(wire: WireServer) -> None:
    reply = {"secret": SECRET, "earlier_until": "2026-11-23T08:00:00.5+00:00"}
    wire.on("POST", paths.ROTATE_SIGNING_SECRET, json_answer(reply))
    said = say("secret --rotate")
    assert "The one before it signs beside it until 2026-11-23T08:00:00" in said
    assert SECRET not in said


def test_the_cloud_keeps_no_log(wire: WireServer) -> None:
    for line in ("", "msg_1", f"test {URL}", "secret", "redeliver msg_1", "rm msg_1"):
        with pytest.raises(RequestRefused, match="keeps no log of callbacks") as caught:
            say(line)
        assert "canary" not in str(caught.value)


def test_what_a_server_left_is_counted(tmp_path: Path) -> None:
    def left(pending: int, dead: int) -> str:
        content: DeliveriesLeft = {
            "pending": pending, "failing": 1, "dead": dead, "next_attempt_at": None,
        }  # fmt: skip
        write_deliveries_left(tmp_path, content)
        return callbacks_left(tmp_path)[1]

    assert left(0, 0) == "none waits"
    assert left(1, 0) == "1 callback waits for the next start of the server"
    assert left(3, 2) == "3 callbacks wait for the next start of the server; 2 given up"


def test_what_a_killed_server_left_is_not_known(tmp_path: Path) -> None:
    assert callbacks_left(tmp_path) == ("callbacks", "none waits", "")  # no server so far
    (tmp_path / "server.json").write_text("{}")
    _, found, advice = callbacks_left(tmp_path)
    assert found.startswith("not known")
    assert "run a cell" in advice
    for text in ("{", "[]", '{"pending": null, "failing": 0, "dead": 0, "next_attempt_at": null}'):
        (tmp_path / LEFT_FILE).write_text(text)
        assert callbacks_left(tmp_path)[1] == found
