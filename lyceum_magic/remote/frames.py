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

from binascii import b2a_base64, crc32
from itertools import count
from os import dup, getpid, write
from re import sub

from .deflating import deflate
from .streams import flush_all, turns, without_surrogates

MAX_FRAME_BYTES = 3000
#: Of which the readable text may take so much, and what stands around it and the payload.
MAX_READABLE_BYTES = 1800
MAX_OVERHEAD_BYTES = 200

#: What must not be seen in what is shown; see `masking`.
secrets: list[str] = []

_mark = ""
_descriptors = {1: 1, 2: 2}
_counts = count(1)  # threads may send at the same time


def open_frames(mark: str) -> None:
    """From now on frames can be sent, to where stdout and stderr lead now.

    Copies, so that a program which points its descriptors elsewhere still shows its figures.
    """
    global _mark
    _mark = mark
    for descriptor in _descriptors:
        _descriptors[descriptor] = dup(descriptor)


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
    lines = encode(_mark, kind, f"{getpid():x}.{next(_counts)}", head, data, readable)
    flush_all()
    turns.take(descriptor)
    for line in lines:
        _write(_descriptors[descriptor], line)


def encode(
    mark: str, kind: str, message: str, head: dict[str, object], data: bytes, readable: str
) -> list[bytes]:
    """The frames of one message, each with its line feed; see `send`."""
    text = as_json(head).encode("ascii")
    payload = b2a_base64(deflate(text + b"\n" + data, 1), newline=False).decode("ascii")
    readable = without_surrogates(readable)
    if "@" in readable:
        readable = sub(r"@(?=[\r\n]*~)", "@ ", readable)
    shown = _slices(readable, MAX_READABLE_BYTES)
    room = MAX_FRAME_BYTES - MAX_OVERHEAD_BYTES - (MAX_READABLE_BYTES if readable else 0)
    pieces = [payload[at : at + room] for at in range(0, len(payload), room)]
    parts = max(len(pieces), len(shown))
    pieces += [""] * (parts - len(pieces))
    shown += [""] * (parts - len(shown))
    lines = []
    for part, (piece, text_shown) in enumerate(zip(pieces, shown), 1):
        body = f"{kind}:{message}:{part}/{parts}"
        crc = crc32(f"{body}:{piece}".encode("ascii"))
        line = f"~@lyceum:{mark}:{body}:{crc:08x}:{piece}:{text_shown}@~\n"
        lines.append(line.encode("utf-8"))
    return lines


def as_json(value: object) -> str:
    """The value as JSON, without a function of `json` that the cell may have replaced."""
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:  # a Python without it
        from json.encoder import JSONEncoder

        return JSONEncoder(default=repr).encode(value)
    encode = make_encoder(
        None, repr, encode_basestring_ascii, None, ": ", ", ", False, False, True
    )  # fmt: skip
    return "".join(encode(value, 0))


def _write(target: int, frame: bytes) -> None:
    while frame:
        frame = frame[write(target, frame) :]


def _slices(text: str, max_bytes: int) -> list[str]:
    """The text in pieces of at most so many bytes, cut behind a line feed where there is one."""
    pieces: list[str] = []
    at = 0
    while at < len(text):
        piece = text[at : at + max_bytes]
        while len(piece.encode("utf-8")) > max_bytes:
            piece = piece[: len(piece) * 3 // 4]
        if at + len(piece) < len(text):
            piece = piece[: piece.rfind("\n") + 1] or piece
        pieces.append(piece)
        at += len(piece)
    return pieces
