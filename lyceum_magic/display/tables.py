"""Answers of a command: a sentence, or rows as a table, in HTML and as aligned text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..protocol.lines import one_line, safe_lines


class Says(str):
    """A text that a notebook shows without quotes."""

    def __repr__(self) -> str:
        return safe_lines(self)


class Table:
    """A small table, in HTML and as text.

    Args:
        head: the column names.
        rows: each with one cell for each column.
        title: a line above it.
        empty: the sentence that stands for a table without rows.
    """

    def __init__(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        title: str = "",
        empty: str = "nothing",
    ) -> None:
        self.head = [one_line(name) for name in head]
        self.rows = [[one_line(cell) for cell in row] for row in rows]
        self._title = one_line(title)
        self._empty = one_line(f"{title}: {empty}" if title else empty)

    def __repr__(self) -> str:
        if not self.rows:
            return self._empty
        lines = [self.head, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        padded = (zip(line, widths, strict=True) for line in lines)
        table = ["  ".join(c.ljust(w) for c, w in line).rstrip() for line in padded]
        return "\n".join([*filter(None, [self._title]), *table])

    def _repr_html_(self) -> str | None:
        if not self.rows:
            return None  # the notebook then shows the sentence as text
        style = ' style="text-align:left"'
        head = "".join(f"<th{style}>{_isolated(name)}</th>" for name in self.head)
        body = "".join(
            "<tr>" + "".join(f"<td{style}>{_isolated(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        title = f"<caption{style}>{_isolated(self._title)}</caption>" if self._title else ""
        return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _isolated(text: str) -> str:
    # Text that runs from right to left must not reorder the other cells.
    return f"<bdi>{escape(text)}</bdi>"
