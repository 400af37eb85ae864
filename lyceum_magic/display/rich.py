"""MIME bundles, such as figures and tables -> the cell."""

from __future__ import annotations

from dataclasses import replace

from ..outputs.decoding import Display
from ..protocol.surrogates import clean_json

#: A view of a widget needs its model, which lives and dies with the program that made it.
_DEAD_TYPES = frozenset({"application/vnd.jupyter.widget-view+json"})


def cleaned(item: Display) -> Display:
    """Return a display without the types that no page can show and text that no message carries."""
    data = {name: value for name, value in item.data.items() if name not in _DEAD_TYPES}
    return replace(item, data=clean_json(data), metadata=clean_json(item.metadata))


def publish(item: Display) -> None:
    """Show a MIME bundle in the cell, or replace the one with the same id.

    An empty one is shown only if it has an id, by which an update may fill it.
    """
    from IPython.display import publish_display_data

    item = cleaned(item)
    if not item.data and item.display_id is None:
        return
    publish_display_data(
        item.data,
        item.metadata,
        transient={"display_id": item.display_id} if item.display_id is not None else None,
        update=item.is_update,
    )


def clear() -> None:
    """Empty the cell when the next output comes."""
    from IPython.display import clear_output

    clear_output(wait=True)
