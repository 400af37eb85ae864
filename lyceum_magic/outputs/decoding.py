"""Output events of a run -> what they mean: text, displays, values, files, what was raised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ..protocol.events import Output
from .frames import FrameDecoder, Message


@dataclass(frozen=True, slots=True)
class Display:
    """A MIME bundle, as Jupyter's `display_data` carries it.

    Attributes:
        is_update: it replaces what was shown under its `display_id`.
    """

    data: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    display_id: str | None = None
    is_update: bool = False


@dataclass(frozen=True, slots=True)
class ClearOutput:
    """What was shown goes; at once, or where `wait` is set as soon as something takes its place."""

    wait: bool = False


@dataclass(frozen=True, slots=True)
class Raised:
    """What ended the cell: the object that `remote.errors` describes."""

    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Value:
    """An `--out` value, still packed.

    Attributes:
        problem: why it is not there, in one sentence.
        change: as what it arrives, in one sentence, if not as what it was there.
    """

    name: str
    data: bytes
    problem: str = ""
    change: str = ""


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file that the cell wrote; `problem` says in one sentence why it is not there."""

    path: str
    data: bytes
    problem: str = ""


Decoded = Output | Display | ClearOutput | Raised | Value | SavedFile


class OutputDecoder:
    """Reads one run, from its first event on.

    Args:
        mark: the run's; see `runs.Run.mark`.
    """

    def __init__(self, mark: str) -> None:
        self._streams = {"stdout": FrameDecoder(mark), "stderr": FrameDecoder(mark)}

    def feed(self, event: Output) -> list[Decoded]:
        found = self._streams[event.stream].feed(event.text)
        if len(found) == 1 and found[0] == event.text:
            return [event]
        return [
            replace(event, text=item) if isinstance(item, str) else _meaning(item, event)
            for item in found
        ]

    def lost(self) -> list[Value | SavedFile]:
        """Values and files of which parts are missing, with that as their problem.

        The name is empty where it was in a missing part.
        """
        lost: list[Value | SavedFile] = []
        for decoder in self._streams.values():
            for message, arrived in decoder.incomplete():
                if message.kind in ("value", "file"):
                    kind = Value if message.kind == "value" else SavedFile
                    name = _text(message.head, "name" if kind is Value else "path")
                    problem = f"of {name or f'a {message.kind}'}, only {arrived} arrived"
                    lost.append(kind(name, b"", problem))
        return lost

    def close(self) -> list[Decoded]:
        """What is left when the run has ended."""
        left: list[Decoded] = []
        for stream, decoder in self._streams.items():
            event = Output("", "stderr" if stream == "stderr" else "stdout")
            for item in decoder.close():
                left.append(
                    replace(event, text=item) if isinstance(item, str) else _meaning(item, event)
                )
        return left


def decode(events: Iterable[Output], mark: str) -> Iterator[Decoded]:
    """All that the events of a run mean, as far as they have come."""
    decoder = OutputDecoder(mark)
    for event in events:
        yield from decoder.feed(event)
    yield from decoder.close()


def _meaning(message: Message, event: Output) -> Decoded:
    head = message.head
    match message.kind:
        case "display" if isinstance(data := head.get("data"), dict):
            metadata, display_id = head.get("metadata"), head.get("display_id")
            return Display(
                data=data,
                metadata=metadata if isinstance(metadata, dict) else {},
                display_id=display_id if isinstance(display_id, str) else None,
                is_update=head.get("update") is True,
            )
        case "clear":
            return ClearOutput(head.get("wait") is True)
        case "raised":
            return Raised(head)
        case "value":
            name, problem, change = (_text(head, key) for key in ("name", "problem", "change"))
            return Value(name, message.data, problem, change)
        case "file":
            return SavedFile(_text(head, "path"), message.data, _text(head, "problem"))
    return replace(event, text=message.readable)  # of a later version


def _text(head: dict[str, Any], member: str) -> str:
    value = head.get(member)
    return value if isinstance(value, str) else ""


class Harvest:
    """What a run sends home beside its display: what it raised, values, files.

    Args:
        mark: the run's; see `runs.Run.mark`.

    Attributes:
        problems: what is wrong with values and files whose names did not arrive, in sentences.
    """

    def __init__(self, mark: str) -> None:
        self._decoder = OutputDecoder(mark)
        self.problems: list[str] = []
        self.raised: Raised | None = None
        self.values: dict[str, Value] = {}
        self.files: dict[str, SavedFile] = {}

    def close(self) -> None:
        """Nothing more will come: what has not come whole is lost, and says so."""
        for item in self._decoder.lost():
            match item:
                case Value(name) if name:
                    self.values[name] = item
                case SavedFile(path) if path:
                    self.files[path] = item
                case _:
                    self.problems.append(f"{item.problem}.")
        self._decoder.close()

    def feed(self, event: Output) -> None:
        for item in self._decoder.feed(event):
            match item:
                case Raised():
                    self.raised = item
                case Value():
                    self.values[item.name] = item
                case SavedFile():
                    self.files[item.path] = item
