"""Outputs of a cell hold no secret of the account, in any form."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.outputs.decoding import Display, SavedFile, Value
from lyceum_magic.outputs.frames import FrameReader, Message
from lyceum_magic.protocol.limits import MIN_MASKED_CHARACTERS
from lyceum_magic.remote import frames, masking
from lyceum_magic.remote.values import unpack
from tests.unit.remote.interpreters import INTERPRETERS
from tests.unit.remote.marked import MARK, Ended, run_marked
from tests.unit.server.output.test_masking import reference

TOKEN = "t0ken<&'\"\\>é\nend"


@pytest.fixture(params=INTERPRETERS.values(), ids=INTERPRETERS.keys())
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    monkeypatch.setenv("WORD", "short")
    monkeypatch.setenv("LYCEUM_SECRET_NAMES", "TOKEN,WORD,GONE")


def shown(ended: Ended) -> list[Display]:
    return [item for item in ended.items if isinstance(item, Display)]


def test_the_value_of_the_last_expression_is_masked(python: str, tmp_path: Path) -> None:
    ended = run_marked("import os\n(os.environ['TOKEN'], os.environ['WORD'])", tmp_path, python)
    assert ended.results == ["('***', 'short')"]


def test_a_cell_that_takes_the_variable_away_is_masked_all_the_same(
    python: str, tmp_path: Path
) -> None:
    cell = "import os\nname = os.environ.pop('TOKEN')\nos.environ.clear()\n[name]"
    assert run_marked(cell, tmp_path, python).results == ["['***']"]


def test_every_text_of_a_bundle_is_masked_and_images_are_not(python: str, tmp_path: Path) -> None:
    image = base64.b64encode(b"\x89PNG t0ken").decode()
    cell = f"""
import os, html, json
token = os.environ["TOKEN"]
publish = display
publish({{
    "text/plain": "a " + token + " b",
    "text/html": "<b>" + html.escape(token) + html.escape(token, quote=False) + "</b>",
    "application/json": {{token: [token, 1, {{"k": token}}]}},
    "application/x-log": json.dumps(token) + repr(token),
    "image/png": {image!r},
}}, metadata={{"text/plain": {{"title": token}}}}, raw=True)
"""
    ended = run_marked(cell, tmp_path, python)
    assert ended.return_code == 0, ended.stderr
    (display,) = shown(ended)
    assert display.data == {
        "text/plain": "a *** b",
        "text/html": "<b>******</b>",
        "application/json": {"***": ["***", 1, {"k": "***"}]},
        "application/x-log": "\"***\"'***'",
        "image/png": image,
    }
    assert display.metadata == {"text/plain": {"title": "***"}}


def test_what_the_cell_raises_is_masked_in_data_and_in_readable_text(
    python: str, tmp_path: Path
) -> None:
    cell = """
import os
try:
    {}[os.environ["TOKEN"]]
except KeyError as exc:
    raise ValueError("no " + os.environ["TOKEN"] + "!") from exc
"""
    ended = run_marked(cell, tmp_path, python)
    values = [one["value"] for one in ended.raised["exceptions"]]
    assert values == ["no ***!", "'***'"]
    assert "ValueError: no ***!" in ended.readable_stderr
    assert "t0ken" not in ended.readable_stderr


def test_values_that_are_asked_back_are_what_they_are(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", "answer")
    cell = "import os\nanswer = os.environ['TOKEN']\nopen('answer.txt', 'w').write(answer)"
    ended = run_marked(cell, tmp_path, python, outputs=["answer"], save=["*.txt", "*.answer"])
    (value,) = (item for item in ended.items if isinstance(item, Value))
    assert (value.name, unpack(value.data, allow_pickle=False)) == ("answer", TOKEN)
    saved, missing = (item for item in ended.items if isinstance(item, SavedFile))
    assert (saved.path, saved.data.decode()) == ("answer.txt", TOKEN)
    assert missing.path == "*.answer"
    assert missing.problem == "--save *.***: the cell wrote no such file"


def test_a_frame_of_any_kind_is_masked_without_the_senders_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(frames, "_write", lambda _, frame: written.append(frame))
    monkeypatch.setattr(frames, "_mark", MARK)
    monkeypatch.setattr(frames, "secrets", [TOKEN])
    monkeypatch.setattr(frames, "_mask", None)  # put back at the end
    head = {"text": TOKEN, "deep": [{TOKEN: (1, None, True, 0.5, TOKEN)}, Path(TOKEN)]}
    frames.send("novelty", head, TOKEN.encode(), exact={"name": TOKEN}, readable=f"[{TOKEN}]")
    (message,) = FrameReader(MARK).feed(b"".join(written).decode())
    assert isinstance(message, Message)
    assert message.readable == "[***]"
    assert message.data == TOKEN.encode()
    (inner, path) = message.head.pop("deep")
    assert message.head == {"text": "***", "name": TOKEN}
    assert inner == {"***": [1, None, True, 0.5, "***"]}
    assert path.endswith("Path('***')")


def test_without_the_variable_nothing_is_masked_and_nothing_imported(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LYCEUM_SECRET_NAMES")
    cell = "import os, sys\n(os.environ['TOKEN'], 'lyceum_magic_remote.masking' in sys.modules)"
    assert run_marked(cell, tmp_path, python).results == [repr((TOKEN, False))]


@given(st.lists(st.text("ab", min_size=6, max_size=9), max_size=3), st.text("ab", max_size=60))
def test_both_ends_mask_the_same_text(secrets: list[str], text: str) -> None:
    assert masking.Mask(secrets).text(text) == reference(secrets, text)


def test_both_ends_mask_values_of_the_same_length() -> None:
    assert masking.MIN_CHARACTERS == MIN_MASKED_CHARACTERS
