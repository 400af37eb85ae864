"""Sessions in an account's bucket, on a real S3 endpoint."""

from __future__ import annotations

import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from lyceum_magic.config import Secret
from lyceum_magic.exceptions import ConfigError, LyceumError, OptionError, RequestRefused
from lyceum_magic.sessions.cloud import cells as steps
from lyceum_magic.sessions.cloud.bucket import Outcome
from lyceum_magic.sessions.cloud.collection import IDLE_S, collect, remove_idle

from .conftest import NOW, Machine, save


def refused(pattern: str, status: int = 409):
    return pytest.raises(RequestRefused, match=pattern, check=lambda e: e.status_code == status)


def head(machine: Machine, key: str = "a", branch: str = "main") -> str | None:
    found = machine.sessions.present(key, branch)
    return found.id if found else None


def test_each_cell_goes_on_from_the_one_before(machine: Machine):
    first = machine.cell()
    second = machine.cell()
    assert (second.parent, head(machine)) == (first.id, second.id)
    record = machine.sessions.get("a")
    assert record["branches"]["main"]["id"] == second.id
    assert record["branches"]["main"]["cell"] == 2
    assert (record["title"], record["cells"], record["busy"]) == ("Title", 2, {})
    assert [one["id"] for one in machine.sessions.snapshots("a")] == [first.id, second.id]
    assert machine.sessions.all() == [record]


def test_a_cell_gets_urls_of_the_objects_that_it_needs_and_of_no_other(machine: Machine):
    first = machine.cell()
    step = machine.step()
    urls = steps.begin(machine.sessions, step)
    assert list(urls.packs) == [first.id]
    with urllib.request.urlopen(str(urls.manifest), timeout=30) as answer:
        assert json.load(answer)["id"] == first.id
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(str(urls.manifest).replace("manifest", "x")[:-2] + "00", timeout=30)


def test_urls_show_nothing_of_themselves_and_hold_no_key(machine: Machine):
    machine.cell()
    urls = steps.begin(machine.sessions, machine.step())
    assert "http" not in repr(urls)
    assert "X-Amz" not in repr(urls.put_pack)
    assert machine.access.secret_key.reveal() not in json.dumps(urls.as_job())


def test_of_two_kernels_the_second_is_refused_before_it_starts(machine: Machine):
    machine.cell()
    first, second = machine.step(), machine.step()
    urls = steps.begin(machine.sessions, first)
    with refused(f"busy with run run-{first.id}"):
        steps.begin(machine.sessions, second)
    assert machine.sessions.get("a")["busy"] == {"main": f"run-{first.id}"}
    assert steps.end(machine.sessions, first, save(urls, first, 2), "Title") == ""
    with refused("at cell 2 by now"):
        steps.begin(machine.sessions, second)
    assert head(machine) == first.id


def test_a_cell_that_saved_nothing_leaves_the_head(machine: Machine):
    first = machine.cell()
    step = machine.step()
    steps.begin(machine.sessions, step)
    assert steps.end(machine.sessions, step, "", "Title") == ""
    assert head(machine) == first.id
    machine.cell()


def test_a_cell_whose_kernel_died_is_settled_by_the_next(machine: Machine):
    step = machine.step()
    sha256 = save(steps.begin(machine.sessions, step), step)
    machine.runs.outcomes[step.id] = Outcome(True, "run-1", sha256)
    with refused("at cell 1 by now"):
        steps.begin(machine.sessions, machine.step())
    assert head(machine) == step.id
    lost = machine.step()
    steps.begin(machine.sessions, lost)
    machine.runs.outcomes[lost.id] = Outcome(True, "run-2")
    steps.begin(machine.sessions, machine.step())


@pytest.mark.parametrize("how", ["missing", "changed", "cut"])
def test_a_snapshot_that_is_not_what_the_run_said_leaves_the_head(
    machine: Machine, bucket: Path, how: str
):
    first = machine.cell()
    step = machine.step()
    sha256 = save(steps.begin(machine.sessions, step), step, 2)
    path = bucket / "lyceum-sessions" / "a" / "cells" / f"{step.id}.json"
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] + (b"        }" if how == "changed" else b""))
    problem = steps.end(machine.sessions, step, sha256, "Title")
    assert "not in the storage" in problem if how == "missing" else "not what was saved" in problem
    assert head(machine) == first.id
    machine.cell()


def test_a_snapshot_of_another_parent_leaves_the_head(machine: Machine):
    first = machine.cell()
    step = machine.step()
    urls = steps.begin(machine.sessions, step)
    sha256 = save(urls, replace(step, parent=secrets.token_hex(16)), 2)
    assert "does not go on from the head" in steps.end(machine.sessions, step, sha256, "Title")
    assert head(machine) == first.id


def test_a_head_that_was_changed_or_removed_is_refused_and_an_earlier_cell_works(
    machine: Machine, bucket: Path
):
    first, second = machine.cell(), machine.cell()
    path = bucket / "lyceum-sessions" / "a" / "cells" / f"{second.id}.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"x"', b'"y"'))
    with refused("not what was saved.*checkout a CELL"):
        steps.begin(machine.sessions, machine.step())
    with refused("was changed after it was saved"):
        machine.sessions.manifest("a", second.id)
    path.unlink()
    with refused("not in the storage any more.*checkout a CELL", 404):
        steps.begin(machine.sessions, machine.step())
    machine.sessions.set_branch("a", "main", expected=second.id, to=first.id)
    assert machine.cell().parent == first.id


def test_another_machine_goes_on_only_with_consent(machine: Machine, other_machine: Machine):
    machine.cell()
    record = other_machine.sessions.get("a")["branches"]["main"]
    assert record == machine.sessions.get("a")["branches"]["main"]
    with refused("went on at cell 1 on another machine.*only if you trust it"):
        steps.begin(other_machine.sessions, other_machine.step())
    assert not other_machine.sessions.is_known("a", record["id"], record["sha256"])
    other_machine.sessions.accept("a", record["id"], record["sha256"])
    assert other_machine.sessions.is_known("a", record["id"], record["sha256"])
    second = other_machine.cell()
    assert head(machine) == second.id
    with refused("another machine"):
        steps.begin(machine.sessions, machine.step())


def test_consent_is_to_what_was_seen(machine: Machine, other_machine: Machine):
    step = machine.cell()
    with refused("not what was saved"):
        other_machine.sessions.accept("a", step.id, "0" * 64)


def test_a_head_that_another_machine_moved_back_is_followed(
    machine: Machine, other_machine: Machine
):
    first, second = machine.cell(), machine.cell()
    other_machine.clock = machine.clock + 60
    record = other_machine.sessions.get("a")["branches"]["main"]
    other_machine.sessions.accept("a", second.id, record["sha256"])
    other_machine.sessions.set_branch("a", "main", expected=second.id, to=first.id)
    assert head(machine) == first.id
    assert machine.cell().parent == first.id


def test_a_branch_begins_at_a_cell_and_goes_its_own_way(machine: Machine):
    first, second = machine.cell(), machine.cell()
    machine.sessions.set_branch("a", "try", expected=None, to=first.id)
    third = machine.cell(branch="try")
    assert third.parent == first.id
    branches = machine.sessions.get("a")["branches"]
    assert {name: record["id"] for name, record in branches.items()} == {
        "main": second.id,
        "try": third.id,
    }
    with refused("at cell 2 by now"):
        machine.sessions.set_branch("a", "try", expected=first.id, to=None)
    machine.sessions.remove_branch("a", "try")
    assert list(machine.sessions.get("a")["branches"]) == ["main"]


def test_a_branch_that_starts_empty_has_no_parent(machine: Machine):
    step = machine.cell()
    machine.sessions.set_branch("a", "main", expected=step.id, to=None)
    assert "main" not in machine.sessions.get("a")["branches"]
    assert machine.cell().parent is None


def test_a_session_that_is_removed_is_gone(machine: Machine, bucket: Path):
    machine.cell()
    running = machine.step()
    steps.begin(machine.sessions, running)
    with refused("busy"):
        machine.sessions.remove("a")
    steps.abandon(machine.sessions, running)
    machine.sessions.remove("a")
    assert machine.sessions.all() == []
    with refused("no session 'a'", 404):
        machine.sessions.get("a")
    assert not list(bucket.rglob("*.json"))


def test_new_keys_are_asked_for_when_the_old_ones_end(machine: Machine):
    machine.access = replace(machine.access, expires_at=NOW + 3600)
    machine.sessions.objects()
    machine.sessions.objects(600)
    assert machine.asked == 1
    machine.clock += 3000
    machine.access = replace(machine.access, expires_at=machine.clock + 3600)
    machine.sessions.objects(1800)
    assert machine.asked == 2


def test_a_cell_whose_urls_would_end_too_soon_is_refused(machine: Machine):
    limit_s = 60 + steps.MARGIN_S
    machine.access = replace(machine.access, expires_at=NOW + limit_s - 1)
    with pytest.raises(OptionError, match=r"end in 959 s.*needs them for 960 s"):
        steps.begin(machine.sessions, machine.step())
    assert machine.sessions.heads.claims("a") == {}
    machine.access = replace(machine.access, expires_at=NOW + limit_s)
    steps.begin(machine.sessions, machine.step())


def test_refused_keys_name_neither_key_nor_url(machine: Machine):
    machine.access = replace(machine.access, secret_key=Secret("canary-secret"))
    with pytest.raises(LyceumError, match=r"answered 403 .*clock") as refusal:
        machine.sessions.all()
    shown = f"{refusal.value!r} {refusal.value.__cause__!r}"
    assert "canary" not in shown
    assert "X-Amz" not in shown


# Collection.


def test_collection_keeps_heads_kept_ones_and_the_newest_cells(machine: Machine, bucket: Path):
    cells = [machine.cell() for _ in range(3)]
    machine.sessions.keep("a", cells[0].id)
    machine.sessions.set_branch("a", "old", expected=None, to=cells[1].id)
    cells += [machine.cell() for _ in range(26)]
    collect(machine.sessions, "a")
    left = [one["id"] for one in machine.sessions.snapshots("a")]
    assert left == [step.id for step in (*cells[:2], *cells[-20:])]
    # Each cell of these needs a pack of the one before.
    packs = {path.stem for path in (bucket / "lyceum-sessions/a/packs").iterdir()}
    assert packs == {step.id for step in (*cells[:2], *cells[-21:])}
    assert [one["kept"] for one in machine.sessions.snapshots("a")][:2] == [True, False]
    machine.sessions.unkeep("a", cells[0].id)
    machine.sessions.unkeep("a", cells[0].id)
    collect(machine.sessions, "a")
    assert cells[0].id not in [one["id"] for one in machine.sessions.snapshots("a")]
    machine.cell()


def test_collection_spares_what_it_does_not_understand(machine: Machine, bucket: Path):
    cells = [machine.cell() for _ in range(22)]
    (bucket / "lyceum-sessions/a/cells" / f"{secrets.token_hex(16)}.json").write_text("[]")
    assert collect(machine.sessions, "a") == 0
    assert len(list((bucket / "lyceum-sessions/a/packs").iterdir())) == len(cells)


def test_idle_sessions_go_unless_they_have_a_kept_cell(machine: Machine, bucket: Path):
    step = machine.cell("kept")
    machine.sessions.keep("kept", step.id)
    machine.cell("idle")
    machine.clock += 2 * IDLE_S  # a wrong clock
    machine.cell("used")
    assert remove_idle(machine.sessions) == []
    for key in ("kept", "idle"):
        for file in (bucket / "lyceum-sessions" / key).rglob("*.*"):
            os.utime(file, (0, file.stat().st_mtime - IDLE_S - 60))
        for file in (bucket / "lyceum-sessions" / key / "kept").glob("*"):
            os.utime(file, (0, file.stat().st_mtime - IDLE_S - 60))
    assert remove_idle(machine.sessions) == ["idle"]
    assert [record["key"] for record in machine.sessions.all()] == ["kept", "used"]


def test_without_boto3_one_sentence_says_how_to_install_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    expected = pytest.raises(ConfigError, match=r"pip install 'lyceum-magic\[storage\]'")
    with monkeypatch.context() as patch, expected:
        patch.setitem(sys.modules, "boto3", None)
        machine.sessions.all()
