"""Text from elsewhere -> text that shows itself and does nothing else, in a terminal or a page."""

from __future__ import annotations

#: Zero-width joiners: without them Persian words and many emoji fall apart. They move nothing.
_KEPT = "\u200c\u200d"


def one_line(text: object, limit: int | None = None) -> str:
    """Return a text as one line without anything that a terminal or a page obeys.

    White space becomes a space. Escape and control characters, those that turn the direction of
    writing, surrogates and other invisible ones become the replacement character.

    Args:
        limit: maximum number of characters; a longer text is cut and ends with an ellipsis.
    """
    line = _shown(" ".join(str(text).split()))
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def safe_lines(text: object) -> str:
    """Return a text of several lines, each of them as `one_line` would show it.

    Spaces within a line stay, for they align it.
    """
    return "\n".join(_shown(line.expandtabs()) for line in str(text).splitlines())


def _shown(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(
        char if char.isprintable() or char in _KEPT else "\N{REPLACEMENT CHARACTER}"
        for char in line
    )
