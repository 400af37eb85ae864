"""Figures, tables and whatever else has a MIME type -> the cell."""

from __future__ import annotations

import json
from typing import Any

from .text import without_surrogates

#: A view of a widget needs its model, which lives and dies with the program that made it.
_DEAD_TYPES = frozenset({"application/vnd.jupyter.widget-view+json"})


def cleaned(
    data: dict[str, Any], metadata: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A MIME bundle of a program and its metadata without what no page can show, or no message
    carry."""
    data = {name: value for name, value in data.items() if name not in _DEAD_TYPES}
    return _encodable(data), _encodable(metadata)


def publish(
    data: dict[str, Any], metadata: dict[str, Any], *, display_id: str | None, is_update: bool
) -> None:
    """Shows a MIME bundle in the cell, or replaces the one with the same id.

    An empty one is shown only where an update may fill it.
    """
    from IPython.display import publish_display_data

    data, metadata = cleaned(data, metadata)
    if not data and display_id is None:
        return
    publish_display_data(
        data,
        metadata,
        transient={"display_id": display_id} if display_id is not None else None,
        update=is_update,
    )


def _encodable(bundle: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(bundle, ensure_ascii=False)
    clean = without_surrogates(text)
    return bundle if clean is text else dict(json.loads(clean))


def clear() -> None:
    """Empties the cell as soon as something new comes."""
    from IPython.display import clear_output

    clear_output(wait=True)
