"""A start request -> the text of `--dry-run`: all that would travel, and nothing secret."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping

from ..protocol import money
from ..protocol.limits import MAX_BODY_BYTES
from ..protocol.redaction import without_password
from ..protocol.requests import (
    Start,
    StartCompose,
    StartImage,
    StartPython,
    decode_import_files,
)
from ..submission.option import options_of, own_first, row_of
from ..submission.specs import RunSpec

#: A heading, and its lines; a row without any is left out.
_Row = tuple[str, Iterable[str]]


def describe(
    spec: RunSpec,
    request: Start,
    *,
    place: str,
    price_per_hour: float | None,
    sizes: Iterable[tuple[str, Mapping[str, int]]] = (),
    notes: Iterable[str] = (),
) -> str:
    """Return the request in lines of text; code, values and addresses are measured, not shown.

    Args:
        spec: the options, each of which may have a row.
        place: where it would be sent.
        price_per_hour: of the machine, in dollars; 0 where it is free, None where the server does
            not say.
        sizes: the parts packed into the code: a heading, and name -> size in bytes.
        notes: sentences for the reader.
    """
    shared = {one.name for one, _ in options_of(RunSpec)}
    chosen = [
        (one.name, row_of(spec, one.name, known))
        for one, known in own_first(type(spec))
        if known.row
    ]
    rows: list[_Row] = [
        ("to", [place]),
        ("machine", [request.execution_type]),
        ("time limit", [f"{request.timeout} s"]),
        ("price", [_price(price_per_hour, request.timeout)]),
        *(row for name, row in chosen if name in shared),
        *_content(request, sizes),
        *(row for name, row in chosen if name not in shared),
        ("total", [f"{_bytes(request.size())} of at most {_bytes(MAX_BODY_BYTES)}"]),
        ("note", notes),
    ]
    return "\n".join(line for name, lines in rows for line in _row(name, lines))


def _content(request: Start, sizes: Iterable[tuple[str, Mapping[str, int]]]) -> Iterator[_Row]:
    """Yield the rows of what runs."""
    match request:
        case StartPython():
            requirements = (request.requirements_content or "").split("\n")
            yield "requirements", map(without_password, requirements)
            modules = decode_import_files(request.import_files) if request.import_files else {}
            yield "modules", _sizes({name: len(text.encode()) for name, text in modules.items()})
            for heading, named in sizes:
                yield heading, _sizes(named)
            yield "code", [f"{_size_of(request.code)}, all packed in"]
        case StartImage():
            yield "image", [request.docker_image_ref]
            yield "command", [_command(request.docker_run_cmd)]
        case StartCompose():
            text = request.compose_file_code
            yield "Compose file", [_size_of(text.lstrip("\n")), *_services(text)]


def _command(words: list[str] | None) -> str:
    match words:
        case None:
            return "the image's own"
        case ["sh", "-c", script]:
            return f"sh -c, a script of {_size_of(script.lstrip())}"
        case ["python3", "-c", _, *pieces]:
            return f"python3, code of {_size_of(''.join(pieces))}, all packed in"
    return shlex.join(words)


def _services(text: str) -> Iterator[str]:
    """Yield the services of a Compose file with their images, if it can be read here."""
    try:
        import yaml
    except ImportError:  # the server will read it
        return
    try:
        file = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        yield f"no YAML{where}: {getattr(exc, 'problem', None) or 'it cannot be read'}"
        return
    services = file.get("services") if isinstance(file, dict) else None
    for name, service in services.items() if isinstance(services, dict) else ():
        image = service.get("image", "") if isinstance(service, dict) else ""
        yield f"{name}  {image}".rstrip()


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


def _sizes(sizes: Mapping[str, int]) -> Iterator[str]:
    width = max(map(len, sizes), default=0)
    for name, size in sorted(sizes.items()):
        yield f"{name:<{width}}  {_bytes(size):>15}"


def _size_of(text: str) -> str:
    return _bytes(len(text.encode("utf-8", "surrogatepass")))


def _bytes(size: int) -> str:
    return f"{size:,} bytes"
