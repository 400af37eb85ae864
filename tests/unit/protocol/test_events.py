"""Events on the wire: those we write, those of others, and unknown ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.protocol.events import (
    Event,
    Finished,
    Output,
    Progress,
    decode,
    encode,
    parse_return_code,
)
from lyceum_magic.protocol.states import State

OUTPUTS = st.builds(
    Output,
    st.text(min_size=1),
    st.sampled_from(["stdout", "stderr"]),
    st.none() | st.floats(0, 1e10),
)
PROGRESSES = st.builds(Progress, st.sampled_from(State), st.text())
ENDS = st.builds(
    Finished,
    st.none() | st.sampled_from([state for state in State if state.is_final]),
    st.none() | st.integers(0, 255),
    st.text(),
    st.booleans(),
)


def wire(**members: object) -> str:
    return json.dumps(members)


def result(**members: object) -> str:
    return wire(jobFinished={"job": {"result": members}})


@given(OUTPUTS | PROGRESSES | ENDS)
def test_what_is_encoded_decodes_to_itself(event: Event) -> None:
    assert decode(encode(event)) == [event]


@given(OUTPUTS | ENDS)
def test_an_event_is_one_ascii_line_without_nulls(event: Event) -> None:
    """The official client splits at Unicode line ends too, and breaks at null members."""
    text = encode(event)
    assert text.isascii()
    assert text.splitlines() == [text]
    assert None not in _values(json.loads(text))


def _values(value: object) -> list[object]:
    if isinstance(value, dict):
        return [inner for member in value.values() for inner in _values(member)]
    return [value]


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (wire(type="output", content="a\n"), Output("a\n")),
        (wire(type="completed", status="completed"), Finished(State.COMPLETED)),
        (
            wire(type="completed", status="timeout", execution_time=2),
            Finished(State.FAILED, None, "the run ended as timeout", timed_out=True),
        ),
        (
            wire(type="completed", status="failed_user"),
            Finished(State.FAILED, None, "the run ended as failed_user"),
        ),
        (wire(type="error", message="no capacity"), Finished(None, None, "no capacity")),
        (wire(type="error"), Finished(None, None, "unknown error")),
    ],
)
def test_legacy_events_are_understood(data: str, event: Event) -> None:
    assert decode(data) == [event]


@pytest.mark.parametrize(
    "data",
    [
        wire(jobFinished=None),
        wire(jobFinished={}),
        wire(jobFinished={"job": None}),
        wire(jobFinished={"job": {"result": None}}),
        result(),
        result(returnCode=None, error=None, status=None),
        result(returnCode=0),
        result(returnCode="0"),
    ],
)
def test_an_end_that_names_neither_error_nor_code_is_a_success(data: str) -> None:
    (event,) = decode(data)
    assert isinstance(event, Finished)
    assert event.final_state is State.COMPLETED


@pytest.mark.parametrize(
    ("data", "state", "code"),
    [
        (result(returnCode=3), State.FAILED, 3),
        (result(returnCode=" 137 "), State.FAILED, 137),
        (result(returnCode="0", error="disk full"), State.FAILED, 0),
        (result(error="node lost", status="system_failure"), State.SYSTEM_FAILURE, None),
        (result(status="aborted"), State.ABORTED, None),
        (result(status="running", returnCode=1), State.FAILED, 1),  # an end that is none
    ],
)
def test_an_end_has_the_state_that_its_members_say(
    data: str, state: State, code: int | None
) -> None:
    (event,) = decode(data)
    assert isinstance(event, Finished)
    assert (event.final_state, event.return_code) == (state, code)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "nonsense",
        "[]",
        "7",
        "null",
        "{",
        '{"output": null}',
        '{"output": "text"}',
        '{"output": {"content": ""}}',
        '{"output": {"content": 7}}',
        '{"progress": {"status": "beyond"}}',
        '{"type": "telemetry"}',
        '{"unknown": 1}',
        "[" * 100_000,
    ],
)
def test_what_nobody_documented_is_left_out(data: str) -> None:
    assert decode(data) == []


def test_a_missing_stream_name_is_stdout_and_a_foreign_one_too() -> None:
    assert decode(wire(output={"content": "a"})) == [Output("a", "stdout")]
    assert decode(wire(output={"content": "a", "stream": "log"})) == [Output("a", "stdout")]
    assert decode(wire(output={"content": "a", "timestamp": "now"})) == [Output("a")]


def test_several_data_lines_of_one_event_are_one_document_or_several() -> None:
    together = json.dumps({"output": {"content": "a"}}, indent=1)
    assert decode(together) == [Output("a")]
    apart = "\n".join([wire(output={"content": "a"}), "junk", result(returnCode=0)])
    assert decode(apart) == [Output("a"), Finished(None, 0)]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0, 0), (-9, -9), ("1", 1), (" 2\n", 2), ("", None), ("x", None),
        (None, None), (True, None), (1.5, None), ([1], None),
    ],
)  # fmt: skip
def test_a_return_code_is_an_integer_or_a_digit_string(value: object, code: int | None) -> None:
    assert parse_return_code(value) == code
