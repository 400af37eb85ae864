"""A callback URL is a secret: the part after its host is found nowhere but sealed."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from lyceum_magic.protocol import paths
from tests.tools.callbacks import CallbackReceiver, receiving
from tests.tools.canaries import Canaries, forms
from tests.tools.embedded import end_server, run_folder, server_facts
from tests.tools.kernel import Cell, Kernel, running_kernel
from tests.tools.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

IN_PATH = 'canary~in"path\\é-51d0'
IN_QUERY = "canary+in&query=-77be"
VALUE = 'canary of the account / "ß" -2f96'
#: The account has no secret of that name; the URL that asks for it must stay hidden all the same.
REFERENCE = "NOBODY_KNOWS_CANARY_3c1a"
CANARIES = Canaries(
    path=IN_PATH, query=IN_QUERY, value=VALUE, reference="${TOKEN}", other="${" + REFERENCE + "}"
)

#: After the host: both literal canaries.
TAIL = f"/{quote(IN_PATH, safe='')}?a={quote(IN_QUERY, safe='')}"

GOES_ON = "print('begun', flush=True)\nimport time\ntime.sleep(600)"


def test_what_is_looked_for_is_found() -> None:
    hidden = [
        VALUE, quote(VALUE), json.dumps({"url": VALUE}), json.dumps(json.dumps(VALUE)),
        *(base64.b64encode(f"{'x' * n}{VALUE}y".encode()).decode() for n in range(5)),
    ]  # fmt: skip
    assert [CANARIES.in_text(text) for text in hidden] == [["value"]] * len(hidden)
    assert len(forms(VALUE)) > 6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def receiver() -> Iterator[CallbackReceiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def kernel(home: Path) -> Iterator[Kernel]:
    environment = {
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "LYCEUM_MAGIC_HOME": str(home / "lyceum"),
    }
    with running_kernel(environment) as kernel:
        assert kernel.run("%%lyceum\n1").error is None  # there is a server
        yield kernel
    end_server(home / "lyceum")


@pytest.fixture(scope="module")
def api(kernel: Kernel, home: Path) -> Iterator[httpx.Client]:
    facts = server_facts(home / "lyceum")
    with httpx.Client(
        base_url=facts["base_url"],
        headers={"Authorization": f"Bearer {facts['api_key']}"},
        trust_env=False,
        timeout=60,
    ) as client:
        secret = {"name": "TOKEN", "value": VALUE}
        assert client.post(paths.SECRETS, json=secret).status_code == 200
        yield client


def failing_urls(receiver: CallbackReceiver, own_port: int) -> dict[str, str]:
    """A URL for each way to fail, what it is called -> the URL with all canaries."""
    answers: dict[str, int | bytes] = {
        **{str(status): status for status in (302, 404, 410, 503)},
        "closed": b"",
        "garbage": b"canary?\r\n\r\n",
        "half": b"HTTP/1.1 200 OK\r\nContent-Le",
        "short": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    }
    tail = f"{TAIL}&t=${{TOKEN}}"
    for name, answer in answers.items():
        receiver.answers[f"/{name}{TAIL}&t={quote(VALUE, safe='')}"] = answer
    urls = {name: f"{receiver.origin}/{name}{tail}" for name in answers}
    return urls | {
        "refused": f"http://127.0.0.1:1{tail}",
        "own port": f"http://127.0.0.1:{own_port}{tail}",
        "no such host": f"https://nowhere.invalid{tail}",
        "no TLS": receiver.origin.replace("http:", "https:") + tail,
        "no such secret": f"{receiver.origin}/x{TAIL}&t=${{{REFERENCE}}}",
    }


class Heard:
    """The API, and all that it has ever answered."""

    def __init__(self, api: httpx.Client) -> None:
        self._api = api
        self.replies: list[str] = []

    def ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        reply = self._api.request(method, path, json=body)
        self.replies.append(reply.text)
        return reply

    def get(self, path: str) -> Any:
        return self.ask("GET", path).json()

    def start(self, code: str, urls: Sequence[str]) -> httpx.Response:
        body = {"code": code, "execution_type": "cpu", "user_callback_urls": [*urls]}
        return self.ask("POST", paths.START_PYTHON, body)


@pytest.mark.parametrize("state", ["completed", "failed", "aborted", "cancelled", "system_failure"])
def test_no_state_and_no_failure_shows_a_url(
    state: str, api: httpx.Client, receiver: CallbackReceiver, home: Path
) -> None:
    heard = Heard(api)
    urls = failing_urls(receiver, httpx.URL(api.base_url).port or 0)
    code = {"completed": "print(1)", "failed": "1 / 0"}.get(state, GOES_ON)
    reply = heard.start(code, [*urls.values()])
    assert reply.status_code == 200, reply.text
    run_id = reply.json()["execution_id"]
    if code == GOES_ON:
        path = paths.record(run_id)
        eventually(lambda: "begun" in heard.get(path)["stdout"], "the program begins")
        assert CANARIES.in_processes() == []
        end(heard, home / "lyceum", run_id, state)
    eventually(lambda: heard.get(paths.record(run_id))["status"] == state, f"it is {state}")

    def tried() -> list[dict[str, Any]] | None:
        found = heard.get(paths.run_deliveries(run_id))["deliveries"]
        return found if found and all(one["attempts"] for one in found) else None

    deliveries = eventually(tried, "an attempt at each")
    assert len(deliveries) == len(urls)
    for delivery in deliveries:
        details = heard.get(paths.delivery(delivery["delivery_id"]))
        assert details["error"], details
    for path in (paths.logs(run_id), paths.WORKLOADS, paths.HISTORY, paths.DELIVERY_HEALTH):
        heard.get(path)
    heard.ask("POST", paths.stream(run_id))
    assert [reply for reply in heard.replies if CANARIES.in_text(reply)] == []
    assert CANARIES.in_processes() == []
    assert list((home / "lyceum/servers").glob("*/server.log"))
    assert CANARIES.in_files(home) == []
    # What came shows that the canaries were really sent, and that the search knows them.
    came = {tuple(CANARIES.in_text(callback.path)) for callback in receiver.received}
    assert came == {("path", "query", "value")}


def end(heard: Heard, folder: Path, run_id: str, state: str) -> None:
    if state == "system_failure":
        facts = json.loads((run_folder(folder, run_id) / "supervisor.json").read_text())
        os.kill(facts["pid"], signal.SIGKILL)
    else:
        heard.ask("POST", {"aborted": paths.abort, "cancelled": paths.stop}[state](run_id))


def test_no_refusal_and_no_trial_shows_a_url(
    api: httpx.Client, receiver: CallbackReceiver, home: Path
) -> None:
    heard = Heard(api)
    for url in refused_urls():
        assert heard.start("1", [url]).status_code == 422, url
        assert heard.ask("POST", paths.TEST_CALLBACK, {"url": url}).status_code == 422, url
    for url in failing_urls(receiver, httpx.URL(api.base_url).port or 0).values():
        assert heard.ask("POST", paths.TEST_CALLBACK, {"url": url}).json()["error"]
    assert [reply for reply in heard.replies if CANARIES.in_text(reply)] == []
    assert CANARIES.in_files(home) == []


def refused_urls() -> list[str]:
    """One for each reason to refuse a URL at the start."""
    return [
        f"http://example.org{TAIL}",
        f"ftp://example.org{TAIL}",
        f"https://169.254.169.254{TAIL}",
        f"https://user:{quote(IN_QUERY, safe='')}@example.org{TAIL}",
        f"https://example.org:0{TAIL}",
        f"https://example.org:99999{TAIL}",
        f"https://example.org{TAIL}\\",
        f"https://example.org{TAIL} blank",
        f"https://[::1{TAIL}",
        f"https://${{TOKEN}}.example.org{TAIL}",
        TAIL,
        f"https://example.org{TAIL}#{'x' * 9000}",
    ]


def said(cell: Cell) -> str:
    """All that a cell put into the notebook, but for what was typed into it."""
    return str([m["content"] for m in cell.messages if m["msg_type"] != "execute_input"])


#: Ways of a URL into a cell; `hidden` is a variable, so that the cell's source has no canary.
CELLS = {
    "in Python": "import lyceum_magic\nlyceum_magic.submit('1', callback_urls=[hidden])",
    "image in Python": "lyceum_magic.submit_image('busybox', callback_urls=[hidden])",
    "stack in Python": "lyceum_magic.submit_compose('services: {}', callback_urls=hidden)",
    "by hand": "get_ipython().run_cell_magic('lyceum', '--callback ' + repr(hidden), '1')",
    "too many": "lyceum_magic.submit('1', callback_urls=[hidden + str(n) for n in range(20)])",
    "a dry run": (
        "get_ipython().run_cell_magic('lyceum', '--dry-run --callback ' + repr(hidden), '1')"
    ),
    "a test": "get_ipython().run_line_magic('lyceum', 'callbacks test ' + repr(hidden))",
    "for the notebook": (
        "magics = get_ipython().find_magic('lyceum').__self__\n"
        "magics.callback_urls = [hidden]\n"
        "try: get_ipython().run_cell_magic('lyceum', '', '1')\n"
        "finally: magics.callback_urls = []"
    ),
    "with an unknown option": (
        "get_ipython().run_cell_magic('lyceum', '--nope --callback ' + repr(hidden), '1')"
    ),
    "on an unknown machine": (
        "get_ipython().run_cell_magic('lyceum', '-m nope --callback ' + repr(hidden), '1')"
    ),
    "where the code is wrong": (
        "get_ipython().run_cell_magic('lyceum', '--callback ' + repr(hidden), '1 +')"
    ),
}


def test_no_cell_shows_a_url(
    kernel: Kernel, api: httpx.Client, receiver: CallbackReceiver, home: Path
) -> None:
    kernel.run("%xmode Verbose")
    good, first = f"{receiver.origin}{TAIL}&t=${{TOKEN}}", refused_urls()[0]
    cases = [(name, url) for name in CELLS for url in (good, first)]
    cases += [("by hand", url) for url in refused_urls()]
    leaks = []
    for name, url in cases:
        # Backwards, so that neither the notebook nor the history of what was typed holds it.
        assert kernel.run(f"hidden = {url[::-1]!r}[::-1]").error is None
        if found := CANARIES.in_text(shown := said(kernel.run(CELLS[name]))):
            leaks.append((name, url, found, shown))
    assert [leak[:3] for leak in leaks] == [], leaks[0]
    listed = kernel.run("%lyceum callbacks")
    assert listed.error is None
    assert CANARIES.in_text(said(listed) + said(kernel.run("%lyceum doctor"))) == []
    assert CANARIES.in_files(home) == []
    assert CANARIES.in_processes() == []


@pytest.mark.parametrize(
    "call",
    [
        "submit_image('no image', registry='basic', registry_user='me', registry_password=hidden)",
        "submit_image('i', registry_user='me', registry_password=hidden)",
        "submit_compose(7, registry='basic', registry_user='me', registry_password=hidden)",
    ],
)
def test_no_traceback_with_values_shows_a_password(kernel: Kernel, call: str) -> None:
    kernel.run("%xmode Verbose")
    kernel.run("import lyceum_magic; hidden = 'hunter22-' + 'canary'")
    result = kernel.run(f"lyceum_magic.{call}")
    assert result.error is not None
    assert "hunter22-canary" not in said(result)


def test_no_configuration_shows_a_url(kernel: Kernel) -> None:
    shown = []
    for value in ("hidden", "[hidden, 'here']", "[(hidden,)]", "hidden.encode()", "7"):
        kernel.run(f"hidden = {'https://example.org/canary'[::-1]!r}[::-1]")
        shown += [
            said(kernel.run(f"%config LyceumMagics.callback_urls = {value}")),
            said(kernel.run("%config LyceumMagics.callback_urls")),
            said(kernel.run("%config LyceumMagics")),
        ]
    kernel.run("%config LyceumMagics.callback_urls = []")
    assert "/canary" not in str(shown)
    assert "['https://example.org/...', 'here']" in shown[4]
    assert "callback URLs are texts, not a tuple" in shown[6]
    assert "callback URLs are texts, not a int" in shown[12]
