"""Secrets do not reach the spool, however a program's output is cut, and frames do."""

from __future__ import annotations

import html
import json
import os
import xml.sax.saxutils
from base64 import b64encode
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lyceum_magic.outputs.frames import FrameReader, Message
from lyceum_magic.protocol.events import StreamName
from lyceum_magic.remote.frames import MAX_FRAME_BYTES, encode
from lyceum_magic.server.output.masking import (
    SECRET_NAMES,
    Masker,
    SecretTexts,
    TextMasker,
    program_variables,
)
from lyceum_magic.server.output.spool import SpoolWriter, read_spool

MARK = "0123456789ab"
STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")

# Few letters, so that secrets overlap, contain each other and nearly match all the time.
letters = st.text("ab", max_size=60)
secrets_of_letters = st.lists(st.text("ab", min_size=6, max_size=12), min_size=1, max_size=4)
cuts = st.lists(st.integers(0, 200), max_size=8)


def reference(secrets: Iterable[str], text: str) -> str:
    """The same by definition: what overlaps is one, and each one becomes `***`."""
    occurrences = sorted(
        (start, start + len(secret))
        for secret in secrets
        for start in range(len(text))
        if text.startswith(secret, start)
    )
    masked, done = "", 0
    for start, end in occurrences:
        if start >= done or not done:
            masked += text[done:start] + "***"
        done = max(done, end)
    return masked + text[done:]


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def masked(secrets: Iterable[str], parts: Iterable[bytes]) -> bytes:
    masker = Masker(SecretTexts(secrets))
    return b"".join([*(masker.feed(part) for part in parts), masker.close()])


@given(secrets_of_letters, letters, cuts)
@example(["aabbaa", "baabbaab"], "baabbaaabbaa", [8])
@example(["aaaaaa"], "aaaaaaaaaaaaa", [6, 7])
def test_any_cut_gives_the_text_that_the_definition_gives(
    secrets: list[str], text: str, cuts: list[int]
) -> None:
    assert masked(secrets, pieces(text.encode(), cuts)).decode() == reference(secrets, text)


@given(secrets_of_letters, letters)
def test_byte_by_byte_no_secret_is_ever_whole(secrets: list[str], text: str) -> None:
    masker = Masker(SecretTexts(secrets))
    out = b""
    for byte in text.encode():
        out += masker.feed(bytes([byte]))
        assert not any(secret.encode() in out for secret in secrets)
    out += masker.close()
    assert out.decode() == reference(secrets, text)


@given(st.lists(st.text("é€😀ab", min_size=6, max_size=9), min_size=1), st.text("é€😀ab"), cuts)
def test_characters_of_several_bytes_are_secrets_too(
    secrets: list[str], text: str, cuts: list[int]
) -> None:
    assert masked(secrets, pieces(text.encode(), cuts)).decode() == reference(secrets, text)


@given(secrets_of_letters, letters)
@example(["baabbb"], "baabbba")
def test_only_the_beginning_of_a_secret_is_held_back(secrets: list[str], text: str) -> None:
    masker = TextMasker(SecretTexts(secrets))
    out = masker.feed(text.encode())
    held = masker.close().decode()
    if held and "***" not in held:
        # The secret may have begun earlier, inside one that is masked already.
        begun = [text[start:] for start in range(len(text) - len(held) + 1)]
        assert text.endswith(held)
        assert any(secret.startswith(end) for secret in secrets for end in begun)
    assert (out.decode() + held) == reference(secrets, text)


def test_a_secret_at_the_end_shows_its_mask_at_once() -> None:
    masker = Masker(SecretTexts(["hunter22"]))
    assert masker.feed(b"it is hunter22") == b"it is ***"
    assert masker.feed(b"2\n") == b"2\n"
    assert masker.close() == b""


def test_the_beginning_of_a_secret_waits_for_what_follows_or_for_the_end() -> None:
    masker = Masker(SecretTexts(["password123"]))
    assert masker.feed(b"Enter password") == b"Enter "
    assert masker.feed(b": ") == b"password: "
    assert masker.feed(b"pass") == b""
    assert masker.close() == b"pass"


@pytest.mark.parametrize(
    ("secret", "printed"),
    [
        ("tab\there", repr("tab\there")),
        ("quote'\"and\\", repr("quote'\"and\\")),
        ("-----BEGIN-----\nkey", r'{"key": "-----BEGIN-----\nkey"}'),
        ("schlüssel", r'"schl\u00fcssel"'),
    ],
)
def test_a_secret_is_masked_as_python_and_json_write_it(secret: str, printed: str) -> None:
    out = masked([secret], [printed.encode()]).decode()
    assert "***" in out
    assert not any(part in out for part in ("here", "and", "BEGIN", "schl"))


#: Of whom none is the same in any two of the forms.
ODD = "t0ken<&'\"\\>é\nend"


@pytest.mark.parametrize(
    "written",
    [
        repr(ODD),
        ascii(ODD),
        repr(ODD.encode())[1:],
        json.dumps(ODD),
        json.dumps(ODD, ensure_ascii=False),
        f'"{html.escape(ODD)}"',
        f'"{html.escape(ODD, quote=False)}"',
        f'"{xml.sax.saxutils.escape(ODD)}"',
        # As markupsafe, that is Jinja, writes quotes.
        f'"{html.escape(ODD).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")}"',
        f'"{html.escape(repr(ODD))[6:-6]}"',
        f'"{html.escape(json.dumps(ODD))[6:-6]}"',
    ],
)
def test_every_form_of_a_secret_is_masked_whole(written: str) -> None:
    assert (
        masked([ODD], [f"a {written} b".encode()]).decode() == f"a {written[0]}***{written[-1]} b"
    )


def test_short_values_are_words_of_any_output() -> None:
    assert not SecretTexts(["", "5", "short"])
    assert SecretTexts(["short", "longer"])


# Frames.


def frames_of(data: bytes, readable: str = "", kind: str = "display") -> list[bytes]:
    return encode(MARK, kind, "1f.7", {"n": 1}, data, readable)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[str], list[bytes], list[bool]]:
    """Secrets, and pieces of text and frames in turn; which of them are frames."""
    secrets = draw(secrets_of_letters)
    parts: list[bytes] = []
    is_frame: list[bool] = []
    for number, (text, data) in enumerate(
        draw(st.lists(st.tuples(letters, st.binary(max_size=40)), max_size=4))
    ):
        parts += [text.encode(), *encode(MARK, "display", f"1f.{number}", {}, data, "readable")]
        is_frame += [False] + [True] * (len(parts) - len(is_frame) - 1)
    return secrets, parts, is_frame


@given(streams(), cuts)
def test_frames_stay_as_they_are_between_masked_text(
    stream: tuple[list[str], list[bytes], list[bool]], cuts: list[int]
) -> None:
    secrets, parts, is_frame = stream
    expected = b"".join(
        part if whole else reference(secrets, part.decode()).encode()
        for part, whole in zip(parts, is_frame, strict=True)
    )
    data = b"".join(parts)
    assert masked(secrets, pieces(data, cuts)) == expected


def test_a_secret_in_a_payload_is_an_accident_and_one_in_the_readable_text_is_not() -> None:
    (frame,) = frames_of(os.urandom(60), readable="it is hunter22, readable")
    secret = frame.split(b":")[6][8:24].decode()
    for cut in range(len(frame)):
        out = masked([secret, "hunter22"], [frame[:cut], frame[cut:]])
        assert out == frame.replace(b"hunter22", b"***")
    (message,) = FrameReader(MARK).feed(out.decode())
    assert isinstance(message, Message)
    assert message.readable == "it is ***, readable"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: frame.replace(b":1/1:", b":1/2:"),
        lambda frame: frame.replace(b"@~", b"@ ~"),
        lambda frame: frame.replace(b":display:", b":display!"),
        lambda frame: frame[:-3] + b"x" * MAX_FRAME_BYTES + frame[-3:],
        lambda frame: frame[:-3],
    ],
)
def test_what_only_looks_like_a_frame_is_masked_like_text(spoil) -> None:  # type: ignore[no-untyped-def]
    (frame,) = frames_of(b"", readable="")
    payload = frame.split(b":")[6].decode()
    spoiled = spoil(frame)
    secret = payload[:10]
    assert secret.encode() in spoiled
    expected = reference([secret], spoiled.decode()).encode()
    for cut in (0, 1, 8, 9, 30, len(frame), len(spoiled)):
        assert masked([secret], [spoiled[:cut], spoiled[cut:]]) == expected


@given(st.text("~@lyceum:ab1/.\n", max_size=120), cuts)
def test_text_that_is_almost_a_frame_is_cut_anywhere_alike(text: str, cuts: list[int]) -> None:
    secrets = ["lyceum", "~@ly:a", "@lyceum:ab"]
    data = text.encode() + b"~@lyceum:" + text.encode()
    expected = masked(secrets, [data])
    assert masked(secrets, pieces(data, cuts)) == expected
    assert expected.decode() == reference(secrets, data.decode())


def test_every_frame_of_a_large_message_survives() -> None:
    data = b64encode(os.urandom(40_000))
    lines = frames_of(data, readable="line\n" * 1000)
    assert len(lines) > 10
    assert max(map(len, lines)) <= MAX_FRAME_BYTES
    assert masked(["hunter22"], lines) == b"".join(lines)
    assert masked(["hunter22"], pieces(b"".join(lines), range(0, 100_000, 777))) == b"".join(lines)


# Cost.


class Counted(list[dict[int, int]]):
    """Counts how often a node is looked at."""

    steps = 0

    def __getitem__(self, node: Any) -> Any:
        self.steps += 1
        return super().__getitem__(node)


@pytest.mark.parametrize("secret", ["aaaaaa", "a" * 3000, "a" * 3000 + "b"])
@pytest.mark.parametrize("piece", [b"a" * 64, b"a" * 4096, b"a" * 3000 + b"c"])
def test_the_cost_of_the_worst_text_grows_with_its_length_alone(secret: str, piece: bytes) -> None:
    secrets = SecretTexts([secret])
    automaton = secrets.automaton()
    assert len(automaton.nexts) == len(secret) + 1
    automaton.nexts = nexts = Counted(automaton.nexts)
    masker = Masker(secrets)
    count = 3 * 4096 // len(piece) + 1
    for _ in range(count):
        masker.feed(piece)
    masker.close()
    # A byte is one step down, and no step up is made twice for the step down that allowed it.
    assert count < nexts.steps <= 4 * count * len(piece)


# In the spool.


def test_the_spool_holds_masks_in_place_of_secrets_on_each_stream(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path / "spool", secrets=["hünter22", "short"])
    text = "a hünter22 ü".encode()
    for at in range(len(text)):
        for stream in STREAMS:
            spool.append(stream, 1, text[at : at + 1])
    spool.append("stdout", 1, "short hün".encode())
    spool.flush(2)
    spool.close()
    records = read_spool(tmp_path / "spool", 0)
    for stream, expected in (("stdout", "a *** üshort hün"), ("stderr", "a *** ü")):
        said = [record.data for record in records if record.stream == stream]
        assert b"".join(said).decode() == expected
        assert [data.decode() for data in said]  # none splits a character


def test_output_that_is_held_back_is_no_growth(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path / "spool", secrets=["hunter22"])
    assert not spool.append("stdout", 1, b"hunt")
    assert spool.append("stdout", 1, b"ing")
    spool.close()


def test_a_program_is_told_which_of_its_variables_are_secrets() -> None:
    assert program_variables({}) == {}
    assert program_variables({"A": "1", "B": "2"}) == {"A": "1", "B": "2", SECRET_NAMES: "A,B"}
