"""Output events of a run -> decoded items: text, displays, values, files, the exception."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import starmap
from typing import Any, assert_never

from ..protocol.events import Output
from .frames import FrameReader, Message


@dataclass(frozen=True, slots=True)
class Display:
    """A MIME bundle, as Jupyter's `display_data` carries it.

    Attributes:
        data: MIME type -> text or JSON.
        is_update: it replaces what was shown under its `display_id`.
        is_result: it shows the value of the cell's last expression.
        timestamp: in seconds since 1970, None where the server gives none.
    """

    data: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    display_id: str | None = None
    is_update: bool = False
    is_result: bool = False
    timestamp: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ClearOutput:
    """A request to remove what was shown: at once or, with `wait`, when the next output comes."""

    wait: bool = False


@dataclass(frozen=True, slots=True)
class Raised:
    """The exception that ended the cell, as `remote.errors` describes it."""

    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Value:
    """An `--out` value, still packed.

    Attributes:
        problem: why it could not be sent, in one sentence; empty if it was.
        change: which other type it arrives as, in one sentence; empty if it keeps its own.
    """

    name: str
    data: bytes
    problem: str = ""
    change: str = ""


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file that the cell wrote; `problem` says in one sentence why it could not be sent."""

    path: str
    data: bytes
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SessionSaved:
    """The end of a session's cell: what is kept for the next one.

    Attributes:
        sha256: of the snapshot's manifest; empty if nothing was saved.
        variables: how many the session has.
        size: bytes of the whole state.
        lost: names that are not kept, and the reason of each.
        error: why nothing was saved, in one sentence; empty if it was.
    """

    key: str
    title: str
    branch: str
    cell: int
    id: str
    sha256: str = ""
    variables: int = 0
    size: int = 0
    lost: tuple[tuple[str, str], ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class SessionInterrupted:
    """A session's cell has taken the interrupt, and raises KeyboardInterrupt."""

    key: str


#: The closed union of the output types. Every `match` over it ends in `assert_never`.
Decoded = (
    Output | Display | ClearOutput | Raised | Value | SavedFile | SessionSaved | SessionInterrupted
)


class OutputDecoder:
    """A decoder of the output events of one run, from its first event on.

    Args:
        mark: the run's; see `runs.Run.mark`.
    """

    def __init__(self, mark: str) -> None:
        self._streams = {"stdout": FrameReader(mark), "stderr": FrameReader(mark)}

    def feed(self, event: Output) -> list[Decoded]:
        """Return what this event completes, in order."""
        found = self._streams[event.stream].feed(event.text)
        if len(found) == 1 and found[0] == event.text:
            return [event]
        return [_item(piece, event) for piece in found]

    def close(self) -> list[Decoded]:
        """Return what is left when the run has ended.

        A value or file of which parts are missing comes without data, with that as its problem;
        its name is empty if the name was in a missing part.
        """
        left: list[Decoded] = []
        for stream, decoder in self._streams.items():
            left += filter(None, starmap(_lost, decoder.incomplete()))
            event = Output("", "stderr" if stream == "stderr" else "stdout")
            left += [_item(piece, event) for piece in decoder.close()]
        return left


def decode(events: Iterable[Output], mark: str, *, is_over: bool = True) -> Iterator[Decoded]:
    """Decode the events of a run.

    Args:
        events: from the run's first one on.
        mark: the run's; see `runs.Run.mark`.
        is_over: whether no more events follow, so that incomplete messages are given as text.
    """
    decoder = OutputDecoder(mark)
    for event in events:
        yield from decoder.feed(event)
    if is_over:
        yield from decoder.close()


def _item(piece: str | Message, event: Output) -> Decoded:
    """Return the item that a piece of an event's text stands for."""
    if isinstance(piece, str):
        return replace(event, text=piece)
    head = piece.head
    match piece.kind:
        case "display" if isinstance(data := head.get("data"), dict):
            metadata, display_id = head.get("metadata"), head.get("display_id")
            return Display(
                data=data,
                metadata=metadata if isinstance(metadata, dict) else {},
                display_id=display_id if isinstance(display_id, str) else None,
                is_update=head.get("update") is True,
                is_result=head.get("result") is True,
                timestamp=event.timestamp,
            )
        case "clear":
            return ClearOutput(head.get("wait") is True)
        case "raised":
            return Raised(head)
        case "value":
            name, problem, change = (_text(head, key) for key in ("name", "problem", "change"))
            return Value(name, piece.data, problem, change)
        case "file":
            return SavedFile(_text(head, "path"), piece.data, _text(head, "problem"))
        case "session":
            return _session(head)
        case "interrupted":
            return SessionInterrupted(_text(head, "key"))
    return replace(event, text=piece.readable)  # of a later version


def _session(head: dict[str, Any]) -> SessionSaved:
    key, title, branch, snapshot, sha256, error = (
        _text(head, member) for member in ("key", "title", "branch", "id", "sha256", "error")
    )
    cell, variables, size = (_number(head, member) for member in ("cell", "variables", "bytes"))
    lost = head.get("lost")
    pairs = [entry for entry in lost if _is_pair(entry)] if isinstance(lost, list) else []
    return SessionSaved(
        key, title, branch, cell, snapshot, sha256, variables, size,
        tuple((name, reason) for name, reason in pairs), error,
    )  # fmt: skip


def _is_pair(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str) for x in entry)


def _number(head: dict[str, Any], member: str) -> int:
    value = head.get(member)
    return value if isinstance(value, int) else 0


def _lost(message: Message, arrived: str) -> Value | SavedFile | None:
    """Return a value or file of which parts are missing; None for any other message."""
    if message.kind not in ("value", "file"):
        return None
    kind, key = (Value, "name") if message.kind == "value" else (SavedFile, "path")
    name = _text(message.head, key)
    return kind(name, b"", f"of {name or f'a {message.kind}'}, only {arrived} arrived")


def _text(head: dict[str, Any], member: str) -> str:
    value = head.get(member)
    return value if isinstance(value, str) else ""


class Harvest:
    """The items of a run that are kept, not shown: values, files, and the error that ended it.

    Args:
        items: the run's first items.

    Attributes:
        problems: a sentence for each value and file whose name did not arrive.
        session: what the run's session keeps; None if the run has none, or has not ended.
    """

    def __init__(self, items: Iterable[Decoded] = ()) -> None:
        self.problems: list[str] = []
        self.raised: Raised | None = None
        self.session: SessionSaved | None = None
        self.values: dict[str, Value] = {}
        self.files: dict[str, SavedFile] = {}
        self.take(items)

    def take(self, items: Iterable[Decoded]) -> None:
        """Take the run's next items."""
        for item in items:
            match item:
                case Raised():
                    self.raised = item
                case Value(name="") | SavedFile(path=""):
                    self.problems.append(f"{item.problem or 'a value came without its name'}.")
                case Value(name):
                    self.values[name] = item
                case SavedFile(path):
                    self.files[path] = item
                case SessionSaved():
                    self.session = item
                case Output() | Display() | ClearOutput() | SessionInterrupted():
                    pass
                case _:
                    assert_never(item)
