"""A bad request gets one sentence that says what is wrong, and the status of its kind of fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess, served

NO_RUN = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Row:
    """A request, and what it is answered.

    Attributes:
        says: words that the answer holds, in this order.
        body: sent as JSON; bytes are sent as they are.
    """

    method: str
    path: str
    status: int
    says: str
    body: Any = None
    headers: dict[str, str] | None = None
    files: Any = None


PYTHON, IMAGE, STACK = paths.START_PYTHON, paths.START_IMAGE, paths.START_COMPOSE
CPU = {"execution_type": "cpu"}


def python(status: int, says: str, **fields: Any) -> Row:
    return Row("POST", PYTHON, status, says, {"code": "print(1)", **CPU, **fields})


def image(status: int, says: str, **fields: Any) -> Row:
    return Row("POST", IMAGE, status, says, {"docker_image_ref": "a/b:c", **CPU, **fields})


def stack(says: str, text: str, status: int = 422, **fields: Any) -> Row:
    return Row("POST", STACK, status, says, {"compose_file_code": text, **CPU, **fields})


def get(status: int, says: str, path: str) -> Row:
    return Row("GET", path, status, says)


def post(status: int, says: str, path: str, body: Any = None) -> Row:
    return Row("POST", path, status, says, body)


SERVICE = "services:\n  web:\n    image: a\n"

TABLE = [
    # In front of every route.
    Row("GET", paths.WORKLOADS, 401, "key missing wrong", headers={"Authorization": ""}),
    Row("GET", paths.WORKLOADS, 401, "key missing wrong",
        headers={"Authorization": "Bearer lk_wrong"}),
    Row("GET", paths.WORKLOADS, 401, "key", headers={"Authorization": "Basic bGs6eA=="}),
    Row("GET", paths.WORKLOADS, 403, "Host", headers={"Host": "elsewhere.example"}),
    Row("GET", paths.WORKLOADS, 403, "origin", headers={"Origin": "https://elsewhere.example"}),
    Row("GET", paths.WORKLOADS, 403, "organisation local", headers={"X-Org-Slug": "other"}),
    Row("POST", PYTHON, 415, "JSON", b"code=1", {"Content-Type": "text/plain"}),
    Row("POST", PYTHON, 422, "JSON", b"{", {"Content-Type": "application/json"}),
    Row("POST", PYTHON, 413, "larger than 16 MiB", b" " * (17 << 20),
        {"Content-Type": "application/json"}),
    get(404, "Not Found", f"{paths.PREFIX}/no/such/path"),
    # Starts of every kind.
    Row("POST", PYTHON, 422, "code required", CPU),
    Row("POST", PYTHON, 422, "code string", {"code": 1, **CPU}),
    python(422, "timeout 600", timeout=601),
    python(422, "timeout 1", timeout=0),
    python(422, "timeout integer", timeout="long"),
    python(400, "no machine gpu.l40s", execution_type="gpu.nothing"),
    python(422, "execution_type pattern", execution_type="gpu-a100"),
    python(422, "labels 64", labels=["x"] * 65),
    python(422, "metadata string", metadata={"a": 1}),
    python(422, "prior_imports neither", prior_imports=["1 + 1"]),
    python(422, "import_files JSON", import_files="{"),
    python(422, "import_files below the run's folder", import_files=json.dumps({"../x.py": ""})),
    python(422, "nbcode integer", nbcode="x"),
    python(422, "user_callback_urls list", user_callback_urls="https://example.org"),
    Row("POST", IMAGE, 422, "docker_image_ref required", CPU),
    image(422, "docker_image_ref", docker_image_ref="UPPER/Case:x"),
    image(422, "docker_image_ref", docker_image_ref="two words"),
    image(422, "docker_run_cmd list", docker_run_cmd="echo 1"),
    image(422, "docker_run_cmd", docker_run_cmd=["echo", "x" * 200_000]),
    image(422, "docker_run_env", docker_run_env="=x"),
    image(422, "s3_mount_path absolute", s3_mount_path="relative"),
    image(422, "s3_mount_path", s3_mount_path="/"),
    image(422, "graceful_timeout 300", graceful_timeout=301),
    image(422, "docker_registry_credential_type aws basic", docker_registry_credential_type="gcp"),
    image(422, "docker_username", docker_registry_credential_type="basic"),
    image(422, "aws_access_key_id", docker_registry_credential_type="aws"),
    Row("POST", STACK, 422, "compose_file_code required", CPU),
    stack("YAML line 3 column 4", "services:\n  a: [1\n  b: 2\n"),
    stack("services", "version: '3'\n"),
    stack("mapping", "- 1\n"),
    stack("build", "services:\n  web:\n    build: .\n"),
    stack("privileged", SERVICE + "    privileged: true\n"),
    stack("/etc", SERVICE + "    volumes: ['/etc:/host']\n"),
    stack("network_mode host", SERVICE + "    network_mode: host\n"),
    stack("env_file", SERVICE + "    env_file: /etc/environment\n"),
    stack("colour", SERVICE + "    colour: red\n"),
    stack("timeout 600", SERVICE, timeout=7200),
    # Runs.
    get(404, f"No run {NO_RUN}", paths.record(NO_RUN)),
    get(404, "No run", paths.timing(NO_RUN)),
    get(404, "No run", paths.metrics(NO_RUN)),
    get(404, "No run", paths.logs(NO_RUN)),
    get(404, "No run", paths.legacy_status(NO_RUN)),
    post(404, "No run", paths.abort(NO_RUN)),
    post(404, "No run", paths.stop(NO_RUN)),
    post(404, "No run", paths.stream(NO_RUN)),
    post(404, "No run", f"{paths.stream(NO_RUN)}/wrong-secret"),
    get(422, "limit 10000", f"{paths.logs(NO_RUN)}?limit=10001"),
    get(422, "hours 168", f"{paths.logs(NO_RUN)}?hours=169"),
    get(422, "limit 5000", f"{paths.USER_LOGS}?limit=5001"),
    get(422, "limit", f"{paths.HISTORY}?limit=many"),
    # Secrets.
    post(422, "name", paths.SECRETS, {"environment_variables": [{"name": "1A", "value": "x"}]}),
    post(422, "value", paths.SECRETS, {"environment_variables": [{"name": "A"}]}),
    post(422, "twice", paths.SECRETS, [{"name": "A", "value": "1"}, {"key": "A", "value": "2"}]),
    post(422, "", paths.SECRETS, {"environment_variables": "A=1"}),
    Row("DELETE", f"{paths.SECRETS}no-such-id", 404, "no-such-id"),
    # Keys and tokens.
    post(422, "key_name", paths.KEYS, {}),
    post(422, "key_name 255", paths.KEYS, {"key_name": "x" * 256}),
    post(422, "expires_at", paths.KEYS, {"key_name": "x", "expires_at": "tomorrow"}),
    Row("DELETE", f"{paths.KEYS}no-such-id", 404, "no-such-id"),
    Row("PATCH", f"{paths.KEYS}no-such-id/toggle", 404, "no-such-id"),
    post(401, "sign in", paths.REFRESH, {"refresh_token": "not-a-token"}),
    post(401, "key", paths.LOGIN, {"email": "a@example.org", "password": "guess"}),
    get(404, "other", f"{paths.ORGS}/other"),
    # Storage.
    get(404, "no/such/file", paths.download("no/such/file")),
    get(400, "key", paths.download("%2e%2e/%2e%2e/vault.key")),
    Row("DELETE", paths.delete_file("no/such/file"), 404, "no/such/file"),
    Row("POST", f"{paths.UPLOAD}?key=../out", 400, "key", files={"file": ("a", b"x")}),
    Row("POST", f"{paths.UPLOAD}?key=a%00b", 400, "key", files={"file": ("a", b"x")}),
    Row("POST", paths.UPLOAD, 400, "file", files={"other": ("a", b"x")}),
    Row("POST", paths.UPLOAD, 415, "multipart/form-data", {"file": "x"}),
    # What Lyceum Cloud has beyond runs.
    get(501, "embedded server", f"{paths.PREFIX}/vms/list?include_ready=true"),
    post(501, "embedded server", f"{paths.PREFIX}/vms/create", {}),
    post(501, "embedded server", f"{paths.PREFIX}/serverless/chat/completions", {}),
    post(501, "embedded server", f"{paths.PREFIX}/billing/checkout", {}),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    with served(tmp_path_factory.mktemp("bad") / "state") as server:
        yield server


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.path} {row.says}")
def test_bad_input_gets_its_status_and_one_sentence(row: Row, server: ServedProcess) -> None:
    is_raw = isinstance(row.body, bytes)
    reply = server.client.request(
        row.method,
        row.path,
        content=row.body if is_raw else None,
        json=None if is_raw else row.body,
        files=row.files,
        headers=row.headers,
    )
    assert reply.status_code == row.status, reply.text
    said = sentence(reply)
    position = 0
    for word in row.says.split():
        position = said.lower().find(word.lower(), position)
        assert position >= 0, (word, said)
    assert len(said) < 600, said
    assert "Traceback" not in said
    # Nothing was started, and nothing is left of it.
    assert server.client.get(paths.WORKLOADS).json() == []


def sentence(reply: httpx.Response) -> str:
    detail = reply.json()["detail"]
    if isinstance(detail, str):
        return detail
    return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in detail)
