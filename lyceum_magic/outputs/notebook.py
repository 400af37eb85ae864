"""What a run showed -> the outputs that a notebook saves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypedDict

from ..protocol.events import Output, StreamName
from .decoding import ClearOutput, Decoded, Display


class StreamOutput(TypedDict):
    """An nbformat output of type `stream`."""

    output_type: Literal["stream"]
    name: StreamName
    text: str


class DisplayOutput(TypedDict):
    """An nbformat output of type `display_data`; `data` is MIME type -> text or JSON."""

    output_type: Literal["display_data"]
    data: dict[str, Any]
    metadata: dict[str, Any]


class ErrorOutput(TypedDict):
    """An nbformat output of type `error`; `traceback` has the lines, with ANSI colours."""

    output_type: Literal["error"]
    ename: str
    evalue: str
    traceback: list[str]


NotebookOutput = StreamOutput | DisplayOutput | ErrorOutput


def to_outputs(items: Iterable[Decoded]) -> list[NotebookOutput]:
    """The outputs in their order, as a client of a kernel would have collected them.

    Neighbouring text of one stream is one output. A display of an id that was shown before, and an
    update of it, changes each of them where it stands. What `clear_output` has taken is gone.
    """
    outputs: list[NotebookOutput] = []
    texts: list[list[str]] = []  # the pieces of each stream output
    by_display_id: dict[str, list[DisplayOutput]] = {}
    clears = False  # with the next output
    for item in items:
        match item:
            case ClearOutput(wait):
                clears = True
                if wait:
                    continue
            case Output() | Display(is_update=False):
                pass
            case Display(data, metadata, display_id):
                _refill(by_display_id.get(display_id or "", ()), data, metadata)
                continue
            case _:
                continue
        if clears:
            outputs, texts, by_display_id, clears = [], [], {}, False
        match item:
            case Output(text, stream):
                if not outputs or outputs[-1].get("name") != stream:
                    outputs.append(StreamOutput(output_type="stream", name=stream, text=""))
                    texts.append([])
                texts[-1].append(text)
            case Display(data, metadata, display_id):
                output = DisplayOutput(output_type="display_data", data={}, metadata={})
                outputs.append(output)
                same = [output]
                if display_id is not None:
                    same = by_display_id.setdefault(display_id, [])
                    same.append(output)
                _refill(same, data, metadata)
    streams = (output for output in outputs if output["output_type"] == "stream")
    for stream_output, pieces in zip(streams, texts, strict=True):
        stream_output["text"] = "".join(pieces)
    return outputs


def _refill(
    outputs: Iterable[DisplayOutput], data: dict[str, Any], metadata: dict[str, Any]
) -> None:
    for output in outputs:
        output["data"], output["metadata"] = dict(data), dict(metadata)
