"""Following a run's stream: whatever happens to the connection, each text comes once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lyceum_magic.client import stream as stream_module
from lyceum_magic.client.api import Client
from lyceum_magic.config import Account
from lyceum_magic.exceptions import (
    EmbeddedServerError,
    NotAuthorised,
    ProtocolError,
    RunLost,
    ServerUnreachable,
)
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output, Progress
from lyceum_magic.protocol.states import State
from tests.tools.wire_server import (
    KEY,
    STREAM_SECRET,
    Reply,
    Request,
    WireServer,
    answer,
    frame,
    hang_up,
    html,
    json_answer,
    not_found,
    record,
    refusal,
    resumable,
    stream,
)
from tests.unit.client.following import Heard, heard

pytestmark = pytest.mark.anyio

PATH = paths.stream("run")
END = Finished(State.COMPLETED, 0)
#: Raw UTF-8, which our own server never sends, and a stream of several events.
EVENTS = [
    ("8", 'id: 8\ndata: {"output": {"content": "grüße\\n"}}\n\n'.encode()),
    ("12", b'id: 12\ndata: {"output": {"content": "b\\n", "stream": "stderr"}}\n\n'),
    ("30", b': alive\n\nid: 30\r\ndata: {\rdata: "output": {"content": "c\\u2028"}}\r\n\r\n'),
    ("", b'data: {"jobFinished": {"job": {"result": {"returnCode": "0"}}}}\n\n'),
]
WHOLE = b"".join(data for _, data in EVENTS)
TEXT = "grüße\nb\nc\u2028"


def without_ids(events: Sequence[Output | Finished]) -> list[bytes]:
    return [frame(event) for event in events]


# One connection.


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
async def test_each_event_comes_once_with_its_id(
    wire: WireServer, client: Client, line_end: str
) -> None:
    events = [
        frame(Progress(State.PENDING, "2 runs ahead"), line_end=line_end),
        frame(Output("a\n"), "4", line_end=line_end),
        frame(Output("e\n", "stderr"), "8", line_end=line_end),
        frame(END, line_end=line_end),
    ]
    wire.on("POST", PATH, stream(*events))
    got = await heard(client)
    assert got.items == [
        Progress(State.PENDING, "2 runs ahead"),
        Output("a\n"),
        Output("e\n", "stderr"),
        END,
    ]
    assert got.ids == [None, "4", "8", None]


async def test_a_chunk_border_at_any_byte_changes_nothing(wire: WireServer, client: Client) -> None:
    wire.on("POST", PATH, stream(*(WHOLE[i : i + 1] for i in range(len(WHOLE)))))
    assert (await heard(client)).text == TEXT
    for cut in range(1, len(WHOLE)):
        wire.on("POST", PATH, stream(WHOLE[:cut], WHOLE[cut:]))
        assert (await heard(client)).text == TEXT, cut


async def test_comments_foreign_events_and_junk_are_passed_over(
    wire: WireServer, client: Client
) -> None:
    junk = b': ping\n\nretry: 1\n\nevent: metric\ndata: {"cpu": 1}\n\ndata: nonsense\n\ndata\n\n'
    wire.on("POST", PATH, stream(junk, frame(Output("a")), junk, frame(END)))
    assert (await heard(client)).items == [Output("a"), END]


async def test_nothing_behind_the_end_is_read(wire: WireServer, client: Client) -> None:
    wire.on("POST", PATH, stream(frame(END), frame(Output("late")), frame(END)))
    assert (await heard(client)).items == [END]


async def test_an_end_without_the_last_blank_line_is_lost_and_asked_for_again(
    wire: WireServer, client: Client
) -> None:
    """The specification drops an event that the stream's end interrupts."""
    wire.on("POST", PATH, stream(frame(END)[:-1]), stream(frame(END)))
    assert (await heard(client)).items == [END]


# Dropped connections, with event ids.


async def test_a_stream_cut_anywhere_goes_on_behind_the_last_event(
    wire: WireServer, client: Client
) -> None:
    async def cut_at(cut: int) -> Heard:
        wire.on("POST", paths.stream(f"run-{cut}"), resumable(EVENTS, cut))
        return await heard(client, f"run-{cut}")

    # A cut before the first id makes a blind reopening; none of its text came twice.
    for end in await asyncio.gather(*(cut_at(cut) for cut in range(len(WHOLE)))):
        assert end.text == TEXT
        assert end.ids.count("12") == 1


async def test_a_stream_that_breaks_again_and_again_is_put_together(
    wire: WireServer, client: Client
) -> None:
    cuts = [len(EVENTS[0][1]), 0, 3, len(EVENTS[1][1]), 0, 1]
    wire.on("POST", PATH, resumable(EVENTS, *cuts))
    got = await heard(client)
    assert got.text == TEXT
    sent = [r.headers.get("last-event-id") for r in wire.asked("POST", PATH)]
    assert sent == [None, "8", "8", "8", "12", "12", "12"]


async def test_a_follower_goes_on_where_an_earlier_one_had_got_to(
    wire: WireServer, client: Client
) -> None:
    wire.on("POST", PATH, resumable(EVENTS))
    assert (await heard(client, last_event_id="12")).text == "c\u2028"


@pytest.mark.parametrize("printed", ["b\nc\n", "", "a\nb\nc\n"])
async def test_a_server_that_does_not_know_the_event_any_more_is_asked_for_the_end(
    wire: WireServer, client: Client, printed: str
) -> None:
    end = record(status="failed", stdout=printed, return_code=3)
    wire.on("POST", PATH, refusal(400, "no event of this run has that id"))
    wire.on("GET", paths.record("run"), json_answer(end))
    wire.on("GET", paths.logs("run"), json_answer({"logs": []}))
    got = await heard(client, last_event_id="12")
    assert isinstance(got.items[-1], Finished)
    assert got.items[-1].return_code == 3


async def test_a_server_that_is_away_for_a_while_is_waited_for(
    wire: WireServer, client: Client
) -> None:
    wire.on("POST", PATH, resumable(EVENTS, len(EVENTS[0][1])), hang_up, refusal(503),
            refusal(429, retry_after="0"), resumable(EVENTS))  # fmt: skip
    got = await heard(client)
    assert got.text == TEXT
    assert got.has_recovered
    assert any("connection is lost" in notice for notice in got.notices)


async def test_a_connection_that_stays_broken_is_given_up_after_the_runs_time_limit(
    wire: WireServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "PATIENCE_S", 0.0)
    wire.on("POST", PATH, hang_up)
    with pytest.raises(ServerUnreachable, match="%lyceum attach run"):
        await heard(client, timeout_s=0.05)


async def test_a_resumed_follower_never_repeats_what_it_cannot_compare(
    wire: WireServer, client: Client
) -> None:
    wire.on("GET", paths.record("run"), json_answer(record(combined_output="before")))
    got = await heard(client, last_event_id="12")
    assert got.text == ""
    assert "some of the output may be missing" in got.notices


# Dropped connections, without event ids.

LINES = [Output("one\n"), Output("zwö\n"), Output("one\n"), Output("four\n")]
PRINTED = "".join(line.text for line in LINES)


async def test_a_replay_after_a_cut_is_recognised_and_skipped(
    wire: WireServer, client: Client
) -> None:
    whole = b"".join(without_ids([*LINES, END]))

    async def cut_at(cut: int) -> Heard:
        run = f"run-{cut}"
        replay = without_ids([Output(PRINTED[:3]), Output(PRINTED[3:]), END])
        wire.on("POST", paths.stream(run), stream(whole[:cut], cut=True), stream(*replay))
        wire.on("GET", paths.record(run), json_answer(record(run, combined_output=PRINTED)))
        return await heard(client, run)

    for got in await asyncio.gather(*(cut_at(cut) for cut in range(0, len(whole), 3))):
        assert got.text == PRINTED
        assert got.end.final_state is State.COMPLETED


@pytest.mark.parametrize("number", range(1, len(LINES) + 1))
async def test_a_continuation_after_a_cut_is_recognised(
    wire: WireServer, client: Client, number: int
) -> None:
    before, after = LINES[:number], LINES[number:]
    wire.on("POST", PATH, stream(*without_ids(before), cut=True),
            stream(*without_ids([*after, END])))  # fmt: skip
    wire.on("GET", paths.record("run"), json_answer(record(combined_output=PRINTED)))
    assert (await heard(client)).text == PRINTED


async def test_after_one_reopening_the_record_has_to_do(wire: WireServer, client: Client) -> None:
    cut = stream(*without_ids(LINES[:2]), cut=True)
    wire.on("POST", PATH, cut)
    wire.on(
        "GET",
        paths.record("run"),
        json_answer(record(status="running")),
        json_answer(record(status="failed", return_code="3", combined_output=PRINTED)),
    )
    got = await heard(client)
    assert got.text == PRINTED
    assert (got.end.final_state, got.end.return_code) == (State.FAILED, 3)
    assert len(wire.asked("POST", PATH)) == 2


@pytest.mark.parametrize("number", range(1, len(LINES) + 1))
async def test_a_later_follower_repeats_nothing_of_an_earlier_one(
    wire: WireServer, client: Client, number: int
) -> None:
    wire.on("POST", PATH, stream(*without_ids([*LINES, END])))
    wire.on("GET", paths.record("run"), json_answer(record(combined_output=PRINTED)))
    before = [line.text for line in LINES[:number]]
    got = await heard(client, delivered=before)
    assert "".join(before) + got.text == PRINTED


async def test_an_output_that_does_not_fit_is_said_to_be_incomplete(
    wire: WireServer, client: Client
) -> None:
    wire.on("POST", PATH, stream(*without_ids(LINES[:2]), cut=True))
    wire.on("GET", paths.record("run"), json_answer(record(combined_output="something else")))
    got = await heard(client)
    assert got.text == "one\nzwö\n"
    assert "some of the output may be missing" in got.notices


# No stream.


async def test_a_streaming_url_that_is_gone_falls_back_to_the_path_by_id(
    wire: WireServer, client: Client
) -> None:
    wire.on("POST", PATH, stream(frame(Output("a")), frame(END)))
    got = await heard(client, streaming_url=f"{wire.base_url}/gone/{STREAM_SECRET}")
    assert got.text == "a"
    assert not got.notices


@pytest.mark.parametrize("refused", [not_found, refusal(410), refusal(409)])
async def test_a_run_without_any_stream_is_read_from_its_record(
    wire: WireServer, client: Client, refused: Reply
) -> None:
    wire.on("POST", PATH, refused)
    wire.on("GET", paths.record("run"), json_answer(record(stdout="a\n", stderr="b\n")))
    got = await heard(client, streaming_url=f"{wire.base_url}/gone")
    assert (got.text, got.end.final_state) == ("a\nb\n", State.COMPLETED)


async def test_a_record_without_output_is_completed_from_the_logs(
    wire: WireServer, client: Client
) -> None:
    wire.on("GET", paths.record("run"), json_answer(record()))
    logs = {"logs": [{"message": "a"}, {"message": "b"}], "total": 2}
    wire.on("GET", paths.logs("run"), json_answer(logs))
    assert (await heard(client)).text == "a\nb\n"


@pytest.mark.parametrize(
    ("members", "state", "timed_out"),
    [
        ({"status": "timeout"}, State.FAILED, True),
        ({"status": "failed", "status_details": "timeout"}, State.FAILED, True),
        ({"status": "failed_system", "system_errors": ["node lost"]}, State.SYSTEM_FAILURE, False),
        ({"status": "cancelled", "return_code": None}, State.CANCELLED, False),
        ({"status": "failed", "return_code": "1", "system_errors": None}, State.FAILED, False),
    ],
)
async def test_the_records_end_is_told_as_the_streams_would_be(
    wire: WireServer, client: Client, members: dict[str, str], state: State, timed_out: bool
) -> None:
    wire.on("GET", paths.record("run"), json_answer({**record(stdout="a"), **members}))
    got = await heard(client)
    assert (got.end.final_state, got.end.timed_out) == (state, timed_out)


async def test_a_record_that_cannot_be_read_leaves_the_legacy_status(
    wire: WireServer, client: Client
) -> None:
    wire.on("GET", paths.record("run"), refusal(500))
    status = {"status": "failed_user", "errors": "exit code 1"}
    wire.on("GET", paths.legacy_status("run"), json_answer(status))
    wire.on("GET", paths.logs("run"), json_answer({"logs": []}))
    got = await heard(client)
    assert got.end == Finished(State.FAILED, None, "exit code 1")


async def test_a_run_that_nobody_knows_any_more_is_lost(client: Client) -> None:
    with pytest.raises(RunLost, match="does not know run run any more"):
        await heard(client)


# Silence.


async def test_a_silent_stream_of_a_run_that_is_over_is_left_for_its_record(
    wire: WireServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "IDLE_S", 0.05)
    wire.on("POST", PATH, stream(b": alive\n\n", hold=asyncio.Event()))
    wire.on("GET", paths.record("run"), json_answer(record(stdout="a\n")))
    got = await heard(client)
    assert (got.text, got.end.final_state) == ("a\n", State.COMPLETED)


@pytest.mark.parametrize("event_id", [None, "4"])
async def test_a_silent_stream_of_a_live_run_is_no_broken_connection(
    wire: WireServer, client: Client, monkeypatch: pytest.MonkeyPatch, event_id: str | None
) -> None:
    """A long training step, or a long queue, says nothing for an hour and is well."""
    monkeypatch.setattr(stream_module, "IDLE_S", 0.05)
    monkeypatch.setattr(stream_module, "PATIENCE_S", 0.0)
    speak = asyncio.Event()
    wire.on("POST", PATH, stream(frame(Output("a"), event_id), hold=speak), stream(hold=speak))
    running = json_answer(record(status="running", stdout="a"))

    async def speak_at_last(request: Request, writer: asyncio.StreamWriter) -> None:
        wire.on("POST", PATH, stream(frame(END)))
        speak.set()
        await running(request, writer)

    wire.on("GET", paths.record("run"), *[running] * 4, speak_at_last, running)
    got = await heard(client, timeout_s=0.01)
    assert (got.text, got.end) == ("a", END)
    assert not got.notices


# Who is told the key.


async def test_the_key_goes_to_a_stream_of_the_apis_own_origin(
    wire: WireServer, client: Client
) -> None:
    wire.on("POST", f"/s/{STREAM_SECRET}", stream(frame(END)))
    await heard(client, streaming_url=f"{wire.base_url}/s/{STREAM_SECRET}")
    (request,) = wire.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept"] == "text/event-stream"
    assert request.body == b""


async def test_a_stream_elsewhere_is_told_neither_key_nor_organisation(
    wire: WireServer, foreign_wire: WireServer, client: Client
) -> None:
    foreign_wire.on("POST", "/s", stream(frame(Output("a"), "1"), cut=True), stream(frame(END)))
    got = await heard(client, streaming_url=f"{foreign_wire.base_url}/s")
    assert got.text == "a"
    assert len(foreign_wire.requests) == 2
    for request in foreign_wire.requests:
        assert not {"authorization", "x-org-slug", "cookie"} & request.headers.keys()
    assert not wire.requests


async def test_a_redirect_of_a_stream_is_not_followed(
    wire: WireServer, foreign_wire: WireServer, client: Client
) -> None:
    wire.on("POST", PATH, answer(status=307, location=f"{foreign_wire.base_url}/s"))
    with pytest.raises(ProtocolError):
        await heard(client)
    assert not foreign_wire.requests


# Answers that are no stream.


async def test_an_html_page_in_place_of_a_stream_is_not_lyceum(
    wire: WireServer, client: Client
) -> None:
    wire.on("POST", PATH, html)
    with pytest.raises(ProtocolError, match="answered 200 with text/html"):
        await heard(client)


async def test_a_key_that_opens_neither_stream_nor_record_is_refused(
    wire: WireServer, client: Client
) -> None:
    wire.on("POST", PATH, refusal(401))
    wire.on("GET", paths.record("run"), refusal(401))
    wire.on("GET", paths.legacy_status("run"), refusal(401))
    with pytest.raises(NotAuthorised):
        await heard(client)


# Where the embedded server moved to.


@pytest.mark.parametrize("deaths", [1, 3])
async def test_a_server_that_dies_while_it_starts_is_started_again(
    wire: WireServer, deaths: int
) -> None:
    starts = 0

    async def relocate() -> Account:
        nonlocal starts
        starts += 1
        if starts <= deaths:
            raise EmbeddedServerError("it started and cannot be reached")
        return wire.account(is_embedded=True)

    wire.on("POST", PATH, resumable(EVENTS, len(EVENTS[0][1])))
    async with Client(wire.account(is_embedded=True), relocate=relocate) as client:
        assert (await heard(client)).text == TEXT


async def test_a_server_that_never_starts_is_given_up(wire: WireServer) -> None:
    async def relocate() -> Account:
        raise EmbeddedServerError("it did not start")

    wire.on("POST", PATH, hang_up)
    async with Client(wire.account(is_embedded=True), relocate=relocate) as client:
        with pytest.raises(EmbeddedServerError, match="did not start"):
            await heard(client)
