"""The answers of each endpoint: shapes, exact codes, and a readable reason for every refusal."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic import __version__
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.proof import proof
from lyceum_magic.server.gpus import NO_GPU
from lyceum_magic.server.machines import MACHINES
from lyceum_magic.server.runners.base import EndReason

from .fake_runner import FakeHandle
from .serving import KEY, Served, read_stream, serving

pytestmark = pytest.mark.anyio


async def play(
    served: Served,
    *pieces: tuple[str, bytes],
    return_code: int | None = 0,
    reason: EndReason = "exited",
    **fields: Any,
) -> str:
    """Return the id of a run that is over, with this output."""
    started = await served.start(**fields)
    handle: FakeHandle = await served.runner.next_run()
    handle.begin()
    for stream, data in pieces:
        handle.write(data, "stderr" if stream == "stderr" else "stdout")
    handle.end(return_code, reason=reason)
    await read_stream(served.client, started["streaming_url"])
    return str(started["execution_id"])


async def test_a_start_answers_with_an_id_pending_and_an_absolute_url(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        one, two = await served.start(), await served.start()
    assert set(one) == {"execution_id", "status", "streaming_url"}
    assert uuid.UUID(one["execution_id"]) != uuid.UUID(two["execution_id"])
    assert one["status"] == "pending"
    prefix = f"{served.base_url}{paths.stream(one['execution_id'])}/"
    secret = one["streaming_url"].removeprefix(prefix)
    assert len(secret) >= 43
    assert secret not in two["streaming_url"]


async def test_the_secret_of_one_run_does_not_open_another(tmp_path: Path) -> None:
    async with serving(tmp_path, profile="shared") as served:
        one, two = await served.start(), await served.start()
        secret = one["streaming_url"].rpartition("/")[2]
        wrong = f"{paths.stream(two['execution_id'])}/{secret}"
        reply = await served.client.post(wrong)
    assert reply.status_code == 404


BAD_BODIES: list[tuple[Any, int, str]] = [
    (b"{", 422, "JSON"),
    (b"[]", 422, "dict"),
    (b"null", 422, ""),
    ({}, 422, "required"),
    ({"code": 1}, 422, "string"),
    ({"code": "", "timeout": 0}, 422, "greater"),
    ({"code": "", "timeout": 601}, 422, "less"),
    ({"code": "", "timeout": "soon"}, 422, "integer"),
    ({"code": "", "timeout": 1e400}, 422, "finite"),
    ({"code": "", "execution_type": "gpu-a100"}, 422, "pattern"),
    ({"code": "", "execution_type": "tpu"}, 400, "gpu.l40s"),
    ({"code": "", "import_files": "{"}, 422, "import_files"),
    ({"code": "", "import_files": '{"../x": ""}'}, 422, "relative"),
    ({"code": "", "prior_imports": ["1 + 1"]}, 422, "prior_imports"),
    ({"code": "", "prior_imports": ["\ud800"]}, 422, "prior_imports"),
    ({"code": "", "labels": ["x"] * 65}, 422, "64"),
    ({"code": "", "metadata": {str(n): "" for n in range(65)}}, 422, "64"),
    ({"code": "", "metadata": {"k": 1}}, 422, "string"),
    ({"code": "", "user_callback_urls": "https://example.org"}, 422, "list"),
    ({"code": "\ud800"}, 422, "unicode"),
    ({"code": "", "metadata": {"\ud800": ""}}, 422, "unicode"),
    ({"code": "", "labels": ["\ud800"]}, 422, "unicode"),
]


@pytest.mark.parametrize(("body", "status", "reason"), BAD_BODIES, ids=str)
async def test_a_bad_start_is_refused_with_its_reason(
    tmp_path: Path, body: Any, status: int, reason: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if isinstance(body, dict) and "code" in body and body["code"] == "":
        content = json.dumps({**body, "code": "CANARY"}).encode()
    async with serving(tmp_path) as served:
        reply = await served.client.post(
            paths.START_PYTHON, content=content, headers={"Content-Type": "application/json"}
        )
        assert reply.status_code == status, reply.text
        detail = reply.json()["detail"]
        assert "CANARY" not in reply.text
        if status == 422:
            assert all(set(entry) == {"loc", "msg", "type"} for entry in detail)
            assert reason.lower() in " ".join(entry["msg"] for entry in detail).lower()
        else:
            assert reason in detail
        assert (await served.client.get(paths.WORKLOADS)).json() == []


async def test_the_older_names_of_fields_are_understood(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        reply = await served.client.post(
            paths.START_PYTHON,
            json={"code": "", "machine_type": "cpu", "requirements": "six", "unknown": 1},
        )
        assert reply.status_code == 200
        handle = await served.runner.next_run()
    assert handle.run_order.request.execution_type == "cpu"
    assert handle.run_order.request.requirements_content == "six"


async def test_a_record_shows_the_run_and_the_end_of_its_output(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        run_id = await play(
            served,
            ("stdout", b"x" * 2**20),
            ("stderr", "warn é".encode()),
            ("stdout", b"end"),
            return_code=3,
            labels=["a"],
            metadata={"k": "v"},
            run_name="name",
            file_name="a.py",
            timeout=5,
        )
        record = (await served.client.get(paths.record(run_id))).json()
    assert record["stdout"] == "x" * (2**20 - 3) + "end"
    assert record["stderr"] == "warn é"
    assert record["combined_output"].endswith("xwarn éend")
    assert record["output_truncated"] is True
    assert record["return_code"] == 3
    assert record["status"] == "failed"
    assert record["system_errors"] == ["the program ended with exit code 3"]
    assert record["labels"] == ["a"]
    assert record["metadata"] == {"k": "v"}
    assert (record["run_name"], record["file_name"], record["timeout"]) == ("name", "a.py", 5)
    assert record["billed"] == 0.0
    assert record["execution_type"] == record["hardware_profile"] == "cpu"
    assert record["created_at"] <= record["job_start"] <= record["job_end"]


async def test_a_gpu_that_is_not_here_is_said_in_the_record(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        run_id = await play(served, execution_type="gpu.a100")
        record = (await served.client.get(paths.record(run_id))).json()
    assert record["status_details"] == NO_GPU


@pytest.mark.parametrize(
    ("reason", "legacy", "documented", "details"),
    [
        ("exited", "completed", "completed", None),
        ("timeout", "timeout", "failed", "timeout"),
        ("aborted", "cancelled", "aborted", None),
        ("lost", "failed_system", "system_failure", None),
    ],
)
async def test_the_legacy_status_has_names_of_its_own(
    tmp_path: Path, reason: EndReason, legacy: str, documented: str, details: str | None
) -> None:
    async with serving(tmp_path) as served:
        run_id = await play(served, reason=reason, return_code=0 if reason == "exited" else None)
        status = (await served.client.get(paths.legacy_status(run_id))).json()
        record = (await served.client.get(paths.record(run_id))).json()
    assert status["status"] == legacy
    assert bool(status["errors"]) == (reason != "exited")
    assert (record["status"], record["status_details"]) == (documented, details)


async def test_timing_has_a_duration_once_there_is_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        waiting = (await served.start())["execution_id"]
        await served.runner.next_run()
        assert (await served.client.get(paths.timing(waiting))).json()["duration_seconds"] is None
        run_id = await play(served)
        timing = (await served.client.get(paths.timing(run_id))).json()
    assert set(timing) == {"execution_id", "start_time", "end_time", "duration_seconds"}
    assert timing["duration_seconds"] >= 0


async def test_the_list_has_active_runs_alone_newest_first(tmp_path: Path) -> None:
    async with serving(tmp_path, max_running=2) as served:
        await play(served)
        ids = [(await served.start())["execution_id"] for _ in range(3)]
        handle = await served.runner.next_run()
        handle.begin()
        while not (
            running := (await served.client.get(paths.WORKLOADS, params={"status": "running"}))
        ).json():
            pass
        listed = (await served.client.get(paths.WORKLOADS)).json()
        nothing = (await served.client.get(paths.WORKLOADS, params={"status": "odd"})).json()
    assert [record["execution_id"] for record in listed] == ids[::-1]
    assert [record["execution_id"] for record in running.json()] == [handle.run_id]
    assert nothing == []


async def test_abort_and_stop_answer_what_became_of_the_run(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for order, state in ((paths.abort, "aborted"), (paths.stop, "cancelled")):
            run_id = (await served.start())["execution_id"]
            await served.runner.next_run()
            for _ in range(2):  # the second time it is over already
                reply = await served.client.post(order(run_id))
                assert reply.status_code == 200
                assert set(reply.json()) == {"execution_id", "status", "message"}
                assert reply.json()["status"] == state


async def test_an_unknown_run_is_404_everywhere(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for method, path in (
            ("GET", paths.record),
            ("GET", paths.timing),
            ("GET", paths.legacy_status),
            ("GET", paths.logs),
            ("GET", paths.stream),
            ("POST", paths.stream),
            ("POST", paths.abort),
            ("POST", paths.stop),
        ):
            reply = await served.client.request(method, path("nobody"))
            assert reply.status_code == 404
            assert "nobody" in reply.json()["detail"]
        reply = await served.client.get("/api/v2/external/no/such/thing")
        assert (reply.status_code, reply.json()) == (404, {"detail": "Not Found"})


async def test_logs_are_the_last_lines_with_their_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        run_id = await play(
            served,
            ("stdout", b"one\r\ntw"),
            ("stderr", b"oops\n"),
            ("stdout", b"o\n\nthree"),
        )
        logs = (await served.client.get(paths.logs(run_id))).json()
        last = (await served.client.get(paths.logs(run_id), params={"limit": 2})).json()
        bad = await served.client.get(paths.logs(run_id), params={"limit": 0})
    lines = [(entry["level"], entry["message"]) for entry in logs["logs"]]
    assert lines == [
        ("info", "one"), ("error", "oops"), ("info", "two"), ("info", ""), ("info", "three"),
    ]  # fmt: skip
    assert logs["total"] == 5
    assert [entry["message"] for entry in last["logs"]] == ["", "three"]
    assert bad.status_code == 422


async def test_history_finds_a_run_by_its_metadata(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        first = await play(served, metadata={"tag": "x"})
        await play(served, return_code=1)
        await served.start()
        page = (await served.client.get(paths.HISTORY, params={"limit": 2, "offset": 1})).json()
    assert page["total_executions"] == 3
    assert page["counts_by_status"]["completed"] == 1
    assert [run["execution_id"] for run in page["executions"]][1] == first
    assert page["executions"][1]["metadata"] == {"tag": "x"}
    assert (page["limit"], page["offset"], page["total_credits_spent"]) == (2, 1, 0.0)


async def test_every_machine_is_listed_and_accessible(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        types = (await served.client.get(paths.MACHINE_TYPES)).json()
        hardware = (await served.client.get(paths.AVAILABLE_HARDWARE)).json()
    assert types["count"] == len(MACHINES)
    assert [item["hardware_profile"] for item in types["machine_types"]] == list(MACHINES)
    assert hardware == {"available_hardware_profiles": list(MACHINES)}


async def test_the_organisation_has_what_the_official_client_reads(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        org = (await served.client.get(paths.ORG)).json()
    assert set(org) == {"org_id", "slug", "name", "is_personal", "is_key_scoped"}
    assert org["slug"] == "local"


async def test_the_server_proves_that_it_knows_the_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        plain = (await served.client.get(paths.HEALTH)).json()
        proved = (await served.client.get(paths.HEALTH, params={"nonce": "n" * 32})).json()
        short = await served.client.get(paths.HEALTH, params={"nonce": ""})
    assert plain == {"status": "healthy", "version": __version__, "extensions": ["sessions"]}
    assert proved["proof"] == proof(KEY, "n" * 32)
    assert short.status_code == 422


async def test_keys_are_validated(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for body, valid in ((None, True), ({"api_key": KEY}, True), ({"api_key": "x"}, False)):
            reply = await served.client.post(paths.VALIDATE_KEY, json=body)
            assert (reply.status_code, reply.json()["valid"]) == (200, valid)


async def test_an_idle_server_ends_when_asked_and_a_busy_one_does_not(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        run_id = (await served.start())["execution_id"]
        busy = await served.client.post(paths.SHUTDOWN)
        assert (busy.status_code, served.end_calls) == (409, [])
        assert "1 run" in busy.json()["detail"]
        await served.client.post(paths.abort(run_id))
        idle = await served.client.post(paths.SHUTDOWN)
        assert (idle.status_code, served.end_calls) == (200, [None])
