"""The output of one run in a file: events in as they come, events out from any offset."""

from __future__ import annotations

import json
import os
import tempfile
import time
import weakref
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from ..disks import reason
from ..exceptions import JournalUnavailable
from ..own_files import open_own
from ..protocol.events import Output

#: Bytes of a log that are read at a time. The memory of larger blocks goes back to the system after
#: each, and getting it again takes twice as long as all the rest.
_BLOCK_BYTES = 1 << 17
#: Seconds between two tries to write what a full disk has refused.
SAVE_AGAIN_S = 5.0
#: Maximum size of the output that waits for room on the disk.
MAX_UNSAVED_BYTES = 64 << 20
_NOT_KEPT = (
    "\nThe rest of this output is not kept here, because the journal's disk cannot be written: "
    "make room on it, and `%lyceum attach` in another kernel brings all of it.\n"
)


class _Unsaved:
    """The end of a log that the disk refused: it follows the first `start` bytes of the file."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.lines = bytearray()
        self.is_full = False
        self.tried_at = time.monotonic()

    def add(self, line: bytes) -> None:
        if not self.is_full and len(self.lines) + len(line) > MAX_UNSAVED_BYTES:
            self.is_full = True
            self.lines += _line(Output(_NOT_KEPT, "stderr"), None)
        if not self.is_full:
            self.lines += line


class EventLog:
    """The output events of one run in a file: one JSON array [stream, time, text, event id] a line.

    A line is written by one `write`, so that a killed process leaves at most one torn line, at the
    end. Readers leave it out and the next writer cuts it off.

    Lines that the disk refuses stay in memory, and are read from there, until the disk takes them.

    Attributes:
        problem: why the disk refused lines, in one sentence; empty if it took all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._unsaved: _Unsaved | None = None
        self._descriptor: int | None = None
        self._shared_bytes = 0
        self._apart: EventLog | None = None
        self._removal: weakref.finalize[..., EventLog] | None = None

    def claim(self) -> bool:
        """Make this the one writer of the log, until `close`; False if another process is.

        Two kernels may follow one run, and one of them writes. The other goes on in a file of its
        own, after the lines that exist now: each event reaches it earlier or later than the writer,
        so it would otherwise read some events twice, or not at all.

        Raises:
            JournalUnavailable: the file cannot be made.
        """
        if self._apart is not None:
            return False
        if self._descriptor is None:
            try:
                return self._claim()
            except OSError as exc:
                where = exc.filename or self.path
                raise JournalUnavailable(
                    f"The journal's file {where} cannot be made: {reason(exc, where)}."
                ) from exc
        return True

    def _claim(self) -> bool:
        descriptor = open_own(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            if _lock(descriptor):
                os.truncate(descriptor, _line_start(self.path, self.path.stat().st_size))
                self._descriptor, descriptor = descriptor, -1
                return True
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        self._go_on_apart()
        return False

    def keep_in_memory(self) -> None:
        """Go on without a file, for a log that cannot be claimed."""
        self._unsaved = _Unsaved(self.size())

    def _go_on_apart(self) -> None:
        self._shared_bytes = self.size()
        descriptor, name = tempfile.mkstemp(prefix="lyceum-magic-", suffix=".jsonl")
        os.close(descriptor)
        self._apart = EventLog(Path(name))
        self._apart.claim()
        self._removal = weakref.finalize(self, Path(name).unlink, missing_ok=True)

    def append(self, event: Output, event_id: str | None) -> None:
        """Add an event, if this is a writer."""
        if self._apart is not None:
            self._apart.append(event, event_id)
        if self._unsaved is not None:
            self._unsaved.add(_line(event, event_id))
            if time.monotonic() >= self._unsaved.tried_at + SAVE_AGAIN_S:
                self.save()
        elif self._descriptor is not None:
            self._write(self._descriptor, _line(event, event_id))

    def _write(self, descriptor: int, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(descriptor, data[written:])
        except OSError as exc:
            self._note_problem(exc)
            unsaved = _Unsaved(os.fstat(descriptor).st_size - written)
            unsaved.add(data)
            self._unsaved = unsaved

    def save(self) -> bool:
        """Write the lines that the disk refused, and return whether all lines are on disk.

        The bytes of the log and their offsets stay the same.
        """
        if self._apart is not None:
            return self._apart.save()
        if self._unsaved is None or self._descriptor is None:
            return self._unsaved is None
        if self._unsaved.is_full:  # a file without the rest would pass for all of it
            return False
        self._unsaved.tried_at = time.monotonic()
        lines = bytes(self._unsaved.lines)
        try:
            # A part of them may be there, from the last time.
            os.ftruncate(self._descriptor, self._unsaved.start)
            while lines:
                lines = lines[os.write(self._descriptor, lines) :]
        except OSError as exc:
            self._note_problem(exc)
            return False
        self._unsaved = None
        return True

    def _note_problem(self, exc: OSError) -> None:
        why = reason(exc, self.path)
        self.problem = f"The journal's file {self.path} cannot be written: {why}."

    def close(self) -> None:
        """Write what is left, and let another process write."""
        self.save()
        self._let_go()

    def _let_go(self) -> None:
        if self._apart is not None:
            self._apart._let_go()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def leave_to_parent(self) -> None:
        """Close it in a forked child, which would keep the parent's lock, and remove its file."""
        if self._removal is not None:
            self._removal.detach()
        self._let_go()

    def size(self) -> int:
        """Return the bytes of the log's whole lines."""
        if self._apart is not None:
            return self._shared_bytes + self._apart.size()
        if (unsaved := self._unsaved) is not None:
            return unsaved.start + len(unsaved.lines)
        try:
            return _line_start(self.path, self.path.stat().st_size)
        except FileNotFoundError:
            return 0

    def read(self, end: int | None = None) -> Iterator[tuple[Output, str | None]]:
        """Yield the events with their ids, oldest first, up to the offset `end`.

        The file is read on the way, so its size does not matter.
        """
        for events in self._blocks(end):
            for stream, stamp, text, event_id in events:
                yield Output(text, stream, stamp), event_id

    def read_text(self, end: int | None = None) -> Iterator[Output]:
        """Yield the text of the events: consecutive events of one stream are joined into one.

        This is fast for many small events, too.
        """
        for events in self._blocks(end):
            for stream, some in groupby(events, itemgetter(0)):
                first, *others = some
                yield Output("".join([first[2], *map(itemgetter(2), others)]), stream, first[1])

    def _blocks(self, end: int | None) -> Iterator[list[Any]]:
        """Yield the events up to the offset `end`, a block of lines at a time."""
        left = self.size() if end is None else end
        if self._apart is not None and left > self._shared_bytes:
            yield from self._blocks(self._shared_bytes)
            yield from self._apart._blocks(left - self._shared_bytes)
            return
        # Copied before the file is read: lines saved meanwhile are in both, at the same offset.
        unsaved, lines = self._unsaved, b""
        if unsaved is not None and left > unsaved.start:
            lines = bytes(unsaved.lines[: left - unsaved.start])
            left = unsaved.start
        yield from self._blocks_of_file(left)
        if lines:
            yield _events(lines[:-1])

    def _blocks_of_file(self, left: int) -> Iterator[list[Any]]:
        if not left:
            return
        with open(open_own(self.path, os.O_RDONLY), "rb", buffering=0) as file:
            begun = b""
            while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
                left -= len(block)
                lines, feed, rest = block.rpartition(b"\n")
                if feed:
                    yield _events(begun + lines)
                    begun = rest
                else:
                    begun += block

    def last_event_id(self) -> str | None:
        """Return the event id in the last whole line; None without a line, or without an id."""
        end = self.size()
        if not end:
            return None
        if self._apart is not None and end > self._shared_bytes:
            return self._apart.last_event_id()
        if self._unsaved is not None and self._unsaved.lines:
            last = bytes(self._unsaved.lines).splitlines()[-1]
        else:
            with open(open_own(self.path, os.O_RDONLY), "rb") as file:
                file.seek(_line_start(self.path, end - 1))
                last = file.readline()
        event_id = json.loads(last)[3]
        return str(event_id) if event_id is not None else None


def _line(event: Output, event_id: str | None) -> bytes:
    stamp = event.timestamp if event.timestamp is not None else time.time()
    text = json.dumps([event.stream, round(stamp, 6), event.text, event_id])
    return text.encode() + b"\n"


def _events(lines: bytes) -> list[Any]:
    """Return the events in whole lines; a line has no line feed inside."""
    from pydantic_core import from_json  # slow to import, and a list of runs reads no events

    text = b"[%b]" % lines.replace(b"\n", b",")
    try:
        events = from_json(text, cache_strings="none")
    except ValueError:  # half of a surrogate pair, which the standard library alone lets pass
        events = json.loads(text)
    return list(events)


def _lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: one kernel follows a run there
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _line_start(path: Path, end: int) -> int:
    """Return the offset after the last line feed before `end`; 0 without a line feed."""
    with open(open_own(path, os.O_RDONLY), "rb") as file:
        while end > 0:
            begin = max(0, end - 65536)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0
