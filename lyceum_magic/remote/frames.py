"""Rich data on its way to the notebook: frames in the text of the program.

A message is a head (JSON), bytes, and what another reader sees of it. It becomes one or more frames

    ~@lyceum:MARK:KIND:MESSAGE:PART/PARTS:CRC:PAYLOAD:READABLE@~

each one line of at most MAX_FRAME_BYTES, written by one `os.write`: a pipe does not tear those
apart. MARK is the run's own, so that the printed log of another run stays text; MESSAGE is unique
in the run; PAYLOAD is a slice of the base64 of the compressed `head, line feed, bytes`; CRC is
that of `KIND:MESSAGE:PART/PARTS:PAYLOAD`; READABLE is a slice of text, in which no "@~" occurs.

`outputs.frames` reads frames, and `server.output.masking` lets them pass; both take the grammar
from here.
"""

from __future__ import annotations

from binascii import b2a_base64, crc32
from itertools import count
from os import dup, getpid, write
from re import sub

from .deflating import deflate
from .streams import flush_all, turns, without_surrogates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .masking import Mask

OPENING = "~@lyceum:"
END = "@~"
#: A frame between its mark and its readable text, as a regular expression.
FIELDS = (
    r"(?P<place>(?P<kind>[a-z]+):(?P<message>[0-9a-f]+\.[0-9]+):"
    r"(?P<part>[0-9]{1,9})/(?P<parts>[0-9]{1,9})):(?P<crc>[0-9a-f]{8}):(?P<payload>[0-9A-Za-z+/=]*):"
)
MAX_FRAME_BYTES = 3000
#: Maximum bytes of a frame's readable text, and of all but that and the payload.
MAX_READABLE_BYTES = 1800
MAX_OVERHEAD_BYTES = 200

#: The account's secrets, which `send` masks.
secrets: list[str] = []

_mask: Mask | None = None
_mark = ""
_descriptors = {1: 1, 2: 2}
_counts = count(1)  # threads may send at the same time


def open_frames(mark: str) -> None:
    """Open stdout and stderr for frames with this mark.

    Frames go to copies of the descriptors, so that a program that points its own elsewhere still
    shows its figures.
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
    exact: dict[str, object] | None = None,
    readable: str = "",
    descriptor: int = 1,
) -> None:
    """Send one message, after the text that was printed before it.

    The account's secrets are masked in `head` and `readable`. They are not masked in `data` and
    `exact`, which are for what the user asked to get back as it is.

    Args:
        kind: lower-case letters.
        head: a JSON object; what JSON cannot express travels as its repr.
        data: bytes that belong to it.
        exact: further members of the head, such as the name by which a value was asked for.
        readable: text for a reader that does not know frames.
        descriptor: 1, or 2 for stderr.
    """
    if secrets:
        mask = _mask_of_secrets()
        head = {key: mask.value(item) for key, item in head.items()}
        readable = mask.text(readable)
    head = {**head, **exact} if exact else head
    lines = encode(_mark, kind, f"{getpid():x}.{next(_counts)}", head, data, readable)
    flush_all()
    turns.take(descriptor)
    for line in lines:
        _write(_descriptors[descriptor], line)


def send_at_once(kind: str, head: dict[str, object]) -> None:
    """Send one message from a handler of a signal, before text that still waits."""
    for line in encode(_mark, kind, f"{getpid():x}.{next(_counts)}", head, b"", ""):
        _write(_descriptors[1], line)


def encode(
    mark: str, kind: str, message: str, head: dict[str, object], data: bytes, readable: str
) -> list[bytes]:
    """Return the frames of one message, each with its line feed; see `send`."""
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
        place = f"{kind}:{message}:{part}/{parts}"
        crc = crc32(f"{place}:{piece}".encode("ascii"))
        line = f"{OPENING}{mark}:{place}:{crc:08x}:{piece}:{text_shown}{END}\n"
        lines.append(line.encode("utf-8"))
    return lines


def as_json(value: object) -> str:
    """Return the value as JSON, without a function of `json` that the cell may have replaced."""
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:  # a Python without it
        from json.encoder import JSONEncoder

        return JSONEncoder(default=repr).encode(value)
    encode = make_encoder(
        None, repr, encode_basestring_ascii, None, ": ", ", ", False, False, True
    )  # fmt: skip
    return "".join(encode(value, 0))


def _mask_of_secrets() -> Mask:
    global _mask
    if _mask is None:
        from .masking import Mask

        _mask = Mask(secrets)
    return _mask


def _write(target: int, frame: bytes) -> None:
    while frame:
        frame = frame[write(target, frame) :]


def _slices(text: str, max_bytes: int) -> list[str]:
    """Cut a text into pieces of at most `max_bytes`, after a line feed if a piece has one."""
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
