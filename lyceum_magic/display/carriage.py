"""Text with carriage returns -> the same text without the parts that it overwrites."""

from __future__ import annotations

import re

#: One column wide, and nothing else: ASCII, box drawing, blocks, braille (bars and spinners).
#: A segment with anything more (an escape, a tab, a backspace) could do more than overwrite.
_PLAIN = re.compile(r"[ -~\u2500-\u259f\u2800-\u28ff]*")


def collapse(text: str) -> str:
    r"""Return `text` without the parts of its lines that later parts cover completely.

    `"\r 10%\r 20%\r 30%"` becomes `"\r 30%"`. A part is removed only if it and the part that
    covers it are plain and the latter is at least as long: a shorter one leaves an end that both
    Jupyter and a terminal show. The first part of `text` always stays, since the column in which it
    begins is unknown. A part wider than the terminal leaves wrapped rows there; fewer of them may
    remain.
    """
    if "\r" not in text:
        return text
    return "\n".join([_collapse_line(line) for line in text.split("\n")])


def _collapse_line(line: str) -> str:
    if line.count("\r") < 2:
        return line
    kept: list[str] = []
    # What may still be covered: the lengths only fall from the bottom to the top of `kept`.
    coverable_from = 1
    for part in line.split("\r"):
        if not kept:
            kept.append(part)
        elif _PLAIN.fullmatch(part):
            while len(kept) > coverable_from and len(kept[-1]) <= len(part):
                kept.pop()
            kept.append(part)
        else:
            kept.append(part)
            coverable_from = len(kept)
    return "\r".join(kept)
