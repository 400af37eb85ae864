"""Every route refuses requests without the key, for another host, or from another origin.

The routes come from the routers themselves, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from lyceum_magic.config import Secret
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.limits import MAX_BODY_BYTES
from lyceum_magic.server.app import ROUTERS, create_app
from lyceum_magic.server.machines import RUNNERS
from lyceum_magic.server.settings import ServerSettings
from lyceum_magic.server.stores.memory import MemoryStore
from tests.tools.waiting import CLIENT_LIMIT_S

from .fake_runner import FakeRunner
from .serving import serving

pytestmark = pytest.mark.anyio


def _routes() -> Iterator[tuple[str, str]]:
    settings = ServerSettings(Path("/nowhere"), 1, Secret("lk_x"))
    app = create_app(settings, store=MemoryStore(), runners=dict.fromkeys(RUNNERS, FakeRunner()))
    own = [route for route in app.routes if isinstance(route, APIRoute)]
    included = [route for router in ROUTERS for route in router.routes]
    assert len(app.routes) in (len(own), len(own) + len(ROUTERS))  # nothing beside these
    for route in [*own, *included]:
        assert isinstance(route, APIRoute)
        for method in sorted(route.methods or ()):
            yield method, re.sub(r"{\w+}", "x", route.path)


ROUTES = [*_routes(), ("GET", "/"), ("GET", "/docs"), ("POST", "/no/such/path"), ("PUT", "/")]
OPEN = {("GET", paths.HEALTH): 200, ("POST", paths.LOGIN): 422, ("POST", paths.REFRESH): 422}
UPLOADS = {paths.UPLOAD, paths.UPLOAD_BULK}
STREAMS = {route for route in ROUTES if route[1].startswith(paths.STREAM)}

FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "127.0.0.1"},
    {"Host": "127.0.0.1:1"},
    {"Host": "localhost.evil.example:80"},
    {"Host": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "https://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


def test_the_router_was_read() -> None:
    assert len(ROUTES) > 15
    assert len(STREAMS) == 4


@pytest.mark.parametrize("profile", ["local", "shared"])
async def test_every_route_refuses_without_the_key(tmp_path: Path, profile: str) -> None:
    async with serving(tmp_path, profile=profile) as served:  # type: ignore[arg-type]
        for headers in ({}, {"Authorization": "Bearer lk_wrong"}, {"Authorization": "lk_test"}):
            async with httpx.AsyncClient(
                base_url=served.base_url, headers=headers, timeout=CLIENT_LIMIT_S
            ) as stranger:
                for method, path in ROUTES:
                    reply = await stranger.request(method, path)
                    if (method, path) in OPEN:
                        expected = OPEN[method, path]
                    elif path.count("/") == 5 and (method, path) in STREAMS:
                        expected = 404  # it has a secret of its own, which "x" is not
                    elif (method, path) in STREAMS and profile == "local":
                        expected = 404
                    else:
                        expected = 401
                    assert reply.status_code == expected, (method, path)


async def test_the_key_is_taken_from_its_header_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, httpx.AsyncClient(timeout=CLIENT_LIMIT_S) as stranger:
        url = f"{served.base_url}{paths.ORG}"
        for where in (
            {"params": {"api_key": "lk_test", "token": "lk_test", "access_token": "lk_test"}},
            {"cookies": {"token": "lk_test", "Authorization": "Bearer lk_test"}},
            {"headers": {"X-API-Key": "lk_test"}},
        ):
            stranger.cookies.update(where.pop("cookies", {}))
            assert (await stranger.get(url, **where)).status_code == 401  # type: ignore[arg-type]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_every_route_refuses_what_comes_from_elsewhere(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with serving(tmp_path) as served:
        for method, path in ROUTES:
            reply = await served.client.request(method, path, headers=headers)
            assert reply.status_code in (400, 403), (method, path, reply.text)


async def test_every_name_of_this_server_is_let_in(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        port = served.base_url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::1]"):
            own = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}"}
            reply = await served.client.get(
                paths.ORG, headers={**own, "Sec-Fetch-Site": "same-origin"}
            )
            assert reply.status_code == 200


async def test_every_reply_forbids_sniffing_framing_and_sharing(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        replies = [await served.client.request(method, path) for method, path in ROUTES]
        replies += [await served.client.get(paths.ORG, headers={"Host": "evil.example"})]
        replies += [await served.client.options(paths.ORG, headers={"Origin": "http://e"})]
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert not [name for name in reply.headers if name.startswith("access-control-")]


async def test_errors_nobody_expected_are_guarded_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:

        @served.app.get("/fail")
        async def fail() -> None:
            raise RuntimeError("detail for the log")

        reply = await served.client.get("/fail")
    assert reply.status_code == 500
    assert reply.json() == {"detail": "Internal Server Error"}
    assert reply.headers["x-frame-options"] == "DENY"


async def test_another_organisation_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for slug, status in (("local", 200), ("acme", 403), ("", 403)):
            reply = await served.client.get(paths.ORG, headers={"X-Org-Slug": slug})
            assert reply.status_code == status


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_a_body_that_is_not_json_is_refused_everywhere(
    tmp_path: Path, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    async with serving(tmp_path) as served:
        for method, path in ROUTES:
            is_upload = path in UPLOADS and content_type == "multipart/form-data"
            if method != "GET" and not is_upload:
                reply = await served.client.request(
                    method, path, content=b'{"code": "1"}', headers=headers
                )
                assert reply.status_code == 415, (method, path)


async def test_an_upload_that_is_not_multipart_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for path in UPLOADS:
            reply = await served.client.post(path, json={})
            assert reply.status_code == 415
            assert "multipart/form-data" in reply.json()["detail"]


async def test_a_body_over_the_limit_is_refused_whether_its_length_is_said_or_not(
    tmp_path: Path,
) -> None:
    async def chunks() -> object:
        for _ in range(17):
            yield b" " * 2**20

    headers = {"Content-Type": "application/json"}
    async with serving(tmp_path) as served:
        for content in (b" " * (MAX_BODY_BYTES + 1), chunks()):
            reply = await served.client.post(
                paths.START_PYTHON, content=content, headers=headers, timeout=30
            )
            assert reply.status_code == 413
            assert "16 MiB" in reply.json()["detail"]


async def test_a_request_with_two_host_headers_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        port = served.base_url.rpartition(":")[2]
        request = f"GET {paths.HEALTH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: e\r\n\r\n"
        answer = await _raw(int(port), request.encode())
    assert answer.split()[1] in (b"400", b"403")


async def test_a_websocket_is_not_opened(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        reply = await served.client.get(
            paths.ORG,
            headers={
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version": "13",
            },
        )
    assert reply.status_code != 101


async def _raw(port: int, request: bytes) -> bytes:
    import asyncio

    reader, writer = await asyncio.open_connection("127.0.0.1", port, family=socket.AF_INET)
    writer.write(request)
    try:
        return await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()
