"""A session whose files are missing, cut, changed or too large: a sentence, and the head works."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.remote import packs
from lyceum_magic.submission.wrapping import wrap_cell
from tests.unit.remote.sessions.cells import Chain
from tests.unit.remote.sessions.keeper import in_child, job, run_cell


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path / "session")


def pack_of(chain: Chain, cell: int) -> Path:
    return chain.folder / "packs" / f"{cell:032x}.pack"


def rewrite(chain: Chain, **changes: Any) -> None:
    """Change the head's manifest, and the head with it."""
    assert chain.head is not None
    content = json.dumps({**chain.manifest, **changes}).encode()
    (chain.folder / "cells" / f"{chain.head['id']}.json").write_bytes(content)
    chain.head["sha256"] = hashlib.sha256(content).hexdigest()


# --- broken files


def after(folder: Path, source: str, step: dict[str, Any]) -> Any:
    (error, told, _), run = run_cell(folder, source, step)
    return {"error": error, "told": told, "failed": run._restored.failed}


@pytest.mark.parametrize(
    "step", [211, pytest.param(1, marks=[pytest.mark.exhaustive, pytest.mark.timeout(3600)])]
)
def test_every_cut_of_a_pack_and_of_a_manifest_is_found(tmp_path: Path, step: int) -> None:
    told = in_child(after, tmp_path, "x = [1]\ndef f(): return x\ny = 'a' * 50", job(1, None))[
        "told"
    ]
    parent = {"id": told["id"], "sha256": told["sha256"]}
    for path in (tmp_path / "packs" / f"{1:032x}.pack", tmp_path / "cells" / f"{1:032x}.json"):
        content = path.read_bytes()
        for length in range(0, len(content), step):
            path.write_bytes(content[:length])
            ended = in_child(after, tmp_path, "globals()", job(2, parent))
            problems = [ended["error"] or "", *ended["failed"].values()]
            assert any("missing" in text or "not as it was" in text for text in problems), ended
            for left in ("packs", "cells"):
                for file in (tmp_path / left).glob(f"{2:032x}*"):
                    file.unlink()
        path.write_bytes(content)
    assert in_child(after, tmp_path, "assert f() is x", job(2, parent))["error"] is None


def test_a_changed_byte_of_a_pickle_is_found_before_it_is_loaded(chain: Chain) -> None:
    chain.run("x = 'secret word'\ny = 2")
    pack = pack_of(chain, 1)
    pack.write_bytes(pack.read_bytes().replace(b"secret word", b"public word"))
    value = chain.run("print(y)\nx").raised["exceptions"][0]["value"]
    assert "could not restore it here: the pack" in value
    assert "is not as it was saved" in value


@pytest.mark.parametrize("what", ["manifest", "changed", "pack"])
def test_a_missing_or_changed_file_ends_the_cell_with_a_sentence(chain: Chain, what: str) -> None:
    chain.run("x = 1")
    path = chain.folder / "cells" / f"{1:032x}.json"
    content = path.read_bytes()
    if what == "pack":
        pack_of(chain, 1).unlink()
    elif what == "changed":
        path.write_bytes(content.replace(b'"cell": 1', b'"cell": 7'))
    else:
        path.unlink()
    ended = chain.run("print('never')")
    assert (ended.stdout, ended.session.sha256) == ("", "")
    error = ended.raised["exceptions"][0]
    assert error["type"] == "SessionError"
    assert "cannot be continued" in error["value"]
    if what != "pack":
        path.write_bytes(content)
        assert chain.value("x") == "1"


# --- limits


def test_a_state_beyond_its_limit_leaves_the_head_where_it_was(chain: Chain) -> None:
    chain.run("x = 1")
    ended = chain.run("big = bytes(range(256)) * 400", limits={"state_bytes": 50_000})
    assert "limit" in ended.session.error
    assert ended.session.sha256 == ""
    assert sorted(file.name for file in (chain.folder / "packs").iterdir()) == [f"{1:032x}.pack"]
    assert chain.value("x") == "1"


def test_a_pickle_beyond_its_limit_loses_that_name_alone(chain: Chain) -> None:
    ended = chain.run("x = 1\nbig = ['a' * 1000 for _ in range(100)]", limits={"pickle_bytes": 900})
    assert set(ended.lost) == {"big"}
    assert "limit" in ended.lost["big"]
    assert chain.value("x") == "1"


def test_a_save_that_takes_too_long_leaves_the_head_where_it_was(chain: Chain) -> None:
    chain.run("x = 1")
    cell = (
        "class Slow:\n    def __reduce__(self):\n        import threading\n"
        "        threading.Event().wait(300)\ns = Slow()"
    )
    ended = chain.run(cell, limits={"save_s": 1})
    assert ended.session.error == "saving took more than 1 s."
    assert ended.return_code == 0
    assert chain.value("x") == "1"


def test_a_full_storage_is_one_sentence(chain: Chain) -> None:
    chain.run("x = 1")
    (chain.folder / "packs").rename(chain.folder / "gone")
    (chain.folder / "packs").write_text("no folder")
    ended = chain.run("x = 2")
    (chain.folder / "packs").unlink()
    (chain.folder / "gone").rename(chain.folder / "packs")
    assert ended.session.sha256 == ""
    assert chain.value("x") == "1"


# --- large arrays


def test_only_the_chunks_that_changed_are_written_again(chain: Chain) -> None:
    chain.run("import numpy as np\na = np.arange(5_000_000.0)\nb = np.ones(100_000)")
    assert chain.run("a[0] = 7\nprint(a[-1])").stdout == "4999999.0\n"
    if packs.is_untouched(id(chain), 1) or os.path.exists("/proc/self/pagemap"):
        assert pack_of(chain, 2).stat().st_size < packs.CHUNK_BYTES + 100_000
    chain.run("print(a[0], a.sum(), b.sum())")
    assert pack_of(chain, 3).stat().st_size < 100_000
    assert chain.value("a[0], a[1], a.shape, b.sum()") == (
        "(np.float64(7.0), np.float64(1.0), (5000000,), np.float64(100000.0))"
    )


# --- other machines


def test_code_of_another_python_is_refused_and_data_is_restored(chain: Chain) -> None:
    chain.run("x = [1]\ndef f(): return 1\nd = {'f': f}")
    groups = [{**group, "python": "3.5"} for group in chain.manifest["groups"]]
    rewrite(chain, groups=groups, python="3.5")
    ended = chain.run("print(x)\nf()")
    assert ended.stdout == "[1]\n"
    assert (
        "it holds code of Python 3.5, and this is Python" in ended.raised["exceptions"][0]["value"]
    )
    rewrite(chain, groups=[{**g, "python": groups and _python()} for g in chain.manifest["groups"]])
    assert chain.value("f(), d['f'] is f") == "(1, True)"


def _python() -> str:
    import sys

    return "{}.{}".format(*sys.version_info[:2])


def test_a_package_that_is_missing_here_is_named_and_its_values_stay(
    chain: Chain, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "extra_things.py").write_text("class Thing: pass\n")
    there = {"PYTHONPATH": str(tmp_path / "site")}
    chain.run("import extra_things\no = extra_things.Thing()\nx = 1", variables=there)
    value = chain.run("print(x)\no").raised["exceptions"][0]["value"]
    assert "extra_things is not installed" in value
    ended = chain.run("print(type(o) is extra_things.Thing)", variables=there)
    assert ended.stdout == "True\n"


# --- secrets


def test_secrets_of_the_account_are_in_no_file(chain: Chain) -> None:
    secrets = {"LYCEUM_SECRET_NAMES": "TOKEN", "TOKEN": "word-of-the-account"}
    chain.run(
        "import os\nos.environ['TOKEN'] += '-changed'\n"
        "os.environ['MY'] = 'a' + os.environ['TOKEN']\n"
        "os.environ['PLAIN'] = 'plain'",
        variables=secrets,
    )
    contents = b"".join(path.read_bytes() for path in chain.folder.rglob("*") if path.is_file())
    assert b"word-of-the-account" not in contents
    assert chain.value("__import__('os').environ.get('PLAIN')") == "'plain'"


# --- lookups by text


def test_a_pickle_of_the_program_finds_its_classes(chain: Chain) -> None:
    chain.run("import pickle\nclass A: pass\npickle.dump(A(), open('a.pickle', 'wb'))")
    ended = chain.run(
        "import pickle\nwith open('a.pickle', 'rb') as f:\n    print(type(pickle.load(f)))"
    )
    assert ended.stdout == "<class '__main__.A'>\n"


# --- cells without a session


def test_a_cell_without_a_session_carries_none_of_it() -> None:
    program = wrap_cell("1", mark="0" * 12)
    assert not any(f"'{name}':" in program for name in ("session", "packs", "cloudpickle"))
    assert "'cloudpickle':" in wrap_cell("1", mark="0" * 12, session={"key": "a"})


# --- a bucket


class Bucket(BaseHTTPRequestHandler):
    """A storage that keeps what is put, and answers ranges."""

    objects: dict[str, bytes]

    def do_GET(self) -> None:
        content = self.objects.get(self.path)
        if content is None:
            self.send_error(404)
            return
        status = 200
        if span := self.headers.get("Range"):
            first, last = map(int, span.removeprefix("bytes=").split("-"))
            status, content = 206, content[first : last + 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def bucket() -> Iterator[tuple[str, dict[str, bytes]]]:
    kind = type("OneBucket", (Bucket,), {"objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kind.objects  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_session_works_through_urls_alone(
    bucket: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    address, objects = bucket

    def after_urls(cell: int, source: str, parent: dict[str, str] | None) -> Any:
        before = sorted(path for path in objects if path.endswith(".pack"))
        step = job(cell, parent)
        step["urls"] = {
            "manifest": f"{address}/{parent['id']}.json" if parent else "",
            "packs": {path[1:-5]: address + path for path in before},
            "put_pack": f"{address}/{cell:032x}.pack",
            "put_manifest": f"{address}/{cell:032x}.json",
        }
        ended = in_child(after, tmp_path, source, step)
        return ended, {"id": ended["told"].get("id"), "sha256": ended["told"].get("sha256")}

    ended, head = after_urls(1, "import numpy as np\na = np.arange(3e5)\nx = [1]\nv = a[5:9]", None)
    assert ended["told"]["error"] == ""
    ended, head = after_urls(2, "assert v[0] == 5\na[5] = 0\ny = 3", head)
    assert (ended["error"], ended["told"]["error"]) == (None, "")
    ended, head = after_urls(3, "assert (v[0], x, y, a[6]) == (0, [1], 3, 6)", head)
    assert (ended["error"], ended["told"]["error"]) == (None, "")
    objects[f"/{3:032x}.pack"] = b""
    del objects[f"/{2:032x}.pack"]
    ended, _ = after_urls(4, "a", head)
    assert "missing" in (ended["error"] or "")
