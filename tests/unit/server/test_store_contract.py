"""The promises of every store, checked on all of them."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lyceum_magic.exceptions import EmbeddedServerError
from lyceum_magic.protocol.requests import Start, StartCompose, StartImage, StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server.stores.base import (
    KeyRecord,
    RunRecord,
    SecretRecord,
    StoreUnavailable,
    WholeStore,
)
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.vault import Vault

pytestmark = pytest.mark.anyio


def record(run_id: str, state: State = State.PENDING) -> RunRecord:
    request = StartPython(
        code="print('é\ud7ff\0')",
        execution_type="cpu",
        labels=["a"],
        metadata={"k": "v"},
    )
    return RunRecord(run_id, request, created_at=1.5, state=state)


def secretive(run_id: str) -> RunRecord:
    """Return a run whose request has every sealed field."""
    request = StartImage(
        docker_image_ref="x",
        docker_username="user",
        docker_password="canary-password",
        docker_run_env="A=canary-variable",
        user_callback_urls=["https://example.org/canary-url"],
    )
    return RunRecord(run_id, request, created_at=1.5)


async def test_a_record_comes_back_as_it_was_written(store: WholeStore) -> None:
    written = replace(
        record("a", State.FAILED),
        timed_out=True,
        return_code=137,
        error="why",
        started_at=2.25,
        finished_at=3.125,
        spool=Path("/somewhere/spool"),
    )
    await store.add(written)
    assert await store.get("a") == written


async def test_an_unknown_run_is_none(store: WholeStore) -> None:
    assert await store.get("nobody") is None


async def test_update_and_finish_replace_the_record(store: WholeStore) -> None:
    await store.add(record("a"))
    running = replace(record("a"), state=State.RUNNING, started_at=2.0)
    await store.update(running)
    assert await store.get("a") == running
    final = replace(running, state=State.COMPLETED, return_code=0, finished_at=3.0)
    await store.finish(final)
    assert await store.get("a") == replace(final, request=final.request.when_over())


async def test_what_is_sealed_is_in_no_record_and_comes_back_when_asked_for(
    store: WholeStore,
) -> None:
    written = secretive("a")
    await store.add(written)
    read = await store.get("a")
    assert read == replace(written, request=written.request.without_sealed())
    assert "canary" not in str(vars(read.request))
    assert list(await store.unfinished()) == [read]
    assert await store.request("a") == written.request
    # An update with a record that lacks the sealed fields keeps them in the store.
    await store.update(replace(read, state=State.RUNNING))
    assert await store.request("a") == written.request


@pytest.mark.parametrize(
    "request_",
    [
        StartPython(
            code="canary", requirements_content="canary", prior_imports=["canary"],
            kernel_state="canary", import_files='{"canary.py": ""}', execution_type="gpu.a100",
            labels=["a"], metadata={"k": "v"}, file_name="cell.py", run_name="name", timeout=7,
        ),
        StartImage(
            docker_image_ref="x", docker_run_cmd=["canary"], docker_user="u", job_type="j",
            labels=["a"], timeout=7,
        ),
        StartCompose(compose_file_code="canary", labels=["a"], timeout=7, run_name="name"),
    ],
)  # fmt: skip
async def test_the_program_goes_with_the_end_and_what_lists_show_stays(
    store: WholeStore, request_: Start
) -> None:
    await store.add(RunRecord("a", request_, created_at=1.5))
    (live,) = await store.unfinished()
    assert live.request == request_
    await store.finish(replace(live, state=State.COMPLETED, finished_at=2.0))
    kept = await store.get("a")
    assert kept is not None
    assert "canary" not in repr(vars(kept.request))
    assert await store.request("a") == kept.request == request_.when_over()
    shown = {"execution_type", "timeout", "file_name", "run_name", "labels", "metadata"}
    assert kept.request.model_dump(include=shown) == request_.model_dump(include=shown)
    assert kept.job_type == request_.work_type


async def test_credentials_go_with_the_end_and_the_rest_stays(store: WholeStore) -> None:
    written = secretive("a")
    await store.add(written)
    read = await store.get("a")
    assert read is not None
    await store.finish(replace(read, state=State.COMPLETED))
    assert await store.request("a") == written.request.when_over()


async def test_outputs_are_told_of_the_runs_that_ended_since(store: WholeStore) -> None:
    for run_id, finished_at in (("before", 4.9), ("then", 5.0), ("since", 7.0)):
        spool = Path(f"/somewhere/{run_id}")
        ended = replace(record(run_id, State.FAILED), finished_at=finished_at, spool=spool)
        await store.add(ended)
    await store.add(replace(record("never began", State.FAILED), finished_at=8.0))
    await store.add(replace(record("going on", State.RUNNING), spool=Path("/somewhere/else")))
    found = await store.ended_since(5.0, limit=9)
    assert [(run.run_id, run.ended_at, run.spool) for run in found] == [
        ("since", 7.0, Path("/somewhere/since")),
        ("then", 5.0, Path("/somewhere/then")),
    ]
    (first,) = await store.ended_since(5.0, limit=1)
    assert list(await store.ended_since(5.0, limit=9, before=first)) == [found[1]]
    assert list(await store.ended_since(5.0, limit=9, before=found[1])) == []


async def test_outputs_of_runs_that_ended_at_the_same_moment_are_all_told(
    store: WholeStore,
) -> None:
    for number in range(5):
        ended = replace(record(str(number), State.FAILED), finished_at=3.0, spool=Path("/x"))
        await store.add(ended)
    pages, last = [], None
    while page := await store.ended_since(0.0, limit=2, before=last):
        pages.append([run.run_id for run in page])
        last = page[-1]
    assert pages == [["4", "3"], ["2", "1"], ["0"]]


async def test_unfinished_runs_come_oldest_first(store: WholeStore) -> None:
    for number, state in enumerate(State):
        await store.add(record(str(number), state))
    unfinished = [item.state for item in await store.unfinished()]
    assert unfinished == [State.PENDING, State.STARTING, State.RUNNING]


async def test_history_is_paged_newest_first_and_counts_everything(store: WholeStore) -> None:
    for number in range(5):
        await store.add(record(str(number), State.COMPLETED if number else State.FAILED))
    page = await store.history(limit=2, offset=1)
    assert [item.run_id for item in page.records] == ["3", "2"]
    assert page.total == 5
    assert page.counts_by_state == {State.COMPLETED: 4, State.FAILED: 1}


def secret(name: str, value: str, *, secret_id: str = "") -> tuple[SecretRecord, str]:
    size = len(value.encode())
    return SecretRecord(secret_id or f"id-{name}", name, True, size, updated_at=1.5), value


async def test_secrets_come_back_with_their_values(store: WholeStore) -> None:
    written = [secret("B", "värde\n"), secret("A", "")]
    await store.put_secrets(written)
    assert list(await store.secrets()) == [written[1][0], written[0][0]]
    assert dict(await store.secret_values()) == {"A": "", "B": "värde\n"}


async def test_a_secret_of_the_same_name_takes_the_place_and_the_id(store: WholeStore) -> None:
    await store.put_secrets([secret("A", "one"), secret("B", "two")])
    later = replace(secret("A", "three")[0], secret_id="another", is_secret=False, updated_at=9.0)
    await store.put_secrets([(later, "three")])
    (first, second) = await store.secrets()
    assert first == replace(later, secret_id="id-A")
    assert second.name == "B"
    assert (await store.secret_values())["A"] == "three"


async def test_secrets_are_removed_one_by_one_or_all(store: WholeStore) -> None:
    await store.put_secrets([secret(name, "x") for name in "ABC"])
    assert await store.remove_secret("id-B")
    assert not await store.remove_secret("id-B")
    assert set(await store.secret_values()) == {"A", "C"}
    await store.remove_all_secrets()
    assert list(await store.secrets()) == []


async def test_keys_come_back_as_they_were_written_last(store: WholeStore) -> None:
    one = KeyRecord("1", "one", "lk_abcde", b"\x00\xff", 1.5)
    two = KeyRecord("2", "two", "lk_fghij", b"\x01", 2.5, expires_at=9.25)
    await store.put_key(one)
    await store.put_key(two)
    assert list(await store.keys()) == [one, two]
    used = replace(one, is_active=False, last_used_at=3.0)
    await store.put_key(used)
    assert list(await store.keys()) == [used, two]
    await store.remove_key("1")
    await store.remove_key("1")
    assert list(await store.keys()) == [two]


async def test_the_use_of_a_key_is_noted_and_brings_back_none(store: WholeStore) -> None:
    key = KeyRecord("1", "ci", "lk_abcde", b"d" * 32, 1.5)
    await store.put_key(key)
    await store.note_key_use("1", 9.5)
    assert list(await store.keys()) == [replace(key, last_used_at=9.5)]
    await store.remove_key("1")
    await store.note_key_use("1", 10.5)
    assert list(await store.keys()) == []


async def test_several_secrets_are_written_all_or_none(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key"))
    await store.open()
    with pytest.raises(StoreUnavailable):
        await store.put_secrets([secret("A", "x", secret_id="1"), secret("B", "y", secret_id="1")])
    assert list(await store.secrets()) == []
    await store.put_secrets([secret("A", "x")])
    await store.close()


async def test_a_damaged_file_is_a_store_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    path.write_bytes(b"no database" * 1000)
    store = SqliteStore(path, Vault(tmp_path / "vault.key"))
    with pytest.raises(StoreUnavailable, match="not a database"):
        await store.open()
    await store.close()


async def test_secrets_are_listed_and_removed_without_the_key_of_the_vault(tmp_path: Path) -> None:
    path, key = tmp_path / "runs.sqlite3", tmp_path / "vault.key"
    store = SqliteStore(path, Vault(key))
    await store.open()
    await store.put_secrets([secret("A", "x")])
    await store.close()
    key.unlink()
    store = SqliteStore(path, Vault(key))
    await store.open()
    assert [item.name for item in await store.secrets()] == ["A"]
    with pytest.raises(EmbeddedServerError, match="set the secrets again"):
        await store.secret_values()
    await store.remove_all_secrets()
    assert dict(await store.secret_values()) == {}
    await store.close()


async def test_history_is_read_without_the_key_of_the_vault(tmp_path: Path) -> None:
    path, key = tmp_path / "runs.sqlite3", tmp_path / "vault.key"
    store = SqliteStore(path, Vault(key))
    await store.open()
    for run_id in "ab":
        await store.add(secretive(run_id))
    await store.close()
    key.unlink()
    store = SqliteStore(path, Vault(key))
    await store.open()
    assert [r.run_id for r in await store.unfinished()] == ["a", "b"]
    with pytest.raises(EmbeddedServerError, match=r"vault\.key"):
        await store.request("a")
    read = await store.get("a")
    assert read is not None
    await store.finish(replace(read, state=State.SYSTEM_FAILURE))
    page = await store.history(limit=9, offset=0)
    assert [r.state for r in page.records] == [State.PENDING, State.SYSTEM_FAILURE]
    # Fields that cannot be decrypted any more may be credentials: the run's end removes them.
    assert await store.request("a") == secretive("a").request.without_sealed()
    await store.close()


async def test_a_disk_that_fails_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    store = SqliteStore(path, Vault(tmp_path / "vault.key"))
    await store.open()
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE api_keys")
    with pytest.raises(EmbeddedServerError, match=r"no such table.*try again"):
        await store.put_key(KeyRecord("1", "one", "lk_abcde", b"\x00", 1.5))
    await store.close()


async def test_a_file_of_an_older_version_keeps_its_records(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key"))
    await store.open()
    await store.add(record("a"))
    await store.close()
    connection = sqlite3.connect(tmp_path / "runs.sqlite3")
    connection.executescript(
        "DROP TABLE secrets; DROP TABLE api_keys; DROP TABLE attempts; DROP TABLE deliveries; "
        "DROP TABLE signing_secrets; DROP TABLE ended_runs; DROP TABLE marks; DROP TABLE behind; "
        "PRAGMA user_version = 2"
    )
    connection.close()
    store = SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key"))
    await store.open()
    assert await store.get("a") == record("a")
    await store.put_secrets([secret("A", "x")])
    assert list(await store.keys()) == []
    await store.close()


async def test_records_outlive_the_store(tmp_path: Path) -> None:
    for _ in range(2):
        store = SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key"))
        await store.open()
        if await store.get("a") is None:
            await store.add(record("a"))
            await store.close()
        else:
            assert await store.get("a") == record("a")
            await store.close()


async def test_its_files_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key"))
    await store.open()
    await store.add(record("a"))
    modes = {
        entry.name: entry.stat().st_mode & 0o777
        for entry in os.scandir(tmp_path)
        if entry.name.startswith("runs.sqlite3")
    }
    await store.close()
    assert modes == dict.fromkeys(["runs.sqlite3", "runs.sqlite3-wal", "runs.sqlite3-shm"], 0o600)


async def test_a_file_of_a_newer_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    store = SqliteStore(path, Vault(tmp_path / "vault.key"))
    with pytest.raises(EmbeddedServerError, match="LYCEUM_MAGIC_HOME"):
        await store.open()
    await store.close()


# --- forgetting ------------------------------------------------------------------------------


async def test_runs_that_are_over_are_listed_by_their_ends(store: WholeStore) -> None:
    for run_id, finished_at in (("late", 9.0), ("early", 3.5), ("middle", 5.0)):
        await store.add(replace(record(run_id, State.COMPLETED), finished_at=finished_at))
    await store.add(replace(record("on its way", State.RUNNING), started_at=1.0))
    found = await store.oldest_ended(limit=9)
    assert [(run.run_id, run.kept_from) for run in found] == [
        ("early", 3.5), ("middle", 5.0), ("late", 9.0),
    ]  # fmt: skip
    await store.forget("early")  # a page begins after a run that is gone by then as well
    assert list(await store.oldest_ended(limit=9, after=found[0])) == list(found[1:])


async def test_sizes_are_noted_once_a_run_is_over_and_leave_with_it(store: WholeStore) -> None:
    for run_id in ("a", "b"):
        await store.add(replace(record(run_id, State.FAILED), finished_at=1.0))
    await store.add(record("live", State.RUNNING))
    assert list(await store.unmeasured(limit=9)) == ["a", "b"]
    assert list(await store.unmeasured(limit=1)) == ["a"]
    assert await store.ended_bytes() == 0
    await store.note_sizes({"a": 10_000, "live": 5, "unknown": 5})
    assert list(await store.unmeasured(limit=9)) == ["b"]
    total = await store.ended_bytes()
    assert 10_000 <= total < 12_000  # with the record
    await store.note_sizes({"b": 1_000})
    assert await store.ended_bytes() > total + 999
    await store.forget("b")
    assert await store.ended_bytes() == total


async def test_ids_that_no_run_has_are_told_from_the_others(store: WholeStore) -> None:
    await store.add(record("live", State.RUNNING))
    await store.add(record("over", State.FAILED))
    asked = ["over", "x", "live", "ü'", "", "\udcff"]
    assert set(await store.unknown(asked)) == {"x", "ü'", "", "\udcff"}
    assert not await store.unknown([])


DAY_S = 86_400.0


async def test_the_mark_follows_the_clock_and_not_its_jumps(store: WholeStore) -> None:
    now = 1000 * DAY_S
    assert await store.move_mark(now) == now
    assert await store.move_mark(now + 3600) == now + 3600
    ahead = now + 40 * DAY_S
    assert await store.move_mark(ahead) == now + 3600 + DAY_S
    assert await store.move_mark(ahead + 60) == now + 3600 + DAY_S + 24 * 60  # not a day each time
    assert await store.move_mark(now + 7200) == now + 3600 + DAY_S + 24 * 60
    assert await store.move_mark(0.0) == now + 3600 + DAY_S + 24 * 60
    assert await store.move_mark(now + 2 * DAY_S) == now + 2 * DAY_S


async def test_the_first_mark_believes_the_newest_record(store: WholeStore) -> None:
    await store.add(replace(record("a", State.FAILED), finished_at=5 * DAY_S))
    assert await store.move_mark(45 * DAY_S) == 6 * DAY_S


async def test_a_run_that_ends_while_the_clock_is_behind_counts_from_the_mark(
    store: WholeStore,
) -> None:
    await store.move_mark(1000 * DAY_S)
    await store.add(record("a"))
    await store.finish(replace(record("a", State.COMPLETED), finished_at=3.0))
    await store.add(record("b"))
    await store.finish(replace(record("b", State.COMPLETED), finished_at=1001 * DAY_S))
    ages = {run.run_id: run.kept_from for run in await store.oldest_ended(limit=9)}
    assert ages == {"a": 1000 * DAY_S, "b": 1001 * DAY_S}


async def test_a_run_that_is_over_can_be_forgotten_and_no_other(store: WholeStore) -> None:
    await store.add(record("over", State.FAILED))
    await store.add(record("running", State.RUNNING))
    for run_id in ("over", "running", "unknown"):
        await store.forget(run_id)
    assert await store.get("over") is None
    assert (await store.get("running")) == record("running", State.RUNNING)
    assert (await store.history(limit=9, offset=0)).total == 1


# --- what earlier versions wrote -------------------------------------------------------------

VERSION_1 = """
    CREATE TABLE runs (
        sequence INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL UNIQUE,
        request TEXT NOT NULL,
        job_type TEXT NOT NULL,
        created_at REAL NOT NULL,
        state TEXT NOT NULL,
        timed_out INTEGER NOT NULL,
        return_code INTEGER,
        error TEXT NOT NULL,
        started_at REAL,
        finished_at REAL,
        spool TEXT
    );
    CREATE INDEX runs_by_state ON runs (state);
    PRAGMA user_version = 1;
"""


async def test_the_records_of_the_first_version_are_read_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_1)
        for run_id, state, code in (("done", "failed", 7), ("alive", "running", None)):
            request = json.dumps({"code": "print('é')", "execution_type": "cpu", "labels": ["a"]})
            old.execute(
                "INSERT INTO runs VALUES (NULL, ?, ?, 'python', 1.5, ?, 0, ?, 'why', 2.25, 3.5, ?)",
                (run_id, request, state, code, "/somewhere/spool"),
            )
        old.commit()
    store = SqliteStore(path, Vault(tmp_path / "vault.key"))
    await store.open()
    done = await store.get("done")
    assert done is not None
    assert isinstance(done.request, StartPython)
    assert done.request.labels == ["a"]
    assert (done.state, done.return_code, done.error) == (State.FAILED, 7, "why")
    assert (done.created_at, done.started_at, done.finished_at) == (1.5, 2.25, 3.5)
    assert done.spool == Path("/somewhere/spool")
    assert list(await store.ended_since(0.0, limit=9)) == []
    while await store.catch_up():
        pass
    (ended,) = await store.ended_since(0.0, limit=9)
    assert (ended.run_id, ended.ended_at, ended.spool) == ("done", 3.5, Path("/somewhere/spool"))
    assert await store.get("done") == replace(done, request=done.request.when_over())
    (alive,) = await store.unfinished()
    assert isinstance(alive.request, StartPython)
    assert alive.request.code == "print('é')"
    await store.finish(replace(alive, state=State.COMPLETED, return_code=0))
    await store.add(record("new"))
    await store.close()
    again = SqliteStore(path, Vault(tmp_path / "vault.key"))
    await again.open()
    assert [r.run_id for r in (await again.history(limit=9, offset=0)).records] == [
        "new", "alive", "done",
    ]  # fmt: skip
    await again.close()
