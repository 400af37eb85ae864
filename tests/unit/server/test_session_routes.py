"""Sessions over HTTP: starts, heads that move, and refusals that say why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.sessions import EXTENSION, GRACE_S
from lyceum_magic.server.runners.base import EndReason
from tests.tools.sessions import save_snapshot, step
from tests.tools.stores import FaultyStore

from .fake_runner import FakeHandle, FakeRunner
from .serving import Served, read_stream, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


async def begin(served: Served, step: dict[str, Any]) -> tuple[dict[str, Any], FakeHandle]:
    started = await served.start(session=step)
    handle: FakeHandle = await served.runner.next_run()
    assert handle.run_order.session_folder is not None
    handle.begin()
    return started, handle


async def play(
    served: Served, step: dict[str, Any], *, saves: bool = True, reason: EndReason = "exited"
) -> dict[str, Any]:
    """Play a run to its end, and return the session's record."""
    started, handle = await begin(served, step)
    assert handle.run_order.session_folder
    if saves:
        save_snapshot(handle.run_order.session_folder, step)
    handle.end(0, reason=reason)
    await read_stream(served.client, started["streaming_url"])
    return dict((await served.client.get(paths.session(step["key"]))).json())


def written(folder: Path) -> dict[Path, int]:
    """Return all files below a folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


async def refused(reply: httpx.Response, status: int = 409) -> str:
    assert reply.status_code == status, reply.text
    detail = reply.json()["detail"]
    assert isinstance(detail, str)
    assert "\n" not in detail
    return detail


async def start(served: Served, step: dict[str, Any]) -> httpx.Response:
    body = {"code": "", "execution_type": "cpu", "session": step}
    return await served.client.post(paths.START_PYTHON, json=body)


async def test_the_server_announces_the_extension(served: Served) -> None:
    assert EXTENSION in (await served.client.get(paths.HEALTH)).json()["extensions"]


async def test_a_run_moves_the_head_before_its_end_is_told(served: Served) -> None:
    first = step()
    record = await play(served, first)
    head = record["branches"].pop("main")
    assert (head["id"], head["cell"], record["branches"]) == (first["id"], 1, {})
    assert (record["title"], record["cells"], record["busy"]) == ("a.ipynb", 1, {})
    assert (await served.client.get(paths.SESSIONS)).json()[0]["key"] == "a"
    (snapshot,) = (await served.client.get(paths.snapshots("a"))).json()
    assert {key: snapshot[key] for key in ("id", "sha256", "cell", "saved_at")} == head
    assert (snapshot["parent"], snapshot["kept"], snapshot["branch"]) == (None, False, "main")
    reply = await served.client.get(paths.snapshot("a", first["id"]))
    assert reply.headers["Content-Type"] == "application/json"
    folder = served.app.state.settings.state_dir / "sessions/a"
    assert reply.content == (folder / "cells" / f"{first['id']}.json").read_bytes()


@pytest.mark.parametrize("reason", ["exited", "timeout", "aborted", "stopped", "lost"])
async def test_the_head_follows_what_was_saved_however_the_run_ends(
    served: Served, reason: EndReason
) -> None:
    first = step()
    assert (await play(served, first, reason=reason))["branches"]["main"]["id"] == first["id"]
    second = step("b")
    assert (await play(served, second, saves=False, reason=reason))["branches"] == {}


async def test_of_two_starts_at_once_one_is_refused_and_names_the_other(served: Served) -> None:
    steps = [step() for _ in range(12)]
    replies = await asyncio.gather(*(start(served, step) for step in steps))
    (accepted,) = [reply for reply in replies if reply.status_code == 200]
    for reply in replies:
        if reply is not accepted:
            assert accepted.json()["execution_id"] in await refused(reply)
    assert len((await served.client.get(paths.WORKLOADS)).json()) == 1


async def test_a_start_of_another_cell_than_the_next_is_refused(served: Served) -> None:
    head = (await play(served, step()))["branches"]["main"]
    for wrong in (step(), step(cell=3, parent=head), step(cell=2, parent={**head, "id": "0" * 32})):
        await refused(await start(served, wrong))
    assert (await served.client.get(paths.WORKLOADS)).json() == []
    await begin(served, step(cell=2, parent=head))


async def test_a_start_that_fails_later_gives_the_branch_back(tmp_path: Path) -> None:
    store = FaultyStore()
    async with serving(tmp_path, store=store) as served:
        store.fail("add")
        reply = await start(served, step())
        assert reply.status_code == 507
        store.mend()
        served.runner.failure = RuntimeError("no such machine")
        started = await served.start(session=step())
        await read_stream(served.client, started["streaming_url"])
        served.runner.failure = None
        await begin(served, step())


async def test_a_run_that_waits_in_the_queue_has_its_branch(tmp_path: Path) -> None:
    async with serving(tmp_path, max_running=1) as served:
        await begin(served, step("first"))
        waiting = await served.start(session=step())
        assert waiting["execution_id"] in await refused(await start(served, step()))
        assert (await served.client.get(paths.session("a"))).json()["busy"] == {
            "main": waiting["execution_id"]
        }
        await served.client.post(paths.abort(waiting["execution_id"]))
        assert (await start(served, step())).status_code == 200


async def test_the_next_server_takes_the_claim_and_the_run_up(tmp_path: Path) -> None:
    runner, store = FakeRunner(), FaultyStore()
    first = step()
    async with serving(tmp_path, runner=runner, store=store) as served:
        started, handle = await begin(served, first)
    async with serving(tmp_path, runner=runner, store=store) as served:
        await refused(await start(served, step()))
        save_snapshot(tmp_path / "sessions/a", first)
        handle.end(0)
        path = started["streaming_url"].removeprefix("http://127.0.0.1:").partition("/")[2]
        await read_stream(served.client, f"{served.base_url}/{path}")
        record = (await served.client.get(paths.session("a"))).json()
    assert (record["branches"]["main"]["id"], record["busy"]) == (first["id"], {})


async def test_a_run_of_a_session_has_time_to_save(served: Served) -> None:
    _, handle = await begin(served, step())
    assert handle.run_order.stop_grace_s == GRACE_S
    await served.start()
    other: FakeHandle = await served.runner.next_run()
    assert other.run_order.stop_grace_s < GRACE_S
    assert other.run_order.session_folder is None


async def test_heads_move_by_compare_and_set(served: Served) -> None:
    one = (await play(served, step()))["branches"]["main"]
    two = (await play(served, step(cell=2, parent=one)))["branches"]["main"]
    main = paths.branch("a", "main")
    back = {"from": two["id"], "to": one["id"], "title": "Another title"}
    replies = await asyncio.gather(*(served.client.put(main, json=back) for _ in range(30)))
    assert sorted(reply.status_code for reply in replies) == [200] + [409] * 29
    record = (await served.client.get(paths.session("a"))).json()
    assert (record["branches"]["main"], record["title"]) == (one, "Another title")
    other = paths.branch("a", "other")
    record = (await served.client.put(other, json={"from": None, "to": two["id"]})).json()
    assert record["branches"] == {"main": one, "other": two}
    await refused(await served.client.delete(other, params={"from": one["id"]}))
    assert (await served.client.delete(other, params={"from": two["id"]})).status_code == 200
    reply = await served.client.put(main, json={"from": one["id"], "to": None})
    assert reply.json()["branches"] == {}
    new = await served.client.put(paths.branch("new", "main"), json={"from": None, "to": None})
    assert (new.status_code, new.json()["cells"]) == (200, 0)


async def test_snapshots_are_kept_and_released(served: Served) -> None:
    one = (await play(served, step()))["branches"]["main"]
    kept = paths.kept_snapshot("a", one["id"])
    for _ in range(2):
        assert (await served.client.put(kept)).json()["kept"] == [one["id"]]
    assert (await served.client.get(paths.snapshots("a"))).json()[0]["kept"]
    for _ in range(2):
        assert (await served.client.delete(kept)).json()["kept"] == []


async def test_a_session_is_removed_while_no_run_works_on_it(served: Served) -> None:
    started, handle = await begin(served, step())
    assert started["execution_id"] in await refused(await served.client.delete(paths.session("a")))
    handle.end(0)
    await read_stream(served.client, started["streaming_url"])
    assert (await served.client.delete(paths.session("a"))).status_code == 200
    await refused(await served.client.get(paths.session("a")), 404)
    await refused(await served.client.delete(paths.session("a")), 404)
    assert (await served.client.get(paths.SESSIONS)).json() == []


async def test_a_damaged_snapshot_is_one_sentence(served: Served) -> None:
    first = step()
    one = (await play(served, first))["branches"]["main"]
    folder = served.app.state.settings.state_dir / "sessions/a"
    (folder / "packs" / f"{first['id']}.pack").unlink()
    assert "is gone" in await refused(await start(served, step(cell=2, parent=one)))
    assert "is gone" in await refused(await served.client.get(paths.snapshot("a", one["id"])))


NO_KEYS = ["%2e%2e", ".index", "a%2Fb", "A", "a" * 65, "-a", "a%00", "a%0A", "ä", "a b", "_"]


@pytest.mark.parametrize("key", NO_KEYS)
async def test_what_is_no_name_reaches_no_file(served: Served, tmp_path: Path, key: str) -> None:
    await play(served, step("kept"))
    before = written(tmp_path)
    move = {"from": None, "to": None}
    replies = [
        await served.client.get(paths.session(key)),
        await served.client.delete(paths.session(key)),
        await served.client.get(paths.snapshots(key)),
        await served.client.put(paths.branch(key, "main"), json=move),
        await served.client.put(paths.branch("kept", key), json=move),
        await served.client.delete(paths.branch("kept", key)),
        await served.client.get(paths.snapshot("kept", key)),
        await served.client.put(paths.kept_snapshot("kept", key)),
    ]
    statuses = {reply.status_code for reply in replies}
    assert statuses <= {404, 405, 422}, [reply.text for reply in replies]
    after = written(tmp_path)
    assert after == before


BAD_STEPS: list[tuple[dict[str, Any], str]] = [
    ({"key": "../x"}, "key"),
    ({"key": ".index"}, "key"),
    ({"key": "a\n"}, "key"),
    ({"branch": "a/b"}, "branch"),
    ({"branch": ""}, "branch"),
    ({"id": "../../" + "0" * 26}, "id"),
    ({"id": "A" * 32}, "id"),
    ({"cell": 0}, "cell"),
    ({"cell": 2**31}, "cell"),
    ({"title": "x" * 201}, "title"),
    ({"title": "\ud800"}, "title"),
    ({"parent": {"id": "0" * 32}}, "parent"),
    ({"parent": {"id": "0" * 32, "sha256": "../x"}}, "parent"),
]


@pytest.mark.parametrize(("change", "field"), BAD_STEPS, ids=repr)
@pytest.mark.parametrize("path", [paths.START_PYTHON, paths.START_IMAGE])
async def test_a_bad_step_is_refused_with_its_field(
    served: Served, tmp_path: Path, change: dict[str, Any], field: str, path: str
) -> None:
    body = {"code": "", "docker_image_ref": "x", "execution_type": "cpu"}
    reply = await served.client.post(
        path,
        content=json.dumps({**body, "session": {**step(), **change}}),
        headers={"Content-Type": "application/json"},
    )
    assert reply.status_code == 422
    (problem,) = reply.json()["detail"]
    assert problem["loc"][:3] in (["body", "session", field], ["body", "session"])
    assert not (tmp_path / "sessions").exists()


async def test_a_stack_takes_no_part_in_a_session(served: Served, tmp_path: Path) -> None:
    body = {"compose_file_code": "services: {}", "execution_type": "cpu", "session": step()}
    assert (await served.client.post(paths.START_COMPOSE, json=body)).status_code == 200
    assert not (tmp_path / "sessions").exists()


async def test_sessions_need_the_key(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.base_url, trust_env=False) as stranger:
        for path in (paths.SESSIONS, paths.session("a"), paths.snapshot("a", "0" * 32)):
            assert (await stranger.get(path)).status_code == 401
            assert (await stranger.delete(path)).status_code == 401
