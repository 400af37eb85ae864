"""Output events -> nbformat stream outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypedDict

from ..protocol.events import Output, StreamName


class StreamOutput(TypedDict):
    """An nbformat output of type `stream`."""

    output_type: Literal["stream"]
    name: StreamName
    text: str


def merge_outputs(events: Iterable[Output]) -> list[StreamOutput]:
    """Stream outputs in the order of arrival; neighbours of one stream become one."""
    merged: list[tuple[StreamName, list[str]]] = []
    for event in events:
        if merged and merged[-1][0] == event.stream:
            merged[-1][1].append(event.text)
        else:
            merged.append((event.stream, [event.text]))
    return [
        StreamOutput(output_type="stream", name=name, text="".join(pieces))
        for name, pieces in merged
    ]
