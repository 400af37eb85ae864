"""The end of a run's output: for its record and its log lines. Reads the spool, holds little."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...protocol.events import StreamName
from .spool import LOST, DamagedSpool, SpoolRecord, read_spool

_BLOCK_BYTES = 1 << 20
_MAX_LINES_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class OutputTail:
    """The last bytes of each stream and of both, as text; `is_truncated` if there was more."""

    stdout: str
    stderr: str
    combined: str
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One line of output. `timestamp` is when its beginning arrived, in seconds since 1970."""

    timestamp: float
    stream: StreamName
    text: str


def read_tail(spool: Path | None, *, max_bytes: int) -> OutputTail:
    """Return at most the last `max_bytes` of stdout, of stderr and of both in their order."""
    stdout, stderr, combined = _Tail(max_bytes), _Tail(max_bytes), _Tail(max_bytes)
    for record in _records(spool):
        combined.add(record.data)
        (stdout if record.stream == "stdout" else stderr).add(record.data)
    return OutputTail(stdout.text(), stderr.text(), combined.text(), combined.is_truncated)


def read_lines(spool: Path | None, *, limit: int, since: float) -> list[Line]:
    """Return the last `limit` lines that began at `since` or later, oldest first.

    A line that began long before the others may lack its beginning, and of lines without end the
    last `_MAX_LINES_BYTES` are seen.
    """
    lines: deque[Line] = deque(maxlen=limit)
    # Each stream has a line of its own in the making: the program writes them independently.
    unfinished: dict[StreamName, tuple[float, bytes]] = {}
    for record in _last_records(spool, limit):
        timestamp, begun = unfinished.pop(record.stream, (record.timestamp, b""))
        *whole, rest = (begun + record.data).split(b"\n")
        for number, line in enumerate(whole):
            _append(lines, timestamp if number == 0 else record.timestamp, record.stream, line)
        if rest:
            unfinished[record.stream] = (record.timestamp if whole else timestamp, rest)
    for stream, (timestamp, rest) in unfinished.items():
        _append(lines, timestamp, stream, rest)
    return [line for line in lines if line.timestamp >= since]


class NewestLines:
    """The newest lines of several runs together, as `read_lines` gives those of one."""

    def __init__(self, *, limit: int, since: float) -> None:
        self._limit = limit
        self._since = since
        self._newest: list[tuple[float, int, str, Line]] = []

    def add(self, spools: Mapping[str, Path]) -> None:
        """Read the output of some runs: id -> spool."""
        for run_id, spool in spools.items():
            lines = read_lines(spool, limit=self._limit, since=self._since)
            self._newest += [(line.timestamp, n, run_id, line) for n, line in enumerate(lines)]
            if len(self._newest) > 4 * self._limit:
                self._cut()
        self._cut()

    def _cut(self) -> None:
        self._newest = heapq.nlargest(self._limit, self._newest, key=lambda entry: entry[:3])

    def are_newer_than(self, moment: float) -> bool:
        """Return whether no line that began before a moment can come among them, whatever else is
        read.
        """
        return len(self._newest) == self._limit and self._newest[-1][0] > moment

    def lines(self) -> list[tuple[str, Line]]:
        """Return them, oldest first, each with the id of its run."""
        return [(run_id, line) for _, _, run_id, line in reversed(self._newest)]


def _last_records(spool: Path | None, lines: int) -> deque[SpoolRecord]:
    """Return the last records, enough for `lines` lines: a gigabyte is skimmed, not split."""
    window: deque[SpoolRecord] = deque()
    breaks = size = 0
    for record in _records(spool):
        window.append(record)
        breaks += record.data.count(b"\n")
        size += len(record.data)
        # The first record may begin in the middle of a line, so its lines do not count.
        while len(window) > 1 and (
            breaks - window[0].data.count(b"\n") > lines or size > _MAX_LINES_BYTES
        ):
            first = window.popleft()
            breaks -= first.data.count(b"\n")
            size -= len(first.data)
    return window


def _append(lines: deque[Line], timestamp: float, stream: StreamName, line: bytes) -> None:
    lines.append(Line(timestamp, stream, line.decode("utf-8", "replace").removesuffix("\r")))


def _records(spool: Path | None) -> Iterator[SpoolRecord]:
    offset, timestamp = 0, time.time()
    try:
        while spool is not None and (records := read_spool(spool, offset, max_bytes=_BLOCK_BYTES)):
            yield from records
            offset, timestamp = records[-1].end, records[-1].timestamp
    except DamagedSpool:
        yield SpoolRecord("stderr", timestamp, LOST.encode(), offset)


class _Tail:
    """The last bytes of what was added."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self.is_truncated = False

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        # Keeps at least `max_bytes` for as long as there was that much.
        while self._size - len(self._pieces[0]) >= self._max_bytes:
            self._size -= len(self._pieces.popleft())
            self.is_truncated = True

    def text(self) -> str:
        data = b"".join(self._pieces)
        if len(data) > self._max_bytes:
            self.is_truncated = True
            data = data[-self._max_bytes :]
        if self.is_truncated:
            # The cut may have gone through a character; what is left of it is not text.
            while data and data[0] & 0xC0 == 0x80:
                data = data[1:]
        return data.decode("utf-8", "replace")
