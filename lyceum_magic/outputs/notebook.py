"""Decoded output of a run -> the outputs that a notebook saves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypedDict, assert_never

from ..protocol.events import Output, StreamName
from .decoding import (
    ClearOutput,
    Decoded,
    Display,
    Raised,
    SavedFile,
    SessionInterrupted,
    SessionSaved,
    Value,
)


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


class ResultOutput(TypedDict):
    """An nbformat output of type `execute_result`; `data` is MIME type -> text or JSON."""

    output_type: Literal["execute_result"]
    execution_count: int
    data: dict[str, Any]
    metadata: dict[str, Any]


class ErrorOutput(TypedDict):
    """An nbformat output of type `error`; `traceback` has the lines, with ANSI colours."""

    output_type: Literal["error"]
    ename: str
    evalue: str
    traceback: list[str]


NotebookOutput = StreamOutput | DisplayOutput | ResultOutput | ErrorOutput


def to_outputs(
    items: Iterable[Decoded], execution_count: int | None = None
) -> list[NotebookOutput]:
    """Return the outputs in their order, as a client of a kernel would have collected them.

    Neighbouring text of one stream is one output. A display of an id that was shown before, and an
    update of it, changes each of them where it stands. What `clear_output` removed is left out.

    Args:
        execution_count: the cell's number in its notebook. With None, the value of its last
            expression is a display.
    """
    collector = _Collector(execution_count)
    for item in items:
        match item:
            case Output(text, stream):
                collector.add_text(text, stream)
            case Display():
                collector.add_display(item)
            case ClearOutput(wait):
                collector.clear(wait=wait)
            case Raised() | Value() | SavedFile() | SessionSaved() | SessionInterrupted():
                pass
            case _:
                assert_never(item)
    return collector.outputs()


class _Collector:
    """The outputs of one cell so far."""

    def __init__(self, execution_count: int | None) -> None:
        self._execution_count = execution_count
        self._clears = False  # with the next output
        self._empty()

    def _empty(self) -> None:
        self._outputs: list[StreamOutput | DisplayOutput | ResultOutput] = []
        self._texts: list[list[str]] = []  # the pieces of each stream output
        self._by_display_id: dict[str | None, list[DisplayOutput]] = {}

    def clear(self, *, wait: bool) -> None:
        self._clears = True
        if not wait:
            self._make_way()

    def _make_way(self) -> None:
        if self._clears:
            self._clears = False
            self._empty()

    def add_text(self, text: str, stream: StreamName) -> None:
        self._make_way()
        if not self._outputs or self._outputs[-1].get("name") != stream:
            self._outputs.append(StreamOutput(output_type="stream", name=stream, text=""))
            self._texts.append([])
        self._texts[-1].append(text)

    def add_display(self, item: Display) -> None:
        if not item.is_update:
            self._make_way()
            if item.is_result and self._execution_count is not None:
                self._add_result(item, self._execution_count)
                return
            output = DisplayOutput(output_type="display_data", data={}, metadata={})
            self._outputs.append(output)
            if item.display_id is None:
                _fill(output, item)
                return
            self._by_display_id.setdefault(item.display_id, []).append(output)
        for output in self._by_display_id.get(item.display_id, ()):
            _fill(output, item)

    def _add_result(self, item: Display, execution_count: int) -> None:
        self._outputs.append(
            ResultOutput(
                output_type="execute_result",
                execution_count=execution_count,
                data=dict(item.data),
                metadata=dict(item.metadata),
            )
        )

    def outputs(self) -> list[NotebookOutput]:
        streams = (output for output in self._outputs if output["output_type"] == "stream")
        for stream_output, pieces in zip(streams, self._texts, strict=True):
            stream_output["text"] = "".join(pieces)
        return list(self._outputs)


def _fill(output: DisplayOutput, item: Display) -> None:
    output["data"], output["metadata"] = dict(item.data), dict(item.metadata)
