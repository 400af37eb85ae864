"""Figures, tables and whatever else has a MIME type -> the cell."""

from __future__ import annotations

from typing import Any

#: A view of a widget needs its model, which lives and dies with the program that made it.
_DEAD_TYPES = frozenset({"application/vnd.jupyter.widget-view+json"})


def publish(
    data: dict[str, Any], metadata: dict[str, Any], *, display_id: str | None, is_update: bool
) -> None:
    """Shows a MIME bundle in the cell, or replaces the one with the same id."""
    from IPython.display import publish_display_data

    publish_display_data(
        {name: value for name, value in data.items() if name not in _DEAD_TYPES},
        metadata,
        transient={"display_id": display_id} if display_id is not None else None,
        update=is_update,
    )


def clear(*, wait: bool) -> None:
    """Empties the cell; with `wait`, as soon as something new comes."""
    from IPython.display import clear_output

    clear_output(wait=wait)
