"""The output of a stack's containers: the engine's logs in, whole lines out, each once.

Each line begins with its service's name.

The logs are read rather than the containers attached to: they begin with a container's first
byte, go on over its restarts, and can be read again from a moment on. That is needed, because a
container can write and be started again while no reader follows, and because engines before version
23 end a followed log without its last lines now and then.
"""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

from ...output.masking import Masker, SecretTexts
from ..engine.engine import PATIENCE_S

if TYPE_CHECKING:
    from docker import DockerClient

    from ....protocol.events import StreamName

_STREAMS: dict[int, StreamName] = {1: "stdout", 2: "stderr"}
_FRAME = struct.Struct(">BxxxL")

#: A longer line is told in pieces of this size: one without an end must not fill the memory.
_MAX_LINE_BYTES = 1 << 20

#: The engine cuts longer lines into messages of this size. One that is shorter and has no end of
#: line is the last of a program.
_PIECE_BYTES = 16 * 1024

#: The time by which reading resumes before the last message, in seconds. The engine's clocks for
#: the two streams of a container are read one before the other: messages may lie in the log
#: slightly out of order.
_OVERLAP_S = 5


class FrameDecoder:
    """A decoder for the two streams that the engine sends as one, cut anywhere.

    Source: Docker Engine API, "Attach to a container", stream format: one byte for the stream,
    three of nothing, four for the length, big endian.
    """

    def __init__(self) -> None:
        self._rest = b""

    def decode(self, data: bytes) -> Iterator[tuple[StreamName, bytes]]:
        """Yield the frames that are whole now; each is one message of the log."""
        data = self._rest + data
        position = 0
        while position + _FRAME.size <= len(data):
            number, length = _FRAME.unpack_from(data, position)
            end = position + _FRAME.size + length
            if end > len(data):
                break
            yield _STREAMS.get(number, "stderr"), data[position + _FRAME.size : end]
            position = end
        self._rest = data[position:]


class LinePrefixer:
    """A name before every line of one stream, which arrives in pieces.

    Args:
        secrets: masked in it, before it is split into lines: a secret may have several.
    """

    def __init__(self, name: str, secrets: SecretTexts) -> None:
        self._prefix = f"{name} | ".encode()
        self._masker = Masker(secrets) if secrets else None
        self._pieces: list[bytes] = []
        self._length = 0

    def add(self, piece: bytes) -> bytes:
        """Return the lines that are whole now."""
        return self._lines_with(self._masker.feed(piece) if self._masker else piece)

    def end(self) -> bytes:
        """Return what is left when the stream ends; another may begin then."""
        return self._lines_with(self._masker.close() if self._masker else b"") + self._cut()

    def _lines_with(self, piece: bytes) -> bytes:
        *lines, rest = piece.split(b"\n")
        told = []
        for line in lines:
            told += [self._prefix, *self._pieces, line, b"\n"]
            self._forget()
        if rest:
            self._pieces.append(rest)
            self._length += len(rest)
        if self._length >= _MAX_LINE_BYTES:
            told.append(self._cut())
        return b"".join(told)

    def _cut(self) -> bytes:
        """Return the last line, if it did not end, with an end."""
        if not self._pieces:
            return b""
        line = b"".join([self._prefix, *self._pieces, b"\n"])
        self._forget()
        return line

    def _forget(self) -> None:
        self._pieces = []
        self._length = 0


@dataclass
class LastRead:
    """The last message that was read of a stream, and how many were of the same moment."""

    moment: str = ""
    count: int = 0


class LogCursor:
    """A cursor that gives each message of a log once, however often the log is read again.

    Messages are the engine's: a moment to the nanosecond, a space, the text.
    """

    def __init__(self) -> None:
        self._last_read = {name: LastRead() for name in _STREAMS.values()}
        self._known: dict[StreamName, LastRead | None] = {}
        self._seen: dict[StreamName, LastRead] = {}

    def resume(self) -> str | None:
        """Begin another reading; return the moment to read from, as the API's `since`."""
        self._known = {
            name: LastRead(last.moment, last.count) if last.moment else None
            for name, last in self._last_read.items()
        }
        self._seen = {name: LastRead() for name in _STREAMS.values()}
        moments = [last.moment for last in self._last_read.values() if last.moment]
        if not moments:
            return None
        return str(int(datetime.fromisoformat(max(moments)).timestamp()) - _OVERLAP_S)

    def take(self, stream: StreamName, message: bytes) -> bytes:
        """Return the text of a message; empty if it has been taken before."""
        moment, _, text = message.partition(b" ")
        here = moment.decode("ascii", "replace")
        seen = self._seen[stream]
        seen.count = seen.count + 1 if seen.moment == here else 1
        seen.moment = here
        known = self._known[stream]
        if known is not None:
            if here < known.moment or (here == known.moment and seen.count <= known.count):
                return b""
            self._known[stream] = None  # from here on everything is new
        self._last_read[stream] = LastRead(here, seen.count)
        return text


class OutputReader:
    """A reader of one container's output, on a thread of its own, until it is told to finish.

    Args:
        name: what its lines begin with.
        secrets: what is masked in its lines.
        tell: takes whole lines; may be called from that thread.
    """

    def __init__(
        self,
        engine: DockerClient,
        container_id: str,
        name: str,
        secrets: SecretTexts,
        tell: Callable[[StreamName, bytes], None],
    ) -> None:
        self._engine = engine
        self._container_id = container_id
        self._tell = tell
        self._cursor = LogCursor()
        self._lines = {stream: LinePrefixer(name, secrets) for stream in _STREAMS.values()}
        self._starts: queue.SimpleQueue[Literal["started", "over"]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read_all, name=f"output of {name}")
        self._thread.daemon = True
        self.error: Exception | None = None
        self._thread.start()

    def started(self) -> None:
        """Note that the container was started, for the first time or again."""
        self._starts.put("started")

    def finish(self) -> None:
        """Wait until all output has been told; the container has ended for good.

        Raises:
            Exception: the engine failed while it was read from.
        """
        self._starts.put("over")
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _read_all(self) -> None:
        try:
            is_over = False
            while not is_over:
                is_over = self._starts.get() == "over"
                if not is_over:
                    self._read(follow=True)
                self._read(follow=False)
                for stream, lines in self._lines.items():
                    self._pass_on(stream, lines.end())
        except Exception as exc:  # noqa: BLE001 - the top of a thread; finish() raises it
            self.error = exc

    def _read(self, *, follow: bool) -> None:
        api = self._engine.api
        parameters: dict[str, int | str] = {
            "stdout": 1,
            "stderr": 1,
            "timestamps": 1,
            "follow": int(follow),
        }
        since = self._cursor.resume()
        if since is not None:
            parameters["since"] = since
        # Not the SDK's own logs(): they do not say which stream a message is of.
        with api.get(
            f"{api.base_url}/v{api.api_version}/containers/{self._container_id}/logs",
            params=parameters,
            stream=True,
            timeout=(PATIENCE_S, None),
        ) as response:
            if response.status_code == HTTPStatus.NOT_FOUND:
                return  # the container was removed by hand
            response.raise_for_status()
            decoder = FrameDecoder()
            for data in response.iter_content(chunk_size=None):
                for stream, message in decoder.decode(data):
                    self._take(stream, self._cursor.take(stream, message))

    def _take(self, stream: StreamName, text: bytes) -> None:
        lines = self._lines[stream]
        self._pass_on(stream, lines.add(text))
        if text and not text.endswith(b"\n") and len(text) < _PIECE_BYTES:
            # The program's last output before it ended: the next piece belongs to its next start.
            self._pass_on(stream, lines.end())

    def _pass_on(self, stream: StreamName, lines: bytes) -> None:
        if lines:
            self._tell(stream, lines)
