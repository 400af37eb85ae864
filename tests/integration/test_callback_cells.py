"""`%lyceum callbacks` in a real kernel, on the embedded server, with a real receiver."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.callbacks import CallbackReceiver, receiving
from tests.tools.embedded import end_server, server_process
from tests.tools.kernel import Cell, Kernel, running_kernel
from tests.tools.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

CANARY = "canary-93c7"
BAD = f"/{CANARY}/bad"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def kernel(home: Path) -> Iterator[Kernel]:
    state = home / "lyceum"
    with running_kernel({"HOME": str(home), "LYCEUM_MAGIC_HOME": str(state)}) as kernel:
        yield kernel
    end_server(state)


@pytest.fixture(scope="module")
def receiver() -> Iterator[CallbackReceiver]:
    with receiving() as receiver:
        receiver.answers[BAD] = 503
        yield receiver


def run_with(kernel: Kernel, *urls: str) -> None:
    options = " ".join(f"--callback {url}" for url in urls)
    cell = kernel.run(f"%%lyceum {options}\nprint(1)")
    assert cell.error is None, cell


def shown(kernel: Kernel, line: str) -> str:
    """The answer of `%lyceum callbacks`, in which no URL stands whole."""
    cell = kernel.run(f"%lyceum callbacks {line}")
    assert cell.error is None, cell
    assert CANARY not in said(cell)
    return cell.result


def said(cell: Cell) -> str:
    """All that a cell put into the notebook, but for what was typed into it."""
    return str([m["content"] for m in cell.messages if m["msg_type"] != "execute_input"])


def once(kernel: Kernel, line: str, state: str) -> str:
    """The table as soon as a delivery is in a state."""
    return eventually(
        lambda: found if state in (found := shown(kernel, line)) else None, f"{line}: {state}"
    )


def row_of_doctor(kernel: Kernel) -> str:
    found = re.search(r"^callbacks .*$", kernel.run("%lyceum doctor").result, re.M)
    assert found is not None
    return found[0]


def test_a_run_with_two_callbacks_from_its_first_try_to_its_redelivery(
    kernel: Kernel, receiver: CallbackReceiver
) -> None:
    run_with(kernel, f"{receiver.origin}/{CANARY}/good", f"{receiver.origin}{BAD}")
    once(kernel, "last", "delivered")
    table = once(kernel, "last", "503")
    assert re.search(rf"^msg_\w{{8}}  \w{{8}}  {receiver.origin}/\.\.\.  delivered  1", table, re.M)
    first, second = (
        re.sub(r"in \d.*? s", "in ... s", shown(kernel, line)) for line in ("", "list")
    )
    assert first == second
    waiting = re.search(r"^(msg_\w{8}) .* pending .* in \d", table, re.M)
    assert waiting is not None
    details = shown(kernel, waiting[1])
    assert re.search(r"^1 +\d{4}-.{14}  127\.0\.0\.1  .*503.* ms  \d{4}-", details, re.M)
    assert "1 callback waits, 1 of them after a failed try; next try in" in row_of_doctor(kernel)

    receiver.answers[BAD] = 204
    again = shown(kernel, f"redeliver {waiting[1]}")
    assert again == (
        f"The callback to {receiver.origin}/... is sent again now; `%lyceum callbacks "
        f"{waiting[1]}` shows what comes of it."
    )
    assert "took it (204)" in once(kernel, waiting[1], "delivered")
    first, second = receiver.at(BAD, 2)
    assert first.body == second.body
    assert shown(kernel, "redeliver last").startswith("No callback of this run is left to be sent")
    assert "none waits" in row_of_doctor(kernel)


def test_a_url_is_tried(kernel: Kernel, receiver: CallbackReceiver) -> None:
    took = shown(kernel, f"test {receiver.origin}/{CANARY}/good")
    where = re.escape(f"{receiver.origin}/...")
    assert re.fullmatch(
        rf"{where} took the test callback: it answered 204 \(\d+ ms, 127\.0\.0\.1\)\.", took
    )
    receiver.answers[BAD] = 503
    refused = shown(kernel, f"test {receiver.origin}{BAD}")
    assert re.fullmatch(
        r"The test callback was not taken: .*503.* \(\d+ ms, 127\.0\.0\.1\)\.", refused
    )
    assert shown(kernel, f"test http://127.0.0.1:1/{CANARY}").startswith(
        "The test callback was not taken: http://127.0.0.1:1/... could not be connected to"
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("test", "required: URL"),
        (f"test http://example.org/{CANARY}", "http://example.org/... is not encrypted"),
        (f"test https://me:{CANARY}@example.org/", "cannot hold a user or a password"),
        (f"https://example.org/{CANARY}", "`%lyceum callbacks test URL`"),
        (f"nonsense https://example.org/{CANARY}", "unrecognized arguments: https://example.org/..."),
        ("msg_nonsense", "No delivery begins with 'msg_nonsense'"),
        ("redeliver msg_", "More than one delivery begins with 'msg_'"),
        ("rm nonsense", "No run begins with 'nonsense'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(
    kernel: Kernel, receiver: CallbackReceiver, line: str, reason: str
) -> None:
    cell = kernel.run(f"%lyceum callbacks {line}")
    assert cell.error is not None, cell
    (sentence,) = cell.error["traceback"]
    assert reason in sentence
    assert CANARY not in said(cell)


def test_the_secret_is_had_without_being_shown(kernel: Kernel) -> None:
    masked = shown(kernel, "secret")
    assert masked.startswith("whsec_…")
    had = kernel.run("import lyceum_magic\nsecret = lyceum_magic.signing_secret()\nsecret")
    assert had.result == "Secret('***')"
    whole = shown(kernel, "secret --show").split()[0]
    assert whole.startswith("whsec_")
    assert kernel.value(f"secret.reveal() == {whole!r}") == "True"
    assert whole not in masked
    rotated = shown(kernel, "secret --rotate")
    assert "The one before it signs beside it until" in rotated
    assert whole not in rotated


def test_what_waits_is_told_by_doctor_when_no_server_runs(
    kernel: Kernel, receiver: CallbackReceiver, home: Path
) -> None:
    receiver.answers[BAD] = 503
    run_with(kernel, f"{receiver.origin}{BAD}")
    once(kernel, "last", "503")
    end_server(home / "lyceum")
    assert "1 callback waits for the next start of the server" in row_of_doctor(kernel)
    assert server_process(home / "lyceum") is None
    receiver.answers[BAD] = 204
    once(kernel, "last", "delivered")
    assert "none waits" in row_of_doctor(kernel)
