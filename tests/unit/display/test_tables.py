"""Tables: aligned text for terminals, HTML for notebooks."""

from __future__ import annotations

from lyceum_magic.display.tables import Table


def test_text_is_aligned() -> None:
    table = Table(["run", "state"], [("a", "running"), ("bcdef", "x")])
    assert repr(table) == "run    state\na      running\nbcdef  x"


def test_an_empty_table_says_so() -> None:
    table = Table(["run"], [], empty="no <runs>")
    assert repr(table) == "no <runs>"
    assert table._repr_html_() is None


def test_cells_are_text_in_html() -> None:
    html = Table(["<h>"], [("<script>alert(1)</script>",), (None,)])._repr_html_()
    assert html is not None
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;h&gt;" in html
