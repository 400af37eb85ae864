"""The facts that an event takes from a body, and those that it leaves out."""

from __future__ import annotations

import copy
import email
import io
import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from lyceum_magic.callbacks import MAX_BODY_BYTES, CallbackEvent, InvalidCallback, read, read_body
from lyceum_magic.callbacks.events import id_in
from lyceum_magic.protocol.states import State

from .signed import BODY, body


def test_an_event_has_every_member_of_a_body():
    event = read(body(), {"webhook-id": "msg_1", "webhook-timestamp": "1790000000"})
    assert event == CallbackEvent(
        id="msg_1",
        run_id=BODY["execution_id"],
        state=State.FAILED,
        return_code=3,
        error="The program ended with code 3.",
        name="fold 3",
        file_name="train.py",
        labels=("sweep", "nightly"),
        metadata={"fold": "3"},
        machine="gpu.a100",
        created_at=datetime(2026, 9, 21, 9, 33, 20, tzinfo=UTC),
        started_at=datetime(2026, 9, 21, 9, 33, 21, 500_000, tzinfo=UTC),
        finished_at=datetime(2026, 9, 21, 9, 33, 22, tzinfo=UTC),
        sent_at=datetime.fromtimestamp(1_790_000_000, UTC),
        raw=BODY,
    )


def test_an_event_needs_nothing_but_an_object():
    event = read(b'{"hello": ["world"]}')
    assert event.id.startswith("sha256/")
    assert (event.run_id, event.state, event.return_code, event.error) == (None, None, None, "")
    assert (event.labels, event.metadata, event.created_at) == ((), {}, None)
    assert event.raw == {"hello": ["world"]}


@pytest.mark.parametrize(
    ("member", "attribute", "value", "expected"),
    [
        ("status", "state", "failed_system", State.SYSTEM_FAILURE),
        ("status", "state", "exploded", None),
        ("status", "state", 7, None),
        ("return_code", "return_code", "137", 137),
        ("return_code", "return_code", "-1", -1),
        ("return_code", "return_code", 0xC0000005, 0xC0000005),
        ("return_code", "return_code", True, None),
        ("return_code", "return_code", 1.5, None),
        ("return_code", "return_code", 10**20, None),
        ("return_code", "return_code", "٣", None),
        ("error", "error", None, ""),
        ("error", "error", {"detail": "x"}, ""),
        ("run_name", "name", "\ud800!", "?!"),
        ("labels", "labels", ["a", 1, None], ("a",)),
        ("labels", "labels", "abc", ()),
        ("metadata", "metadata", {"a": "b", "c": 1}, {"a": "b"}),
        ("metadata", "metadata", [["a", "b"]], {}),
        (
            "created_at",
            "created_at",
            "2026-09-21T09:33:20",
            datetime(2026, 9, 21, 9, 33, 20, tzinfo=UTC),
        ),
        ("created_at", "created_at", "yesterday", None),
        ("created_at", "created_at", 1790000000, None),
        ("created_at", "created_at", "0001-01-01T00:00:00+10:00", None),
        ("execution_id", "run_id", None, None),
    ],
)
def test_a_member_is_read_as_far_as_it_can_be(member, attribute, value, expected):
    event = read(body(**{member: value}))
    found = getattr(event, attribute)
    assert (found, type(found)) == (expected, type(expected))


def test_one_end_of_a_run_has_one_id_where_the_sender_gives_none():
    first, again = read(body()), read(body(error="told otherwise"))
    assert first.id == again.id
    others = {read(body(status="completed")).id, read(body(execution_id="other")).id}
    assert len({first.id} | others) == 3
    # Nothing of a run: the same text is the same callback.
    assert read(b'{"a":1}').id == read(b'{"a":1}').id != read(b'{"a":2}').id


def test_an_event_travels_between_processes_and_keeps_its_body_out_of_logs():
    event = read(body(note="for one reader alone"))
    assert pickle.loads(pickle.dumps(event)) == copy.deepcopy(event) == event
    assert "for one reader alone" not in repr(event)
    assert json.loads(json.dumps(event.raw)) == event.raw
    with pytest.raises(AttributeError):
        event.run_id = "other"  # type: ignore[misc]


def test_the_receiver_loads_the_standard_library_alone():
    # SQLite's own modules come with the store alone.
    program = """
import sys
from lyceum_magic.callbacks import InvalidCallback, read, verify, verify_shared
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(sorted(foreign - {"__main__", "lyceum_magic"} - before), "sqlite3" in sys.modules)
from lyceum_magic.callbacks import Seen, SqliteSeen
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(sorted(foreign - {"__main__", "lyceum_magic"} - before), "asyncio" in sys.modules)
print(sorted(name for name in sys.modules if name.startswith("lyceum_magic.")))
"""
    # What `site` loads for other packages (.pth files) is none of ours.
    program = "import sys; before = {n.partition('.')[0] for n in sys.modules}\n" + program
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "[] False",
        "[] False",
        str(
            sorted(
                f"lyceum_magic.{name}"
                for name in (
                    "runs",  # its docstring
                    "callbacks", "callbacks.events", "callbacks.seen", "callbacks.verification",
                    "exceptions",
                    "protocol", "protocol.callbacks", "protocol.signatures", "protocol.states",
                )
            )
        ),
    ]  # fmt: skip


def test_an_unknown_name_is_an_attribute_error():
    import lyceum_magic.callbacks

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = lyceum_magic.callbacks.nonsense  # type: ignore[attr-defined]
    assert all(hasattr(lyceum_magic.callbacks, name) for name in lyceum_magic.callbacks.__all__)


class Endless(io.RawIOBase):
    """A stream that goes on as long as it is read."""

    taken = 0

    def read(self, size: int = -1, /) -> bytes:
        assert size >= 0
        self.taken += size
        return b"x" * size


@pytest.mark.parametrize("length", [0, 1, MAX_BODY_BYTES])
@pytest.mark.parametrize("spelling", ["{}", " {} ", "{:05}"])
def test_of_a_body_is_read_what_its_header_announces(length, spelling):
    stream = Endless()
    headers = email.message_from_string(f"Content-Length: {spelling.format(length)}\n\n")
    assert read_body(headers, stream) == b"x" * length
    assert stream.taken == length


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Transfer-Encoding": "chunked"},
        *(
            {"Content-Length": announced}
            for announced in (
                "", "-1", "+1", "1.0", "1e3", "0x10", "1_0", "1 0", "1, 1", "²", "٣", "many",
                str(MAX_BODY_BYTES + 1), "00000000050000000", "0" * 5000, "9" * 5000,
            )
        ),
    ],
    ids=lambda headers: str(headers)[:45],
)  # fmt: skip
def test_nothing_is_read_of_a_body_without_a_small_plain_length(headers):
    stream = Endless()
    with pytest.raises(InvalidCallback, match="content-length"):
        read_body(headers, stream)
    assert stream.taken == 0


def test_a_doubled_length_and_a_body_that_broke_off_are_no_callback():
    doubled = email.message_from_string("Content-Length: 2\nContent-Length: 2\n\n")
    with pytest.raises(InvalidCallback, match="several"):
        read_body(doubled, Endless())
    with pytest.raises(InvalidCallback, match="broke off"):
        read_body({"Content-Length": "3"}, io.BytesIO(b"xx"))


@pytest.mark.parametrize(("state", "is_hashed"), [("x" * 127, False), ("x" * 128, True)])
def test_an_id_that_is_made_here_is_one_that_a_header_could_say(state, is_hashed):
    made = read(json.dumps({"execution_id": "r" * 128, "status": state}).encode()).id
    assert made.startswith("sha256/") == is_hashed
    assert id_in({"webhook-id": made}) == made
