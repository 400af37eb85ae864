"""Text that arrives can be carried by UTF-8, whatever was sent."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.protocol import events
from lyceum_magic.protocol.surrogates import has_surrogates, parse_json, without_surrogates

any_text = st.text(st.characters())  # lone surrogates too


@given(any_text)
def test_the_text_is_the_same_unless_utf_8_cannot_carry_it(text: str) -> None:
    clean = without_surrogates(text)
    clean.encode()
    assert has_surrogates(text) == (clean != text)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("caf\udce9", "caf\ufffd"),
        ("\udce4\udcb8", "\ufffd"),  # the start of one character, as a kernel shows it
        ("\ud83d\ude00", "\U0001f600"),
        ("\ud800", "\ufffd"),
    ],
)
def test_bytes_show_as_in_a_notebook(text: str, clean: str) -> None:
    assert without_surrogates(text) == clean


@pytest.mark.parametrize("is_ascii", [True, False])
def test_json_is_clean_in_its_texts_and_keys(is_ascii: bool) -> None:
    value = {"a\udcff": ["\ud800", {"ä": "\U0001f600"}, 1.5, None]}
    text = json.dumps(value, ensure_ascii=is_ascii)
    assert parse_json(text) == {"a\ufffd": ["\ufffd", {"ä": "\U0001f600"}, 1.5, None]}
    assert has_surrogates(value)
    assert not has_surrogates(parse_json(text))


def test_an_event_brings_none() -> None:
    ends = {"jobFinished": {"job": {"result": {"error": "bad \udcc3", "returnCode": 1}}}}
    assert events.decode(json.dumps(ends)) == [events.Finished(None, 1, "bad \ufffd")]
    said = {"output": {"content": "a\udcc3"}}
    assert events.decode(json.dumps(said)) == [events.Output("a\ufffd")]
