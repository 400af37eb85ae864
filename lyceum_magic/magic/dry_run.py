"""A start request -> what `--dry-run` says about it: all that would travel, and nothing secret."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping

from ..protocol import money
from ..protocol.callbacks import HERE
from ..protocol.limits import MAX_BODY_BYTES, TAG_KEY
from ..protocol.redaction import origin_of, without_password
from ..protocol.requests import (
    Start,
    StartCompose,
    StartImage,
    StartPython,
    decode_import_files,
)

#: A heading, and its lines; a row without any is left out.
_Row = tuple[str, Iterable[str]]

_ENTRY_POINTS = {
    "auto": "left out where it would not run the command",
    "keep": "gets the command as its arguments",
    "skip": "left out",
}


def describe(
    request: Start,
    *,
    place: str,
    price_per_hour: float | None,
    sizes: Iterable[tuple[str, Mapping[str, int]]] = (),
    notes: Iterable[str] = (),
) -> str:
    """The request in lines of text; code, values and addresses are measured, not shown.

    Args:
        place: where it would be sent.
        price_per_hour: of the machine, in dollars; 0 where it is free, None where nobody says.
        sizes: what is packed into the code: a heading, and name -> size in bytes.
        notes: what the reader should know about it.
    """
    metadata = {k: v for k, v in (request.metadata or {}).items() if k != TAG_KEY}
    rows: list[_Row] = [
        ("to", [place]),
        ("machine", [request.execution_type]),
        ("time limit", [f"{request.timeout} s"]),
        ("price", [_price(price_per_hour, request.timeout)]),
        ("name", [request.run_name or ""]),
        ("labels", [", ".join(request.labels or ())]),
        ("metadata", [f"{key}={value}" for key, value in metadata.items()]),
        ("callbacks", map(_callback, request.user_callback_urls or ())),
        *_particulars(request, sizes),
        ("total", [f"{_bytes(request.size())} of at most {_bytes(MAX_BODY_BYTES)}"]),
        ("note", notes),
    ]
    return "\n".join(line for name, lines in rows for line in _row(name, lines))


def _callback(url: str) -> str:
    return url if url == HERE else origin_of(url)


def _particulars(request: Start, sizes: Iterable[tuple[str, Mapping[str, int]]]) -> Iterator[_Row]:
    """What is not the same for every kind of run."""
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
            names = [line.partition("=")[0] for line in (request.docker_run_env or "").split("\n")]
            yield "variables", [", ".join(names)]
            yield "user", [request.docker_user or ""]
            yield "entry point", [_ENTRY_POINTS.get(request.docker_entrypoint or "", "")]
            yield "init", ["none" if request.docker_init is False else ""]
            yield "storage", [request.s3_mount_path if request.enable_s3_mount else "not mounted"]
            yield from _container(request)
        case StartCompose():
            text = request.compose_file_code
            yield "Compose file", [_size_of(text.lstrip("\n")), *_services(text)]
            yield "storage", ["mounted" if request.enable_s3_mount else "not mounted"]
            yield from _container(request)


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
    """The services of a Compose file and their images, where it can be read here."""
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


def _container(request: StartImage | StartCompose) -> Iterator[_Row]:
    kind = request.docker_registry_credential_type
    who = request.docker_username if kind == "basic" else request.aws_region
    yield "registry", [f"{kind}, {who}" if kind else ""]
    grace_s = request.graceful_timeout
    yield "grace", [f"{grace_s} s" if grace_s is not None else ""]


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
