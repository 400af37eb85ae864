"""A start request -> what `--dry-run` says about it: all that would travel, and nothing secret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from ..protocol import money
from ..protocol.limits import MAX_BODY_BYTES, TAG_KEY
from ..protocol.redaction import without_password
from ..protocol.requests import StartPython, decode_import_files


def describe(
    request: StartPython,
    *,
    place: str,
    price_per_hour: float | None,
    inputs: Mapping[str, int] | None = None,
    files: Mapping[str, int] | None = None,
    notes: Iterable[str] = (),
) -> str:
    """The request in lines of text; code, values and addresses are measured, not shown.

    Args:
        place: where it would be sent.
        price_per_hour: of the machine, in dollars; 0 where it is free, None where nobody says.
        inputs: values that are packed into the code, name -> size in bytes.
        files: data files that are packed into the code, path -> size in bytes.
        notes: what the reader should know about it.
    """
    modules = decode_import_files(request.import_files) if request.import_files else {}
    metadata = {k: v for k, v in (request.metadata or {}).items() if k != TAG_KEY}
    size = request.size()
    rows: list[tuple[str, Iterable[str]]] = [
        ("to", [place]),
        ("machine", [request.execution_type]),
        ("time limit", [f"{request.timeout} s"]),
        ("price", [_price(price_per_hour, request.timeout)]),
        ("name", [request.run_name or ""]),
        ("labels", [", ".join(request.labels or ())]),
        ("metadata", [f"{key}={value}" for key, value in metadata.items()]),
        ("callbacks", map(_host, request.user_callback_urls or ())),
        ("requirements", map(without_password, (request.requirements_content or "").split("\n"))),
        ("modules", _sizes({name: len(text.encode()) for name, text in modules.items()})),
        ("inputs", _sizes(inputs or {})),
        ("files", _sizes(files or {})),
        ("code", [_bytes(len(request.code.encode("utf-8", "surrogatepass"))) + ", all packed in"]),
        ("total", [f"{_bytes(size)} of at most {_bytes(MAX_BODY_BYTES)}"]),
        ("note", notes),
    ]
    return "\n".join(line for name, lines in rows for line in _row(name, lines))


def _row(name: str, lines: Iterable[str]) -> Iterator[str]:
    shown = [line for line in lines if line]
    for number, line in enumerate(shown):
        yield f"{'' if number else name:<14}{line}"


def _price(price_per_hour: float | None, timeout_s: int) -> str:
    if price_per_hour is None:
        return "the server does not say"
    if not price_per_hour:
        return "free"
    most = money.dollars(money.cost_of(price_per_hour, timeout_s), is_ceiling=True)
    return f"at most {most}, at {money.per_hour(price_per_hour)}"


def _host(url: str) -> str:
    # What comes behind the host is often the secret that lets the sender in.
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."


def _sizes(sizes: Mapping[str, int]) -> Iterator[str]:
    width = max(map(len, sizes), default=0)
    for name, size in sorted(sizes.items()):
        yield f"{name:<{width}}  {_bytes(size):>15}"


def _bytes(size: int) -> str:
    return f"{size:,} bytes"
