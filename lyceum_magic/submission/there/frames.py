"""Rich data on its way back: frames in the text of the program.

A message is a head (JSON), bytes, and what another reader sees of it. It becomes one or more frames

    ~@lyceum:MARK:KIND:MESSAGE:PART/PARTS:CRC:PAYLOAD:READABLE@~

each one line of at most MAX_FRAME_BYTES, written by one `os.write`: a pipe does not tear those
apart. MARK is the run's own, so that the printed log of another run stays text; MESSAGE is unique
in the run; PAYLOAD is a slice of the base64 of the compressed `head, line feed, bytes`; CRC is
that of `KIND:MESSAGE:PART/PARTS:PAYLOAD`; READABLE is a slice of text, in which no "@~" occurs.
`outputs.frames` reads them.
"""

from __future__ import annotations

import os
import re
import sys
from binascii import b2a_base64, crc32

MAX_FRAME_BYTES = 3000
#: Of which the readable text may take so much; the rest is payload.
MAX_READABLE_BYTES = 1800

_mark = ""
_descriptors = {1: 1, 2: 2}
_count = 0


def open_frames(mark: str) -> None:
    """From now on frames can be sent, to where stdout and stderr lead now.

    Copies, so that a program which points its descriptors elsewhere still shows its figures.
    """
    global _mark
    _mark = mark
    for descriptor in _descriptors:
        _descriptors[descriptor] = os.dup(descriptor)


def send(
    kind: str,
    head: dict[str, object],
    data: bytes = b"",
    *,
    readable: str = "",
    descriptor: int = 1,
) -> None:
    """Sends one message, behind the text that was printed before it.

    Args:
        kind: lower-case letters.
        head: a JSON object; what JSON cannot say travels as its repr.
        data: bytes that belong to it.
        readable: what a reader sees who does not know frames.
        descriptor: 1, or 2 for stderr.
    """
    import json
    import zlib

    global _count
    _count += 1
    message = f"{os.getpid():x}.{_count}"
    text = json.dumps(head, default=repr).encode("ascii")
    payload = b2a_base64(zlib.compress(text + b"\n" + data, 1), newline=False).decode("ascii")
    texts = _slices(re.sub(r"@([\r\n]*)~", r"@ \1~", readable), MAX_READABLE_BYTES)
    room = MAX_FRAME_BYTES - 200 - (MAX_READABLE_BYTES if readable else 0)
    payloads = [payload[at : at + room] for at in range(0, len(payload), room)]
    parts = max(len(payloads), len(texts))
    payloads += [""] * (parts - len(payloads))
    texts += [""] * (parts - len(texts))
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    for part, (piece, shown) in enumerate(zip(payloads, texts), 1):
        body = f"{kind}:{message}:{part}/{parts}:{piece}"
        crc = crc32(body.encode("ascii"))
        start = f"{kind}:{message}:{part}/{parts}:{crc:08x}:{piece}:{shown}"
        _write(descriptor, f"~@lyceum:{_mark}:{start}@~\n".encode("utf-8", "replace"))


def _write(descriptor: int, frame: bytes) -> None:
    target = _descriptors[descriptor]
    while frame:
        frame = frame[os.write(target, frame) :]


def _slices(text: str, max_bytes: int) -> list[str]:
    """The text in pieces of at most so many bytes, cut at line ends where there are any."""
    pieces: list[str] = []
    while text:
        piece = text[:max_bytes]
        while len(piece.encode("utf-8", "replace")) > max_bytes:
            piece = piece[: len(piece) * 3 // 4]
        if len(piece) < len(text):
            piece = piece[: piece.rfind("\n") + 1] or piece
        pieces.append(piece)
        text = text[len(piece) :]
    return pieces
