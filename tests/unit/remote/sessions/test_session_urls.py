"""The files of a session by URLs: storages that fail, break off, refuse, or know no ranges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.remote import session_urls
from lyceum_magic.remote.packs import Broken
from lyceum_magic.remote.session_urls import GAP_BYTES, UrlStore, joined

PACK = "a" * 32
CONTENT = bytes(range(256)) * 40
SIGNATURE = "X-Amz-Signature=canary"


class Storage(BaseHTTPRequestHandler):
    """A storage that answers as the test says, or else keeps what is put and answers ranges."""

    script: list[Callable[[Storage], None]]
    asked: list[str]
    objects: dict[str, bytes]

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("Range", ""))
        if self.script:
            self.script.pop(0)(self)
            return
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = CONTENT[first : last + 1]
        self.reply(206, part, **{"Content-Range": f"bytes {first}-{last}/{len(CONTENT)}"})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(f"put {len(body)}")
        if self.script:
            self.script.pop(0)(self)
            return
        self.objects[self.path.partition("?")[0]] = body
        self.reply(200)

    def reply(
        self, status: int, body: bytes = b"", size: int | None = None, **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[Storage], str]]:
    monkeypatch.setattr(session_urls, "PAUSES_S", (0.0, 0.0, 0.0))
    kind = type("OneStorage", (Storage,), {"script": [], "asked": [], "objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield kind, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def store(address: str) -> UrlStore:
    names = ("manifest", "put_pack", "put_manifest")
    urls: dict[str, Any] = {name: f"{address}/{name}?{SIGNATURE}" for name in names}
    return UrlStore({**urls, "packs": {PACK: f"{address}/pack?{SIGNATURE}"}})


def fetched(address: str, *spans: tuple[int, int]) -> bytes:
    """Return the fetched bytes of a pack: those of the spans, one after the other."""
    one = store(address)
    one.prepare([[PACK, start, end - start, ""] for start, end in spans])
    content = Path(one.path_of(PACK)).read_bytes()
    return b"".join(content[start:end] for start, end in spans)


def fails(status: int) -> Callable[[Storage], None]:
    return lambda request: request.reply(status, b"<Error>canary</Error>")


def test_pieces_near_each_other_are_one_request(storage: tuple[type[Storage], str]) -> None:
    kind, address = storage
    assert fetched(address, (0, 10), (500, 510), (900, 900)) == CONTENT[:10] + CONTENT[500:510]
    assert kind.asked == ["bytes=0-509"]
    far = 20 + GAP_BYTES
    assert list(joined([(far + 1, far + 2), (0, 20), (5, 9), (7, 7)])) == [
        (0, 20),
        (far + 1, far + 2),
    ]


def test_a_piece_is_fetched_once(storage: tuple[type[Storage], str]) -> None:
    kind, address = storage
    one = store(address)
    for _ in range(2):
        one.prepare([[PACK, 3, 4, ""]])
    assert kind.asked == ["bytes=3-6"]


def test_a_request_goes_on_where_it_broke_off(storage: tuple[type[Storage], str]) -> None:
    kind, address = storage
    kind.script += [
        fails(503),
        lambda request: request.reply(206, CONTENT[8:4008], 8000),  # and hangs up
        lambda request: setattr(request, "close_connection", True),  # no answer at all
    ]
    assert fetched(address, (8, 8008)) == CONTENT[8:8008]
    assert kind.asked == ["bytes=8-8007"] * 2 + ["bytes=4008-8007"] * 2


@pytest.mark.parametrize("span", ["", "bytes 100-199/10240"])
def test_a_storage_that_knows_no_ranges_sends_all(
    storage: tuple[type[Storage], str], span: str
) -> None:
    kind, address = storage
    headers = {"Content-Range": span} if span else {}
    body = CONTENT[100:200] if span else CONTENT
    kind.script.append(lambda request: request.reply(200, body, **headers))
    assert fetched(address, (100, 200)) == CONTENT[100:200]


@pytest.mark.parametrize(
    ("status", "said", "count"),
    [(403, "answered 403, as it does when the cell's URLs have ended", 1),
     (404, "answered 404, it is not there", 1), (500, "answered 500", 4), (429, "answered 429", 4)],
)  # fmt: skip
def test_a_refusal_is_one_sentence_without_a_url(
    storage: tuple[type[Storage], str], status: int, said: str, count: int
) -> None:
    kind, address = storage
    kind.script += [fails(status)] * 9
    with pytest.raises(Broken, match=said) as refusal:
        fetched(address, (0, 5))
    error: BaseException | None = refusal.value
    while error is not None:
        assert "canary" not in f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or error.__context__
    assert len(kind.asked) == count


def test_a_pack_that_is_too_short_is_named(storage: tuple[type[Storage], str]) -> None:
    kind, address = storage
    kind.script.append(lambda request: request.reply(206, CONTENT[:3]))
    with pytest.raises(Broken, match=f"the end of the pack {PACK} is missing"):
        fetched(address, (0, 5))


def test_the_pack_is_put_whole_before_the_manifest(storage: tuple[type[Storage], str]) -> None:
    kind, address = storage
    one = store(address)
    Path(one.draft_of("b")).write_bytes(CONTENT)
    kind.script += [fails(500), fails(503)]
    one.publish("b", b"{}")
    assert kind.asked == ["put 10240"] * 3 + ["put 2"]
    assert kind.objects == {"/put_pack": CONTENT, "/put_manifest": b"{}"}
    assert not Path(one.draft_of("b")).exists()


def test_a_pack_that_cannot_be_put_leaves_no_manifest(storage: tuple[type[Storage], str]) -> None:
    kind, address = storage
    one = store(address)
    Path(one.draft_of("b")).write_bytes(CONTENT)
    kind.script.append(fails(403))
    with pytest.raises(Broken, match=r"the new pack cannot be written: .* answered 403"):
        one.publish("b", b"{}")
    assert kind.objects == {}
    one.clean("b")
    assert not Path(one.draft_of("b")).exists()
