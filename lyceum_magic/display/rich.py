"""Figures, tables and whatever else has a MIME type -> the cell."""

from __future__ import annotations

import json
from typing import Any

#: A view of a widget needs its model, which lives and dies with the program that made it.
_DEAD_TYPES = frozenset({"application/vnd.jupyter.widget-view+json"})


def publish(
    data: dict[str, Any], metadata: dict[str, Any], *, display_id: str | None, is_update: bool
) -> None:
    """Shows a MIME bundle in the cell, or replaces the one with the same id.

    An empty one is shown only where an update may fill it.
    """
    from IPython.display import publish_display_data

    data = {name: value for name, value in data.items() if name not in _DEAD_TYPES}
    if not data and display_id is None:
        return
    publish_display_data(
        _encodable(data),
        _encodable(metadata),
        transient={"display_id": display_id} if display_id is not None else None,
        update=is_update,
    )


def _encodable(bundle: dict[str, Any]) -> dict[str, Any]:
    """The same, with question marks for halves of surrogate pairs, which no message can carry."""
    text = json.dumps(bundle, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return dict(json.loads(text.encode(errors="replace")))
    return bundle


def clear(*, wait: bool) -> None:
    """Empties the cell; with `wait`, as soon as something new comes."""
    from IPython.display import clear_output

    clear_output(wait=wait)
