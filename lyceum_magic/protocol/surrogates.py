"""Text from elsewhere -> text that UTF-8 can carry.

Python keeps bytes that are no UTF-8, such as those of a file name, as halves of surrogate pairs,
and JSON may hold such halves. No file, database or message takes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def without_surrogates(text: str) -> str:
    """Return `text` as it is if UTF-8 can carry it, else with U+FFFD in place of the halves.

    Notebooks show the bytes of a file name that are no UTF-8 in the same way.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # a half that stands for no byte
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def has_surrogates(value: object) -> bool:
    """Return whether a JSON value holds a text, or a key, that UTF-8 cannot carry."""
    match value:
        case str():
            return without_surrogates(value) is not value
        case Mapping():
            return any(has_surrogates(item) for pair in value.items() for item in pair)
        case Iterable():
            return any(map(has_surrogates, value))
    return False


def parse_json(text: str) -> Any:
    """Parse JSON as `json.loads` does, but with U+FFFD in place of halves of surrogate pairs."""
    value = json.loads(text)
    if text.isascii() and not _HALF.search(text):
        return value
    return clean_json(value)


def clean_json(value: Any) -> Any:
    """Return a JSON value as it is if UTF-8 can carry it, else with U+FFFD in its texts."""
    text = json.dumps(value, ensure_ascii=False)
    clean = without_surrogates(text)
    return value if clean is text else json.loads(clean)
