"""The head of a frame -> the same with `***` in place of the account's secrets; see `frames.send`.

The server masks printed text, but it cannot read the inside of a frame. This module is not imported
if no secrets are known here.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Shorter values may be words of any text; `protocol.limits` has the same number.
MIN_CHARACTERS = 6
#: `"` and `'` in HTML: in text, and in attributes as html, others and markupsafe write them.
HTML_QUOTES = (
    ('"', "'"), ("&quot;", "'"), ("&quot;", "&#x27;"), ("&quot;", "&#39;"), ("&#34;", "&#39;"),
)  # fmt: skip
#: Types whose data is base64.
BINARY = {"image/png", "image/jpeg", "application/pdf"}


class Mask:
    """A mask of texts that are secret."""

    def __init__(self, values: list[str]) -> None:
        self._find = pattern_of(values).finditer

    def value(self, value: Any) -> Any:
        """Return a value as JSON can express it, with all its texts masked, also keys of dicts."""
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {
                self.value(key): item if key in BINARY else self.value(item)
                for key, item in value.items()
            }
        return self.text(value if isinstance(value, str) else repr(value))

    def text(self, text: str) -> str:
        pieces = []
        at = done = 0
        for found in self._find(text):
            start, end = found.span(1)
            if start >= done:  # what overlaps is one
                pieces += [text[at:start], "***"]
            at = done = max(done, end)
        return "".join(pieces) + text[at:] if pieces else text


def pattern_of(values: list[str]) -> re.Pattern[str]:
    """Return a pattern that finds the longest secret at each place, in all its forms."""
    forms = {form for value in values if len(value) >= MIN_CHARACTERS for form in forms_of(value)}
    longest_first = sorted(forms, key=len, reverse=True)
    # Without any there is nothing to find, which is not what an empty alternative finds.
    return re.compile("(?=(" + "|".join(map(re.escape, longest_first)) + "))" if forms else "(?!)")


def forms_of(value: str) -> set[str]:
    """Return a text as it is and as Python, JSON and HTML write it."""
    from json.encoder import JSONEncoder  # the cell may have replaced what `json` itself has

    written = (
        repr(value), ascii(value), repr(value.encode("utf-8", "surrogateescape"))[1:],
        JSONEncoder().encode(value), JSONEncoder(ensure_ascii=False).encode(value),
    )  # fmt: skip
    forms = {value, *(text[1:-1] for text in written)}
    for form in list(forms):
        html = form.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        forms |= {html.replace('"', double).replace("'", one) for double, one in HTML_QUOTES}
    return forms
