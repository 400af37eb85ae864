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
    """The outputs in their order: neighbouring text of one stream is one, updates are in place."""
    made: list[list[str] | None] = []  # the text pieces of a stream output, beside `outputs`
    outputs: list[NotebookOutput] = []
    by_display_id: dict[str, list[DisplayOutput]] = {}
    clears = False
    for item in items:
        if isinstance(item, ClearOutput):
            clears = True
            empties = not item.wait
        else:
            empties = clears and isinstance(item, Output | Display)
        if empties:
            outputs, made, by_display_id, clears = [], [], {}, False
        match item:
            case Output(text, stream):
                last = outputs[-1] if outputs else None
                pieces = made[-1] if made else None
                if last is not None and pieces is not None and last.get("name") == stream:
                    pieces.append(text)
                else:
                    outputs.append(StreamOutput(output_type="stream", name=stream, text=""))
                    made.append([text])
            case Display(data, metadata, display_id, is_update):
                if is_update:
                    for shown in by_display_id.get(display_id or "", ()):
                        shown["data"], shown["metadata"] = data, metadata
                    continue
                output = DisplayOutput(
                    output_type="display_data", data=dict(data), metadata=dict(metadata)
                )
                outputs.append(output)
                made.append(None)
                if display_id is not None:
                    by_display_id.setdefault(display_id, []).append(output)
    for output_, pieces in zip(outputs, made, strict=True):
        if pieces is not None and output_["output_type"] == "stream":
            output_["text"] = "".join(pieces)
    return outputs
