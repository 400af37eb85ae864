"""The places of a detached run: what is shown where, and how much of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.display import panel as panel_module
from lyceum_magic.display.panel import INTERVAL_S, PLACES, TAIL_CHARACTERS, TAIL_LINES, Panel
from lyceum_magic.outputs.decoding import Display
from lyceum_magic.protocol.events import Output
from tests.tools.clocks import Clock


class Place:
    """Stands for `slot.Slot`: remembers what is in it."""

    def __init__(self) -> None:
        self.data: dict[str, Any] | None = None
        self.metadata: dict[str, Any] = {}

    def reserve(self) -> None:
        self.data = {}

    def fill(self, bundle: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        assert self.data is not None, "filled before it was reserved"
        self.data = bundle
        self.metadata = metadata or {}

    def refill(self) -> None:
        self.refilled = self.data

    @property
    def text(self) -> str:
        return str((self.data or {}).get("text/plain", ""))


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    made: list[Place] = []

    def make() -> Place:
        made.append(Place())
        return made[-1]

    monkeypatch.setattr(panel_module, "Slot", make)
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def panel(places: list[Place], clock: Clock) -> Panel:
    panel = Panel(lambda: "1234567890", clock=clock)
    panel.reserve()
    return panel


def show(
    panel: Panel, text: str, display_id: str | None = None, *, is_update: bool = False
) -> None:
    panel.show(Display({"text/plain": text}, {}, display_id=display_id, is_update=is_update))


def test_text_waits_for_its_turn(panel: Panel, places: list[Place], clock: Clock) -> None:
    assert panel.due_in_s() is None
    panel.add_text(Output("a\n"))
    assert panel.due_in_s() == 0
    panel.publish()
    panel.add_text(Output("b"))
    assert panel.due_in_s() == INTERVAL_S
    clock.now += INTERVAL_S
    assert panel.due_in_s() == 0
    assert places[0].text == "a\n"
    panel.close()
    assert places[0].text == "a\nb"


@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=2000), max_size=40))
def test_the_end_of_any_text_is_shown(pieces: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panel_module, "Slot", Place)
        panel = Panel(lambda: "1234567890")
        panel.reserve()
        for piece in pieces:
            panel.add_text(Output(piece))
        panel.close()
        shown = panel._text.text  # type: ignore[attr-defined]
    whole = "".join(pieces)
    heading, _, rest = shown.partition("\n") if shown.startswith("[lyceum]") else ("", "", shown)
    assert whole.endswith(rest)
    assert len(rest) <= TAIL_CHARACTERS
    assert rest.count("\n") <= TAIL_LINES
    gone = whole.count("\n") - rest.count("\n")
    assert heading == "" if not gone else f"{gone:,} line" in heading


def test_a_progress_bar_stands_as_it_is_now(panel: Panel, places: list[Place]) -> None:
    panel.add_text(Output("start\n"))
    for percent in range(100):
        panel.add_text(Output(f"\r{percent} %"))
    panel.publish()
    assert places[0].text == "start\n99 %"


def test_displays_take_one_place_each(panel: Panel, places: list[Place]) -> None:
    for number in range(3):
        show(panel, f"figure {number}")
    assert [place.text for place in places[1:5]] == ["figure 0", "figure 1", "figure 2", ""]


def test_the_last_place_shows_the_newest_and_the_text_says_so(
    panel: Panel, places: list[Place]
) -> None:
    for number in range(PLACES + 3):
        show(panel, str(number))
    panel.publish()
    assert [place.text for place in places[-2:]] == [str(PLACES - 2), str(PLACES + 2)]
    assert places[0].text == "[lyceum] 3 more displays: %lyceum attach 12345678\n"


def test_an_update_goes_where_its_id_was_shown(panel: Panel, places: list[Place]) -> None:
    show(panel, "a", "one")
    show(panel, "b")
    show(panel, "new a", "one", is_update=True)
    show(panel, "nowhere", "unknown", is_update=True)
    assert [place.text for place in places[1:4]] == ["new a", "b", ""]


def test_an_update_of_what_lost_its_place_is_left_out(panel: Panel, places: list[Place]) -> None:
    for number in range(PLACES + 1):
        show(panel, str(number), f"id {number}")
    show(panel, "late", f"id {PLACES - 1}", is_update=True)
    assert places[-1].text == str(PLACES)


def test_clearing_empties_all_places(panel: Panel, places: list[Place]) -> None:
    panel.add_text(Output("a"))
    show(panel, "figure")
    panel.publish()
    panel.clear(wait=False)
    panel.publish()
    assert [place.text for place in places] == [""] * (PLACES + 1)
    show(panel, "next")
    assert places[1].text == "next"


def test_clearing_may_wait_for_what_comes_next(panel: Panel, places: list[Place]) -> None:
    show(panel, "figure")
    panel.clear(wait=True)
    assert places[1].text == "figure"
    panel.add_text(Output("next"))
    panel.publish()
    assert (places[0].text, places[1].text) == ("next", "")


def test_a_view_without_its_widget_takes_no_place(panel: Panel, places: list[Place]) -> None:
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    panel.show(Display(view, {}, display_id=None, is_update=False))
    panel.show(Display({**view, "text/plain": "slider"}, {}, display_id="id", is_update=False))
    assert places[1].data == {"text/plain": "slider"}
    panel.show(Display({**view, "text/plain": "moved"}, {}, display_id="id", is_update=True))
    assert places[1].data == {"text/plain": "moved"}


def test_half_a_surrogate_pair_costs_no_more_than_itself(panel: Panel, places: list[Place]) -> None:
    panel.add_text(Output("a\ud800b"))
    panel.publish()
    panel.show(Display({"text/plain": "\udfff"}, {"k": "\udfff"}, display_id=None, is_update=False))
    assert [place.text for place in places[:2]] == ["a\ufffdb", "\ufffd"]
    assert places[1].metadata == {"k": "\ufffd"}


def test_all_is_shown_once_more_when_asked(panel: Panel, places: list[Place]) -> None:
    panel.add_text(Output("a"))
    show(panel, "figure")
    panel.close()
    panel.refill()
    assert [place.refilled for place in places] == [place.data for place in places]
