"""A callback's body and headers -> a typed event.

Only the standard library is imported: this runs in other people's programs.

Source: `protocol.callbacks` for the embedded server. Lyceum Cloud does not document its callbacks,
so only `execution_id` is relied on, and a callback is a hint: read the run again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Protocol

from ..exceptions import InvalidCallback
from ..protocol.callbacks import ID_HEADER, MAX_BODY_BYTES, TIMESTAMP_HEADER
from ..protocol.states import State, parse_state

#: Pattern of a run's id. It goes into paths and queries, so it has no characters with a meaning
#: there.
_RUN_ID = r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}"
_CALLBACK_ID = r"[!-~]{1,256}"
#: Pattern of seconds since 1970, up to the year 5138, spelt the one way in which they were signed.
_TIMESTAMP = r"0|[1-9][0-9]{0,10}"
_RETURN_CODE = r"-?[0-9]{1,10}"
#: Pattern of a body's length, with no more digits than the largest body's: for thousands of digits
#: `int` takes long, or raises.
_LENGTH = rf"[0-9]{{1,{len(str(MAX_BODY_BYTES))}}}"
#: Maximum exit code of any system; a larger number would not fit into a database column.
_MAX_RETURN_CODE = 2**32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


#: The value of a header, or all values that came for it.
HeaderValue = str | bytes | Sequence[str | bytes]


class _HasItems(Protocol):
    def items(self) -> Iterable[tuple[str | bytes, HeaderValue]]: ...


#: Headers as frameworks pass them: a dict or another object with `items()`, or a list of pairs.
Headers = _HasItems | Sequence[tuple[str | bytes, HeaderValue]]

#: A request's body, whole.
Body = bytes | bytearray | memoryview


class Stream(Protocol):
    """The source of a request's body, such as `rfile` of `http.server`'s handlers."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class CallbackEvent:
    """A callback: it says that a run has ended. Read the run again before you act on it.

    A fact that is missing or malformed is None or empty.

    Attributes:
        id: the same each time this callback is sent: `webhook-id`, else run and state.
        run_id: the run that ended. Lyceum Cloud does not promise to name it; then let your
            callback URL say which run it is about.
        state: how it ended.
        return_code: exit code of its main process, 128 + n for signal n.
        error: why it did not complete, in one sentence.
        name, file_name, labels, metadata: as it was started.
        machine: the machine it ran on (`execution_type`).
        created_at, started_at, finished_at: in UTC.
        sent_at: when this attempt was made, by the sender's clock, in UTC.
        raw: the whole body as it came.
    """

    id: str
    run_id: str | None
    state: State | None
    return_code: int | None
    error: str
    name: str | None
    file_name: str | None
    labels: tuple[str, ...]
    metadata: Mapping[str, str] = field(hash=False)
    machine: str | None
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    sent_at: datetime | None
    raw: Mapping[str, Any] = field(hash=False, repr=False)


def read_body(headers: Headers, stream: Stream) -> bytes:
    """Read the body of a request: as many bytes as its headers announce.

    For `http.server` and others that pass a stream. The sender is not known yet, so at most
    `MAX_BODY_BYTES` are read. Give the socket a timeout.

    Raises:
        InvalidCallback: the headers announce no length or a larger one, or the body broke off.
            Answer and hang up: unread bytes would be taken for the next request.
    """
    announced = header(headers, "content-length") or ""
    if not re.fullmatch(_LENGTH, announced) or int(announced) > MAX_BODY_BYTES:
        raise InvalidCallback(
            f"The callback's `content-length` header is not a number up to {MAX_BODY_BYTES}."
        )
    body = stream.read(int(announced))
    if len(body) < int(announced):
        raise InvalidCallback("The callback's body broke off.")
    return body


def read(body: Body, headers: Headers | None = None) -> CallbackEvent:
    """Return the event of a callback whose sender you have verified yourself.

    `verify` and `verify_shared` verify and read in one step.

    Args:
        body: as it came, before any framework parsed it.
        headers: the request's headers, which may have its id and time.

    Raises:
        InvalidCallback: it is no callback.
        TypeError: the body is not bytes, or the headers are no headers.
    """
    body = checked_body(body)
    raw = _object(body)
    run_id = raw.get("execution_id")
    if run_id is not None and not (isinstance(run_id, str) and re.fullmatch(_RUN_ID, run_id)):
        raise InvalidCallback("The callback's `execution_id` is not the id of a run.")
    state = raw.get("status")
    callback_id = None if headers is None else id_in(headers)
    sent_at_s = None if headers is None else timestamp_in(headers)
    return CallbackEvent(
        id=callback_id or _substitute_id(body, run_id, state),
        run_id=run_id,
        state=parse_state(state) if isinstance(state, str) else None,
        return_code=_return_code(raw.get("return_code")),
        error=_text(raw.get("error")) or "",
        name=_text(raw.get("run_name")),
        file_name=_text(raw.get("file_name")),
        labels=_texts(raw.get("labels")),
        metadata=_pairs(raw.get("metadata")),
        machine=_text(raw.get("execution_type")),
        created_at=_time(raw.get("created_at")),
        started_at=_time(raw.get("started_at")),
        finished_at=_time(raw.get("finished_at")),
        sent_at=None if sent_at_s is None else _EPOCH + timedelta(seconds=sent_at_s),
        raw=raw,
    )


def header(headers: Headers, name: str) -> str | None:
    """Return the value of a header; None if it is missing.

    Names match in any case, and as WSGI's environment spells them.

    Raises:
        InvalidCallback: the header comes twice, or is not ASCII.
        TypeError: `headers` are no headers.
    """
    spellings = {name, "http_" + name.replace("-", "_")}
    found = [value for key, value in _pairs_of(headers) if _folded(key) in spellings]
    values = [one for value in found for one in _values_of(value)]
    if len(values) > 1:
        raise InvalidCallback(f"The callback has several `{name}` headers, and may have one.")
    if not values:
        return None
    value = values[0].decode("latin-1") if isinstance(values[0], bytes) else values[0]
    if not isinstance(value, str) or not value.isascii():
        raise InvalidCallback(f"The callback's `{name}` header is no ASCII text.")
    return value.strip()


def id_in(headers: Headers) -> str | None:
    """Return the callback's id; None without its header."""
    value = header(headers, ID_HEADER)
    if value is not None and not re.fullmatch(_CALLBACK_ID, value):
        raise InvalidCallback(
            f"The callback's `{ID_HEADER}` header is empty, longer than 256 characters, or has "
            "spaces in it."
        )
    return value


def timestamp_in(headers: Headers) -> int | None:
    """Return the time of sending in seconds since 1970; None without its header."""
    value = header(headers, TIMESTAMP_HEADER)
    if value is not None and not re.fullmatch(_TIMESTAMP, value):
        raise InvalidCallback(
            f"The callback's `{TIMESTAMP_HEADER}` header is not a number of seconds since 1970."
        )
    return None if value is None else int(value)


def checked_body(body: Body) -> bytes:
    """Return the body as bytes; refuse other types, and bodies larger than a callback's."""
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"body is the request's body in bytes, not {type(body).__name__}")
    size = body.nbytes if isinstance(body, memoryview) else len(body)
    if size > MAX_BODY_BYTES:
        raise InvalidCallback(
            f"The callback's body is larger than {MAX_BODY_BYTES // 1024} kB, which none is."
        )
    return bytes(body)


def _values_of(value: object) -> Sequence[object]:
    """Return the values of a header: some frameworks list them (`{"webhook-id": ["msg_1"]}`)."""
    return value if isinstance(value, list | tuple) else [value]


def _pairs_of(headers: Headers) -> Iterable[tuple[str | bytes, HeaderValue]]:
    if not isinstance(headers, Sequence):
        if hasattr(headers, "items"):
            return headers.items()
    elif all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in headers):
        return headers
    raise TypeError(
        f"headers are a dict or a list of pairs, name and value, and not a {type(headers).__name__}"
        + (" of other things" if isinstance(headers, list | tuple) else "")
    )


def _folded(name: object) -> str:
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    return name.lower() if isinstance(name, str) else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_refuse)
    # Too deeply nested, or (ValueError) not UTF-8, not JSON, a number of thousands of digits. The
    # error would quote the body, so it is not kept as the cause.
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidCallback("The callback's body is not a JSON object in UTF-8.")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _substitute_id(body: bytes, run_id: str | None, state: object) -> str:
    """Return an id for a callback without one: a run ends once, in one state."""
    if run_id is not None and isinstance(state, str) and state:
        substitute = f"{run_id}/{state}"
        if re.fullmatch(_CALLBACK_ID, substitute):
            return substitute
    return f"sha256/{sha256(body).hexdigest()}"


def _text(value: object) -> str | None:
    # Half a surrogate pair is fine in JSON's escapes, and nowhere else: no file or database takes
    # it.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...]:
    found = map(_text, value) if isinstance(value, list) else ()
    return tuple(text for text in found if text is not None)


def _pairs(value: object) -> dict[str, str]:
    pairs = value.items() if isinstance(value, dict) else ()
    return {
        key: text
        for name, member in pairs
        if (key := _text(name)) is not None and (text := _text(member)) is not None
    }


def _return_code(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(_RETURN_CODE, value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= _MAX_RETURN_CODE:
        return None
    return value


def _time(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
        # A time without a zone is UTC, as everywhere in Lyceum's API.
        return time and (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
