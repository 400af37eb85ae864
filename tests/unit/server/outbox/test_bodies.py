"""The content of a callback, and its limit of size."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.callbacks import read
from lyceum_magic.protocol.callbacks import MAX_BODY_BYTES
from lyceum_magic.protocol.requests import Start, StartCompose, StartImage, StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server.outbox.bodies import body_of, body_of_test
from lyceum_magic.server.stores.base import RunRecord


def record(request: Start, **members: object) -> RunRecord:
    known = {"state": State.COMPLETED, "return_code": 0, "started_at": 1.5, "finished_at": 2.0}
    return RunRecord("run", request, 1.0, **{**known, **members})  # type: ignore[arg-type]


def test_it_says_how_the_run_ended_and_what_it_was() -> None:
    request = StartPython(
        code="canary", execution_type="cpu", file_name="a.py", run_name="ä", labels=["l"],
        metadata={"k": "v"}, user_callback_urls=["https://example.org/canary"],
    )  # fmt: skip
    body = body_of(record(request, state=State.FAILED, return_code=3, error="it\nfailed"))
    assert b"canary" not in body
    assert b'"run_name":"\xc3\xa4"' in body  # compact, and UTF-8
    assert json.loads(body) == {
        "schema": 1, "execution_id": "run", "status": "failed", "return_code": 3,
        "error": "it failed", "file_name": "a.py", "run_name": "ä", "labels": ["l"],
        "metadata": {"k": "v"}, "execution_type": "cpu",
        "created_at": "1970-01-01T00:00:01+00:00",
        "started_at": "1970-01-01T00:00:01.500000+00:00",
        "finished_at": "1970-01-01T00:00:02+00:00",
    }  # fmt: skip


@pytest.mark.parametrize(
    "request_",
    [
        StartPython(code="canary", kernel_state="canary", import_files='{"a": "canary"}'),
        StartImage(docker_image_ref="x", docker_run_env="A=canary", docker_password="canary"),
        StartCompose(compose_file_code="canary", aws_secret_access_key="canary"),
    ],
)
def test_it_tells_nothing_of_what_runs_or_lets_in(request_: Start) -> None:
    assert b"canary" not in body_of(record(request_))


long = st.text(max_size=40).flatmap(lambda t: st.sampled_from([t, t * 100, t * 20_000]))


@given(
    names=st.lists(long, min_size=2, max_size=2),
    labels=st.lists(long, max_size=64),
    metadata=st.dictionaries(long, long, max_size=64),
    error=long,
)
def test_it_is_never_too_large(
    names: list[str], labels: list[str], metadata: dict[str, str], error: str
) -> None:
    request = StartPython(
        code="", run_name=names[0], file_name=names[1], labels=labels, metadata=metadata
    )
    body = body_of(record(request, error=error))
    assert len(body) <= MAX_BODY_BYTES
    event = read(body)
    assert event.run_id == "run"
    assert len(event.labels) == len(labels)


def test_what_is_largest_in_every_field_still_fits() -> None:
    wide = "\x00" * 100_000  # six bytes each in JSON
    request = StartPython(
        code="", run_name=wide, file_name=wide, labels=[wide] * 64,
        metadata={f"{number:02}{wide}": wide for number in range(64)},
    )  # fmt: skip
    assert len(body_of(record(request, error="x" * 100_000))) <= MAX_BODY_BYTES


def test_only_what_is_too_long_is_cut_and_says_so() -> None:
    request = StartPython(code="", run_name="short", metadata={"id": "7", "note": "n" * 100_000})
    event = json.loads(body_of(record(request)))
    assert event["run_name"] == "short"
    assert event["metadata"] == {"id": "7", "note": "n" * 4095 + "…"}


def test_a_test_reads_as_a_run_that_completed() -> None:
    event = read(body_of_test(7.0))
    assert event.state is State.COMPLETED
    assert event.metadata == {"lyceum_magic_test": "true"}
    assert read(body_of_test(7.0)).run_id != event.run_id
