"""Frames in the text of a program -> text and messages; the other end of `remote.frames`.

The text may come in pieces of any size, with line feeds added or taken away anywhere, and with
other processes' prints between the frames. What is no whole, sound frame of this run stays text.
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

#: A longer candidate is no frame: one has at most 3000 bytes, and the line feeds that came in.
_MAX_FRAME = 12_000
_LINE_FEEDS = "[\r\n]*"
_END = re.compile(f"@{_LINE_FEEDS}~")
#: Bytes that a message may have when it is unpacked; the parts of all messages wait for the rest
#: of theirs with as many characters.
_MAX_MESSAGE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """What the program sent: see `remote.frames.send`."""

    kind: str
    head: dict[str, Any]
    data: bytes
    readable: str


@dataclass(slots=True)
class _Parts:
    """A message that has not come whole."""

    kind: str
    count: int
    payloads: dict[int, str] = field(default_factory=dict)
    readables: dict[int, str] = field(default_factory=dict)

    @property
    def arrived(self) -> str:
        return f"{len(self.payloads)} of {self.count} parts"

    def readable(self) -> str:
        return "".join(self.readables[part] for part in sorted(self.readables))


class FrameDecoder:
    """One stream of one run.

    Args:
        mark: the run's; empty: there are no frames, and all is text.
    """

    def __init__(self, mark: str) -> None:
        self._opening = f"~@lyceum:{mark}:" if mark else ""
        self._start = re.compile(_LINE_FEEDS.join(map(re.escape, self._opening)))
        self._held = ""
        self._swallows_newline = False
        self._incomplete: dict[str, _Parts] = {}
        self._waiting = 0  # characters in there

    def feed(self, text: str) -> list[str | Message]:
        """Text and messages in their order; what may be the beginning of a frame is held back."""
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

    def close(self) -> list[str | Message]:
        """What is left at the end of the stream: nothing of it is hidden."""
        found: list[str | Message] = [self._held] if self._held else []
        self._held = ""
        found += (
            f"{parts.readable()}\n[lyceum] of this {parts.kind}, {parts.arrived} arrived\n"
            for parts in self._incomplete.values()
        )
        self._incomplete.clear()
        self._waiting = 0
        return found

    def incomplete(self) -> Iterator[tuple[Message, str]]:
        """Messages that have not come whole, without bytes, and how much of each arrived.

        The head is empty where its part is missing.
        """
        for parts in self._incomplete.values():
            begun = takewhile(parts.payloads.__contains__, count(1))
            payload = "".join(parts.payloads[part] for part in begun)
            yield (
                Message(parts.kind, _head_of(parts.kind, payload), b"", parts.readable()),
                parts.arrived,
            )

    def _skip_newline(self, text: str, at: int) -> int:
        """Behind the line feed that ends a frame, which may come later, or never."""
        if not self._swallows_newline or at == len(text):
            return at
        self._swallows_newline = False
        if text[at] == "\n":
            return at + 1
        return at

    def _may_begin(self, rest: str) -> bool:
        return self._opening.startswith(rest.replace("\n", "").replace("\r", ""))

    def _take(self, inside: str) -> Message | bool | None:
        """A message if this frame completed one, True if it is a sound frame, else None."""
        pieces = inside.split(":", 5)
        if len(pieces) < 6:
            return None
        kind, message, place, crc, payload = (re.sub(r"[\r\n]", "", p) for p in pieces[:5])
        try:
            part, parts_in_all = map(int, place.split("/"))
            sound = int(crc, 16) == zlib.crc32(f"{kind}:{message}:{place}:{payload}".encode())
        except ValueError:
            return None
        if not sound or not 1 <= part <= parts_in_all:
            return None
        parts = self._incomplete.get(message) or _Parts(kind, parts_in_all)
        size = len(payload) + len(pieces[5])
        if (
            (parts.kind, parts.count) != (kind, parts_in_all)
            or part in parts.payloads
            or self._waiting + size > _MAX_MESSAGE
        ):
            return None  # nothing of ours writes that
        self._incomplete[message] = parts
        self._waiting += size
        parts.payloads[part] = payload
        parts.readables[part] = pieces[5]
        if len(parts.payloads) < parts_in_all:
            return True
        del self._incomplete[message]
        self._waiting -= sum(map(len, [*parts.payloads.values(), *parts.readables.values()]))
        return _message(parts)


def _head_of(kind: str, payload: str) -> dict[str, Any]:
    """The head at the beginning of a payload; empty if it is not all there."""
    try:
        begun = binascii.a2b_base64(payload[: len(payload) // 4 * 4])
        text, end, _ = zlib.decompressobj().decompress(begun, _MAX_MESSAGE).partition(b"\n")
        head = _parse_head(kind, text) if end else {}
    except (ValueError, zlib.error, RecursionError):
        return {}
    return head if isinstance(head, dict) else {}


def _parse_head(kind: str, text: bytes) -> Any:
    # The name of a file has to stay what it is, also where its bytes are no UTF-8.
    parse = json.loads if kind == "file" else parse_json
    return parse(text.decode("utf-8", "surrogatepass"))


def _message(parts: _Parts) -> Message:
    """The message; one that cannot be read, though its frames are sound, is of no known kind."""
    payload = "".join(parts.payloads[part] for part in range(1, parts.count + 1))
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(binascii.a2b_base64(payload), _MAX_MESSAGE)
        text, _, data = body.partition(b"\n")
        head = _parse_head(parts.kind, text)
    except (ValueError, zlib.error, RecursionError):
        head, data = None, b""
    if not isinstance(head, dict):
        return Message("unreadable", {}, b"", parts.readable())
    return Message(parts.kind, head, data, parts.readable())
