"""A bucket of a real S3 endpoint, and cells that save into it as a run would."""

from __future__ import annotations

import hashlib
import json
import secrets
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.client.storage import StorageAccess
from lyceum_magic.journal.heads import Claim
from lyceum_magic.sessions.cloud import cells as steps
from lyceum_magic.sessions.cloud.bucket import BucketSessions, Outcome
from lyceum_magic.sessions.cloud.objects import Objects
from tests.tools.storage import s3_bucket

NOW = 1_800_000_000.0


class FakeRuns:
    """The journal of runs: snapshot -> outcome; a run that is not in it goes on."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    def run_id(self, claim: Claim) -> str:
        return f"run-{claim.id}"

    def outcome(self, claim: Claim) -> Outcome:
        return self.outcomes.get(claim.id, Outcome(False, self.run_id(claim)))


class Machine:
    """One machine of the account: its journal, and the cells that it runs."""

    def __init__(self, access: StorageAccess, folder: Path) -> None:
        self.access, self.asked, self.clock = access, 0, NOW
        self.runs = FakeRuns()
        self.sessions = BucketSessions(
            self._fetch, "https://cloud.example", folder, self.runs, now=lambda: self.clock
        )

    def _fetch(self) -> StorageAccess:
        self.asked += 1
        return self.access

    def step(self, key: str = "a", branch: str = "main", **changes: Any) -> steps.Step:
        """The next cell of a branch, after its present head."""
        head = self.sessions.present(key, branch)
        step = steps.Step(
            key, branch, secrets.token_hex(16), head.id if head else None,
            head.sha256 if head else "", 60,
        )  # fmt: skip
        return replace(step, **changes)

    def run(self, step: steps.Step, cell: int = 1, **members: Any) -> str:
        """Run a cell that saves; return the problem of its end."""
        sha256 = save(steps.begin(self.sessions, step), step, cell, **members)
        return steps.end(self.sessions, step, sha256, "Title")

    def cell(self, key: str = "a", branch: str = "main") -> steps.Step:
        """Run the next cell of a branch."""
        self.clock += 1
        head = self.sessions.present(key, branch)
        step = self.step(key, branch)
        assert self.run(step, (head.cell if head else 0) + 1) == ""
        return step


def save(urls: steps.Urls, step: steps.Step, cell: int = 1, **members: Any) -> str:
    """Put a pack and a manifest as a run does; return the manifest's SHA-256."""
    data = f"state after {step.id}".encode()
    group = {
        "names": ["x"],
        "pickle": [step.id, 0, len(data), hashlib.sha256(data).hexdigest()],
        "buffers": [[step.parent, 0, 1, "0" * 64]] if step.parent in urls.packs else [],
    }
    parent = {"id": step.parent, "sha256": step.parent_sha256} if step.parent else None
    manifest = {
        "version": 1, "key": step.key, "title": "Title", "branch": step.branch, "cell": cell,
        "id": step.id, "parent": parent, "saved_at": NOW + cell, "groups": [group],
        "variables": {"x": {"type": "int"}}, "lost": {}, "files": {},
    } | members  # fmt: skip
    content = json.dumps(manifest, sort_keys=True).encode()
    for url, body in ((urls.put_pack, data), (urls.put_manifest, content)):
        request = urllib.request.Request(str(url), data=body, method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="package")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StorageAccess, Path]]:
    folder = tmp_path_factory.mktemp("storage") / "bucket"
    with s3_bucket(folder) as access:
        yield access, folder


@pytest.fixture
def bucket(endpoint: tuple[StorageAccess, Path]) -> Iterator[Path]:
    """The folder of the bucket, empty."""
    yield endpoint[1]
    objects = Objects(endpoint[0])
    objects.delete([item.key for item in objects.find("")])


@pytest.fixture
def machine(endpoint: tuple[StorageAccess, Path], bucket: Path, tmp_path: Path) -> Machine:
    return Machine(endpoint[0], tmp_path / "journal")


@pytest.fixture
def other_machine(endpoint: tuple[StorageAccess, Path], bucket: Path, tmp_path: Path) -> Machine:
    return Machine(endpoint[0], tmp_path / "another")
