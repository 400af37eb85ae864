"""MIME bundles of a program -> what the kernel is asked to show."""

from __future__ import annotations

from typing import Any

import IPython.display
import pytest

from lyceum_magic.display import rich
from lyceum_magic.outputs.decoding import Display

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Data, metadata and how they are shown, for each message."""
    messages: list[tuple[Any, ...]] = []

    def publish(data: Any, metadata: Any, **how: Any) -> None:
        messages.append((data, metadata, how))

    monkeypatch.setattr(IPython.display, "publish_display_data", publish)
    return messages


def test_a_bundle_is_shown_as_it_came(published: list[tuple[Any, ...]]) -> None:
    rich.publish(Display({"text/html": "<b>ä"}, {"k": 1}, display_id="id", is_update=True))
    how = {"transient": {"display_id": "id"}, "update": True}
    assert published == [({"text/html": "<b>ä"}, {"k": 1}, how)]


def test_of_a_widget_its_text_is_left(published: list[tuple[Any, ...]]) -> None:
    view = {WIDGET: {"model_id": "x"}}
    rich.publish(Display({**view, "text/plain": "slider"}, {}, display_id=None, is_update=False))
    rich.publish(Display(view, {}, display_id=None, is_update=False))
    assert [data for data, _, _ in published] == [{"text/plain": "slider"}]


def test_an_empty_place_is_shown_where_it_can_be_filled(published: list[tuple[Any, ...]]) -> None:
    rich.publish(Display({}, {}, display_id=None, is_update=False))
    rich.publish(Display({}, {}, display_id="id", is_update=False))
    assert [how["transient"] for _, _, how in published] == [{"display_id": "id"}]


def test_half_a_surrogate_pair_costs_no_more_than_itself(published: list[tuple[Any, ...]]) -> None:
    rich.publish(
        Display({"text/plain": "a\ud800ä"}, {"k": "\udfff"}, display_id=None, is_update=False)
    )
    assert published[0][:2] == ({"text/plain": "a\ufffdä"}, {"k": "\ufffd"})
