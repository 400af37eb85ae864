"""Text of a run, piece by piece -> ordinary stream output of the cell, in batches, with a cap."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .. import trail
from ..protocol.events import Output, StreamName
from ..protocol.sizes import in_words
from ..protocol.surrogates import without_surrogates
from .carriage import collapse

Write = Callable[[StreamName, str], None]

#: Front ends draw a whole stream again for each batch: 200 batches of a long cell block Lab for a
#: minute. So five a second at first, one a second when the cell is full.
_MIN_INTERVAL_S = 0.2
_MAX_INTERVAL_S = 1.0

#: Each change of stream costs a flush and another output in the notebook.
_MAX_TURNS = 20

#: Bytes that a waiting piece counts besides its text, so that a million tiny ones are not held.
_PIECE_BYTES = 100

#: An unfinished line longer than this is no progress bar.
_MAX_REDRAWN = 4096


def write_to_stream(stream: StreamName, text: str) -> None:
    """Write `text` to the place of a `print` at this moment, and flush it.

    The flush skips the kernel's own delay of 0.2 s. It also keeps the order of the two streams,
    since the kernel buffers each by itself.
    """
    target = sys.stderr if stream == "stderr" else sys.stdout
    try:
        target.write(text)
    except UnicodeEncodeError:  # a terminal that is not UTF-8; a kernel always is
        encoding = target.encoding or "ascii"
        target.write(text.encode(encoding, "replace").decode(encoding))
    target.flush()


@dataclass(slots=True)
class _Amount:
    lines: int = 0
    size: int = 0

    def add(self, text: str) -> None:
        self.lines += text.count("\n")
        self.size += _size(text)


@dataclass(slots=True)
class _Piece:
    stream: StreamName
    parts: list[str]

    @property
    def text(self) -> str:
        return "".join(self.parts)


class TextFeed:
    """The text of one run on its way into one cell. Used from the main thread only.

    Text passes through unchanged, except that the parts of a line that it overwrites before they
    could be shown are left out (`carriage.collapse`), and that a flood is cut: beyond `max_lines`
    or `max_bytes` nothing more appears until `close`, which publishes the amount that was left out
    and the tail. A line has no length limit of its own; one that crosses `max_bytes` is cut there.
    Only the part of a progress bar that stays on the screen counts, however often it is redrawn.

    Args:
        run_id: for the line that tells how to see the text that was left out.
        max_lines, max_bytes: maximum text before the cut; bytes of UTF-8.
        tail_lines, tail_bytes: maximum text of the end, after the cut.
        write: publishes text on one of the streams.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        run_id: str,
        *,
        max_lines: int = 10_000,
        max_bytes: int = 1_000_000,
        tail_lines: int = 200,
        tail_bytes: int = 50_000,
        write: Write = write_to_stream,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_id = run_id
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._write = write
        self._clock = clock
        self._pending: list[_Piece] = []
        self._pending_bytes = 0
        self._shown = _Amount()
        self._open_line: dict[StreamName, str] = {"stdout": "", "stderr": ""}
        self._ends_line = True
        self._published_at: float | None = None
        self._tail: _Tail | None = None
        self._tail_limits = tail_lines, tail_bytes

    @property
    def is_full(self) -> bool:
        """True when the cap was reached, so that further text waits for `close`."""
        return self._tail is not None

    def add(self, event: Output) -> None:
        """Take text; nothing appears before `publish`."""
        text = without_surrogates(event.text)
        if self._tail is not None:
            self._tail.add(event.stream, text)
            return
        if self._pending and self._pending[-1].stream == event.stream:
            self._pending[-1].parts.append(text)
        else:
            self._pending.append(_Piece(event.stream, [text]))
            self._pending_bytes += _PIECE_BYTES
        self._pending_bytes += _size(text)
        if self._pending_bytes > self._max_bytes:
            self._compact()

    def due_in_s(self) -> float | None:
        """Return the seconds until `publish` is due, 0.0 for now; None if nothing waits."""
        if not self._pending:
            return None
        if self._published_at is None:
            return 0.0
        return max(0.0, self._published_at + self._interval_s() - self._clock())

    def publish(self) -> None:
        """Publish waiting text, due or not: a caller must do so before it shows a figure."""
        if not self._pending:
            return
        self._pending, self._pending_bytes = _by_turns(self._pending), 0
        while self._pending:
            # One by one: an interrupt comes while a flush waits, and must not cost the rest.
            piece = self._pending.pop(0)
            self._show(piece.stream, collapse(piece.text))
        self._published_at = self._clock()

    def close(self) -> None:
        """Publish the rest: waiting text and, after a flood, the amount left out and the tail."""
        self.publish()
        tail, self._tail = self._tail, None
        if tail is None:
            return
        pieces, left_out = tail.take()
        if left_out.size:
            trail.mark("client", self._run_id, "left-out", bytes=left_out.size)
            self._write("stderr", self._notice(left_out))
        for piece in _by_turns(pieces):
            self._put(piece.stream, collapse(piece.text))

    def _interval_s(self) -> float:
        fill = max(
            self._shown.lines / max(self._max_lines, 1), self._shown.size / max(self._max_bytes, 1)
        )
        return _MIN_INTERVAL_S + (_MAX_INTERVAL_S - _MIN_INTERVAL_S) * min(fill, 1.0)

    def _compact(self) -> None:
        """Bound the waiting text, whether or not the caller publishes."""
        for piece in self._pending:
            piece.parts = [collapse(piece.text)]
        self._pending_bytes = sum(_size(piece.parts[0]) + _PIECE_BYTES for piece in self._pending)
        # Half: were it kept until it is full again, each little piece could bring us back here.
        if self._pending_bytes > self._max_bytes // 2:
            self.publish()

    def _show(self, stream: StreamName, text: str) -> None:
        if self._tail is not None:
            self._tail.add(stream, text)
            return
        end = self._admit(stream, text)
        if end < len(text):
            self._tail = _Tail(*self._tail_limits)
            self._tail.add(stream, text[end:])
        if end:
            self._ends_line = text[:end].endswith("\n")
            self._put(stream, text[:end])

    def _put(self, stream: StreamName, text: str) -> None:
        if trail.is_on:
            trail.mark("client", self._run_id, "displayed", stream=stream, bytes=_size(text))
        self._write(stream, text)

    def _admit(self, stream: StreamName, text: str) -> int:
        """Count as shown the part of `text` that the cap allows; return its characters."""
        # Front ends keep of a progress bar only its last state, so only that counts: the line as
        # it would be, had it come in one batch.
        before = self._open_line[stream]
        after = collapse(before + text)
        lines = self._shown.lines + text.count("\n")
        size = self._shown.size + _size(after) - _size(before)
        if lines <= self._max_lines and size <= self._max_bytes:
            self._shown = _Amount(lines, size)
            line = after[after.rfind("\n") + 1 :]
            self._open_line[stream] = line if len(line) <= _MAX_REDRAWN else ""
            return len(text)
        end = _prefix(text, self._max_lines - self._shown.lines, self._max_bytes - self._shown.size)
        self._shown.add(text[:end])
        return end

    def _notice(self, left_out: _Amount) -> str:
        amount = in_words(left_out.size)
        if left_out.lines:
            amount = f"{_lines(left_out.lines)} ({amount})"
        return (
            f"{'' if self._ends_line else chr(10)}[lyceum] {amount} left out here; "
            f"all of it: %lyceum logs {self._run_id[:8]}\n"
        )


def _by_turns(pieces: list[_Piece]) -> list[_Piece]:
    """Return the pieces in order or, if the streams take turns too often, each stream as one.

    A kernel does the same with the prints of 0.2 s.
    """
    if len(pieces) <= _MAX_TURNS:
        return pieces
    streams: dict[StreamName, list[str]] = {}
    for piece in pieces:
        streams.setdefault(piece.stream, []).extend(piece.parts)
    return [_Piece(stream, parts) for stream, parts in streams.items()]


class _Tail:
    """The last lines of a text of any length, in bounded memory."""

    def __init__(self, max_lines: int, max_bytes: int) -> None:
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._pieces: deque[tuple[StreamName, str, int]] = deque()
        self._kept_bytes = 0
        self._seen = _Amount()

    def add(self, stream: StreamName, text: str) -> None:
        self._seen.add(text)
        # A character has at least one byte, so the last `max_bytes` characters are enough.
        text = text[-self._max_bytes :]
        size = _size(text)
        self._pieces.append((stream, text, size))
        self._kept_bytes += size
        while self._kept_bytes - self._pieces[0][2] >= self._max_bytes:
            self._kept_bytes -= self._pieces.popleft()[2]

    def take(self) -> tuple[list[_Piece], _Amount]:
        """Return the tail, oldest piece first, and the amount of text before it."""
        pieces: list[_Piece] = []
        kept = _Amount()
        for stream, text, _ in reversed(self._pieces):
            start = _suffix(text, self._max_lines - kept.lines, self._max_bytes - kept.size)
            if start < len(text):
                kept.add(text[start:])
                if pieces and pieces[-1].stream == stream:
                    pieces[-1].parts.append(text[start:])
                else:
                    pieces.append(_Piece(stream, [text[start:]]))
            if start:
                break
        for piece in pieces:
            piece.parts.reverse()
        pieces.reverse()
        return pieces, _Amount(self._seen.lines - kept.lines, self._seen.size - kept.size)


def _prefix(text: str, max_lines: int, max_bytes: int) -> int:
    """Return the end of the longest start of `text` within the limits, at a line if it can."""
    end = 0
    for _ in range(max_lines):
        newline = text.find("\n", end)
        if newline < 0:
            end = len(text)
            break
        end = newline + 1
    part = text[: min(end, max(max_bytes, 0))]
    if _size(part) > max_bytes:
        part = part.encode()[:max_bytes].decode(errors="ignore")
    if len(part) < end:
        return part.rfind("\n") + 1 or len(part)
    return end


def _suffix(text: str, max_lines: int, max_bytes: int) -> int:
    """Return the start of the longest end of `text` within the limits, at a line if it can."""
    start = len(text)
    end = len(text)
    for _ in range(max_lines + 1):
        newline = text.rfind("\n", 0, end)
        if newline < 0:
            start = 0
            break
        # This newline ends the line before: what follows it is within the limit.
        start, end = newline + 1, newline
    part = text[start:][-max_bytes:] if max_bytes > 0 else ""
    if _size(part) > max_bytes:
        part = part.encode()[-max_bytes:].decode(errors="ignore")
    if len(part) == len(text) - start:
        return start
    cut = len(text) - len(part)
    newline = text.find("\n", cut)
    return newline + 1 if 0 <= newline < len(text) - 1 else cut


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"
