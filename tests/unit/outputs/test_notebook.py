"""The items of a run become the outputs that a client of a kernel would have saved."""

from __future__ import annotations

import nbformat
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.outputs.decoding import (
    ClearOutput,
    Decoded,
    Display,
    Raised,
    SavedFile,
    Value,
)
from lyceum_magic.outputs.notebook import to_outputs
from lyceum_magic.protocol.events import Output


def text(words: str, stream: str = "stdout") -> Output:
    return Output(words, "stderr" if stream == "stderr" else "stdout")


def shown(words: str, display_id: str | None = None, *, is_update: bool = False) -> Display:
    return Display({"text/plain": words}, {}, display_id, is_update)


def words(items: list[Decoded]) -> list[str]:
    """The text of each output."""
    return [
        output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
        for output in to_outputs(items)
        if output["output_type"] != "error"
    ]


def test_neighbouring_text_of_one_stream_is_one_output() -> None:
    items = [text("a"), text("b\n"), text("e", "stderr"), text("c"), shown("d"), text("f")]
    assert words(items) == ["ab\n", "e", "c", "d", "f"]
    assert [output.get("name") for output in to_outputs(items)] == [
        "stdout", "stderr", "stdout", None, "stdout",
    ]  # fmt: skip


def test_what_is_no_output_divides_no_text() -> None:
    items: list[Decoded] = [text("a"), Value("x", b""), SavedFile("f", b""), text("b")]
    assert words(items) == ["ab"]


def test_an_update_replaces_each_display_of_its_id_where_it_stands() -> None:
    items = [shown("1", "a"), text("t"), shown("2", "a"), shown("3", "b")]
    items.append(Display({"text/plain": "4"}, {"k": 1}, "a", True))
    assert words(items) == ["4", "t", "4", "3"]
    assert to_outputs(items)[0]["metadata"] == {"k": 1}  # type: ignore[typeddict-item]


def test_a_second_display_of_an_id_changes_the_first() -> None:
    """All displays of an id show the same, as in a front end."""
    assert words([shown("1", "a"), shown("2", "a")]) == ["2", "2"]


def test_an_update_of_nothing_shows_nothing_and_divides_no_text() -> None:
    assert words([text("a"), shown("x", "a", is_update=True), text("b")]) == ["ab"]


def test_an_update_does_not_change_what_comes_after_it() -> None:
    update = shown("x", "a", is_update=True)
    assert words([update, shown("1", "a")]) == ["1"]


def test_clearing_takes_all_that_was_shown() -> None:
    assert words([text("a"), shown("b"), ClearOutput(), text("c")]) == ["c"]
    assert words([text("a"), ClearOutput()]) == []


def test_clearing_that_waits_takes_it_with_the_next_output() -> None:
    before = [text("a"), shown("b", "id")]
    assert words([*before, ClearOutput(wait=True)]) == ["a", "b"]
    assert words([*before, ClearOutput(wait=True), text("c")]) == ["c"]
    assert words([*before, ClearOutput(wait=True), Value("x", b"")]) == ["a", "b"]
    assert words([*before, ClearOutput(wait=True), shown("c", "id", is_update=True)]) == ["a", "c"]


def test_a_display_that_was_cleared_is_updated_no_more() -> None:
    items = [shown("1", "a"), ClearOutput(), text("t"), shown("2", "a", is_update=True)]
    assert words(items) == ["t"]


def test_the_outputs_share_nothing_with_what_they_were_made_of() -> None:
    display = Display({"text/plain": "a"}, {}, "id")
    to_outputs([display, shown("b", "id", is_update=True)])
    assert display.data == {"text/plain": "a"}


ids = st.sampled_from([None, "a", "b"])
items = st.lists(
    st.one_of(
        st.builds(text, st.text(min_size=1), st.sampled_from(["stdout", "stderr"])),
        st.builds(shown, st.text(), ids, is_update=st.booleans()),
        st.builds(ClearOutput, st.booleans()),
        st.builds(Raised, st.just({})),
    )
)


@given(items)
def test_any_sequence_is_a_notebook_that_can_be_saved(items: list[Decoded]) -> None:
    for output in to_outputs(items):
        nbformat.validate(output, "output", version=4)


@given(items, st.integers(0, 5))
def test_where_text_is_cut_makes_no_difference(items: list[Decoded], place: int) -> None:
    cut: list[Decoded] = []
    for item in items:
        if isinstance(item, Output):
            halves = item.text[:place], item.text[place:]
            cut += [text(half, item.stream) for half in halves if half]
        else:
            cut.append(item)
    assert to_outputs(cut) == to_outputs(items)


def test_the_last_value_is_the_result_of_a_numbered_cell() -> None:
    items = [shown("d"), Display({"text/plain": "42"}, {"k": 1}, is_result=True)]
    assert to_outputs(items, 7) == [
        {"output_type": "display_data", "data": {"text/plain": "d"}, "metadata": {}},
        {"output_type": "execute_result", "execution_count": 7, "data": {"text/plain": "42"},
         "metadata": {"k": 1}},
    ]  # fmt: skip
    assert [output["output_type"] for output in to_outputs(items)] == ["display_data"] * 2
