"""`storage/...` over HTTP: an upload comes back, and every refusal has a reason."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from lyceum_magic.protocol import paths
from lyceum_magic.server.routes import storage
from lyceum_magic.server.routes.uploads import MAX_FILES
from lyceum_magic.server.storage.bucket import Bucket, BucketFile

from .serving import Served, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


async def upload(served: Served, key: str, data: bytes = b"data") -> httpx.Response:
    return await served.client.post(
        paths.UPLOAD, params={"key": key}, files={"file": ("name.txt", data)}
    )


async def test_a_file_goes_up_is_listed_comes_down_and_goes(served: Served) -> None:
    data = os.urandom(3 << 20)
    reply = await upload(served, "models/a b/grün.bin", data)
    assert (reply.status_code, reply.json()) == (
        200,
        {"key": "models/a b/grün.bin", "size": len(data)},
    )
    listed = (await served.client.get(paths.LIST_FILES)).json()
    (file,) = listed["files"]
    assert (file["key"], file["size"]) == ("models/a b/grün.bin", len(data))
    assert file["last_modified"].endswith("+00:00")
    assert (listed["count"], listed["truncated"]) == (1, False)
    path = paths.download(quote("models/a b/grün.bin"))
    down = await served.client.get(path)
    assert down.content == data
    assert int(down.headers["content-length"]) == len(data)
    part = await served.client.get(path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, data[10:20])
    beyond = await served.client.get(path, headers={"Range": f"bytes={len(data)}-"})
    assert beyond.status_code == 416
    gone = await served.client.delete(paths.delete_file(quote("models/a b/grün.bin")))
    assert gone.json() == {"deleted": 1}
    assert (await served.client.get(path)).status_code == 404


async def test_the_key_may_be_a_field_and_is_else_the_files_name(served: Served) -> None:
    files = {"file": ("name.txt", b"x")}
    by_field = await served.client.post(paths.UPLOAD, data={"key": "a/field"}, files=files)
    by_name = await served.client.post(paths.UPLOAD, files=files)
    assert (by_field.json()["key"], by_name.json()["key"]) == ("a/field", "name.txt")


async def test_several_files_go_up_at_once_and_a_folder_goes_as_a_whole(served: Served) -> None:
    files = [("files", ("d/one", b"1")), ("files", ("d/two", b"22")), ("files", ("empty", b""))]
    reply = await served.client.post(paths.UPLOAD_BULK, files=files)
    assert reply.json() == {
        "files": [
            {"key": "d/one", "size": 1},
            {"key": "d/two", "size": 2},
            {"key": "empty", "size": 0},
        ]
    }
    some = await served.client.get(paths.LIST_FILES, params={"prefix": "d/", "max_files": 1})
    assert [file["key"] for file in some.json()["files"]] == ["d/one"]
    assert some.json()["truncated"]
    assert (await served.client.delete(paths.delete_folder("d/"))).json() == {"deleted": 2}


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("../outside", 400),
        ("/etc/passwd", 400),
        ("a\\b", 400),
        ("a\0b", 400),
        ("x" * 256, 400),
        ("folder", 409),
        ("folder/file/below", 409),
    ],
)
async def test_a_key_that_cannot_be_is_refused(served: Served, key: str, status: int) -> None:
    await upload(served, "folder/file")
    reply = await upload(served, key)
    assert reply.status_code == status
    assert reply.json()["detail"].count("\n") == 0
    listed = (await served.client.get(paths.LIST_FILES)).json()
    assert [file["key"] for file in listed["files"]] == ["folder/file"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", paths.download("missing"), 404),
        ("GET", paths.download("%2e%2e/uploads"), 400),
        ("GET", paths.download("/etc/passwd"), 400),
        ("DELETE", paths.delete_file("missing"), 404),
        ("DELETE", paths.delete_file("folder"), 409),
        ("DELETE", paths.delete_folder("missing"), 404),
        ("DELETE", paths.delete_folder("%2e%2e"), 400),
        ("DELETE", paths.delete_folder(""), 400),
        ("DELETE", paths.BLOCK_STORAGE + "/vol-1", 404),
        ("GET", paths.LIST_FILES + "?max_files=0", 422),
        ("GET", paths.LIST_FILES + "?prefix=../", 400),
    ],
)
async def test_what_is_not_there_or_not_allowed_says_so(
    served: Served, method: str, path: str, status: int
) -> None:
    await upload(served, "folder/file")
    reply = await served.client.request(method, path)
    assert reply.status_code == status
    assert reply.json()["detail"]


async def test_there_are_no_volumes(served: Served) -> None:
    assert (await served.client.get(paths.BLOCK_STORAGE)).json() == {"volumes": []}


FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        PART + b"half of a fi",
        PART + b"whole\r\n--b",
        b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="other"; filename="x"\r\n\r\nx\r\n--b--\r\n',
        b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\n' + b"k" * 9000,
    ],
)
async def test_a_broken_form_stores_nothing(served: Served, tmp_path: Path, body: bytes) -> None:
    reply = await served.client.post(paths.UPLOAD, content=body, headers=FORM)
    assert reply.status_code == 400
    assert reply.json()["detail"]
    assert (await served.client.get(paths.LIST_FILES)).json()["files"] == []
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_a_boundary_that_is_too_long_is_refused(served: Served) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={'b' * 257}"}
    reply = await served.client.post(paths.UPLOAD, content=b"x", headers=headers)
    assert reply.status_code == 400
    assert "form" in reply.json()["detail"]


async def test_a_file_whose_name_is_not_utf_8_gets_one_that_is(served: Served) -> None:
    body = PART.replace(b'"x"', b'"\xff"') + b"x\r\n--b--\r\n"
    reply = await served.client.post(paths.UPLOAD, content=body, headers=FORM)
    assert reply.json() == {"key": "\u00ff", "size": 1}


async def test_a_form_without_its_last_boundary_stores_none_of_its_files(served: Served) -> None:
    part = PART.replace(b'"file"', b'"files"')
    body = part + b"whole\r\n" + part + b"half"
    reply = await served.client.post(paths.UPLOAD_BULK, content=body, headers=FORM)
    assert reply.status_code == 400
    assert (await served.client.get(paths.LIST_FILES)).json()["files"] == []


@pytest.mark.parametrize("file", [b"", b'; filename="x"'])
async def test_a_form_has_at_most_so_many_parts_of_each_kind(served: Served, file: bytes) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="files"' + file + b"\r\n\r\nx\r\n"
    body = part * (MAX_FILES + 1) + b"--b--\r\n"
    reply = await served.client.post(paths.UPLOAD_BULK, content=body, headers=FORM)
    assert reply.status_code == 400
    assert str(MAX_FILES) in reply.json()["detail"]
    assert (await served.client.get(paths.LIST_FILES)).json()["files"] == []


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of uploads while they arrive."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def open_in(folder: Path) -> list[str]:
    """Return the files of a folder that this process has open, also those without a name."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [link for link in links if link.startswith(f"{folder}/")]


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(
    served: Served, tmp_path: Path, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = int(served.base_url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {paths.UPLOAD} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {9 << 20}\r\n"
        f"Authorization: {served.client.headers['authorization']}\r\n"
        f"Content-Type: {FORM['Content-Type']}\r\n\r\n"
    )
    writer.write(head.encode() + PART + bytes(2 << 20))
    await writer.drain()
    async with asyncio.timeout(30):
        while not open_in(spool):
            await served.client.get(paths.HEALTH)
        writer.close()
        while open_in(spool):
            await served.client.get(paths.HEALTH)
    assert os.listdir(spool) == []
    assert list((tmp_path / "uploads").iterdir()) == []
    assert (await served.client.get(paths.LIST_FILES)).json()["files"] == []
    assert caplog.records == []  # nothing of the server's has failed


@pytest.mark.parametrize("size", [1 << 20, 2 << 20])  # in memory while it arrives, and on the disk
async def test_a_full_disk_is_named_and_nothing_is_left(
    served: Served, tmp_path: Path, spool: Path, size: int
) -> None:
    # What the kernel says at this limit (EFBIG) takes the way that ENOSPC takes.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        reply = await upload(served, "big", bytes(size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert reply.status_code == 507
    assert "full" in reply.json()["detail"]
    assert open_in(spool) == []
    assert os.listdir(spool) == []
    assert list((tmp_path / "uploads").iterdir()) == []
    assert (await served.client.get(paths.LIST_FILES)).json()["files"] == []


class NotingBucket(Bucket):
    """A bucket that notes the threads on which files are put into it."""

    def __init__(self, folder: Path, drafts: Path) -> None:
        super().__init__(folder, drafts)
        self.threads: list[int] = []

    def put(self, content: IO[bytes], key: str) -> BucketFile:
        self.threads.append(threading.get_ident())
        return super().put(content, key)


async def test_no_disk_holds_the_event_loop_up_around_an_upload(tmp_path: Path) -> None:
    bucket = NotingBucket(tmp_path / "storage" / "local", tmp_path / "uploads")
    bucket.open()
    app = FastAPI()
    app.include_router(storage.router)
    app.state.bucket = bucket
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        reply = await client.post(paths.UPLOAD, files={"file": ("name.txt", b"data")})
    assert reply.status_code == 200
    assert len(bucket.threads) == 1
    assert threading.get_ident() not in bucket.threads
    assert list((tmp_path / "uploads").iterdir()) == []
