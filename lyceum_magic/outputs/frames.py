"""Text of a program with frames in it -> text and messages; the other end of `remote.frames`.

The text may come in pieces of any size, with line feeds added or taken away anywhere, and with
other processes' prints between the frames. Anything but a whole, sound frame of this run stays
text.
"""

from __future__ import annotations

import binascii
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Any

from ..protocol.surrogates import parse_json
from ..remote.frames import END, FIELDS, OPENING

#: A longer candidate is no frame: one has at most 3000 bytes, and the line feeds that came in.
_MAX_FRAME = 12_000
_LINE_FEEDS = "[\r\n]*"
_END = re.compile(_LINE_FEEDS.join(END))
_FIELDS = re.compile(FIELDS)
#: Maximum bytes of an unpacked message, and characters of all parts that wait for others.
_MAX_MESSAGE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the program; see `remote.frames.send`."""

    kind: str
    head: dict[str, Any]
    data: bytes
    readable: str


@dataclass(slots=True)
class _Parts:
    """The parts of a message that have come."""

    kind: str
    count: int
    payloads: dict[int, str] = field(default_factory=dict)
    readables: dict[int, str] = field(default_factory=dict)

    @property
    def arrived(self) -> str:
        return f"{len(self.payloads)} of {self.count} parts"

    @property
    def readable(self) -> str:
        return "".join(self.readables[part] for part in sorted(self.readables))

    def message(self) -> Message:
        """The message as far as its first parts hold it; its head is empty if it is cut.

        Of a whole message that cannot be read, though its frames are sound, the kind is
        "unreadable".
        """
        begun = takewhile(self.payloads.__contains__, count(1))
        head, data = _unpack(self.kind, "".join(self.payloads[part] for part in begun))
        kind = self.kind
        if len(self.payloads) < self.count:
            data = b""
        elif head is None:
            kind, data = "unreadable", b""
        return Message(kind, head or {}, data, self.readable)


class FrameReader:
    """A reader of one stream of one run.

    Args:
        mark: the run's; if it is empty there are no frames, and everything is text.
    """

    def __init__(self, mark: str) -> None:
        self._opening = f"{OPENING}{mark}:" if mark else ""
        self._start = re.compile(_LINE_FEEDS.join(map(re.escape, self._opening)))
        self._held = ""
        self._swallows_newline = False
        self._incomplete: dict[str, _Parts] = {}
        self._waiting = 0  # characters in there

    def feed(self, text: str) -> list[str | Message]:
        """Return text and messages in order; what may begin a frame is held back."""
        if not self._opening:
            return [text] if text else []
        text, self._held = self._held + text, ""
        found: list[str | Message] = []
        done = at = self._skip_newline(text, 0)
        while (at := text.find("~", at)) >= 0:
            if (start := self._start.match(text, at)) is None:
                if len(text) - at <= 4 * len(self._opening) and self._may_begin(text[at:]):
                    break
                at += 1
                continue
            end = _END.search(text, start.end(), at + _MAX_FRAME)
            if end is None:
                if len(text) - at < _MAX_FRAME:
                    break
                at += 1
                continue
            message = self._take(text[start.end() : end.start()])
            if message is None:
                at += 1
                continue
            if done < at:
                found.append(text[done:at])
            if isinstance(message, Message):
                found.append(message)
            self._swallows_newline = True
            done = at = self._skip_newline(text, end.end())
        if at < 0:
            at = len(text)
        self._held = text[at:]
        if done < at:
            found.append(text[done:at])
        return found

    def close(self) -> list[str]:
        """Return what is left at the end of the stream, so that nothing of it is hidden."""
        found = [self._held] if self._held else []
        self._held = ""
        found += (
            f"{parts.readable}\n[lyceum] of this {parts.kind}, {parts.arrived} arrived\n"
            for parts in self._incomplete.values()
        )
        self._incomplete.clear()
        self._waiting = 0
        return found

    def incomplete(self) -> Iterator[tuple[Message, str]]:
        """Yield each message of which parts are missing, without data, and how much arrived."""
        for parts in self._incomplete.values():
            yield parts.message(), parts.arrived

    def _skip_newline(self, text: str, at: int) -> int:
        """Return the place after the line feed that ends a frame; it may come later, or never."""
        if not self._swallows_newline or at == len(text):
            return at
        self._swallows_newline = False
        return at + 1 if text[at] == "\n" else at

    def _may_begin(self, rest: str) -> bool:
        return self._opening.startswith(rest.replace("\n", "").replace("\r", ""))

    def _take(self, inside: str) -> Message | bool | None:
        """Return a message if this frame completes one, True if it is a sound frame, else None."""
        *fields, readable = inside.split(":", 5)
        frame = _FIELDS.fullmatch(re.sub("[\r\n]", "", ":".join([*fields, ""])))
        if frame is None:
            return None
        kind, part, parts_in_all = frame["kind"], int(frame["part"]), int(frame["parts"])
        crc = zlib.crc32(f"{frame['place']}:{frame['payload']}".encode())
        if crc != int(frame["crc"], 16) or not 1 <= part <= parts_in_all:
            return None
        parts = self._incomplete.get(frame["message"]) or _Parts(kind, parts_in_all)
        size = len(frame["payload"]) + len(readable)
        if (
            (parts.kind, parts.count) != (kind, parts_in_all)
            or part in parts.payloads
            or self._waiting + size > _MAX_MESSAGE
        ):
            return None  # nothing of ours writes that
        self._incomplete[frame["message"]] = parts
        self._waiting += size
        parts.payloads[part] = frame["payload"]
        parts.readables[part] = readable
        if len(parts.payloads) < parts_in_all:
            return True
        del self._incomplete[frame["message"]]
        self._waiting -= sum(map(len, [*parts.payloads.values(), *parts.readables.values()]))
        return parts.message()


def _unpack(kind: str, payload: str) -> tuple[dict[str, Any] | None, bytes]:
    """Return a message's head and data, or as much as there is; no head if that is cut."""
    # The name of a file has to stay what it is, also where its bytes are no UTF-8.
    parse = json.loads if kind == "file" else parse_json
    try:
        packed = binascii.a2b_base64(payload[: len(payload) // 4 * 4])
        body = zlib.decompressobj().decompress(packed, _MAX_MESSAGE)
        text, feed, data = body.partition(b"\n")
        head = parse(text.decode("utf-8", "surrogatepass")) if feed else None
    except (ValueError, zlib.error, RecursionError):
        return None, b""
    return (head if isinstance(head, dict) else None), data
