"""HTTP answers -> JSON, or the package's own errors: wire errors are translated here, once."""

from __future__ import annotations

import json
from typing import Any

from ..exceptions import (
    ApiError,
    NotAuthorised,
    ProtocolError,
    QuotaExceeded,
    RequestRefused,
    ServerError,
    ServiceUnavailable,
)
from ..protocol.lines import one_line
from ..protocol.requests import COMPOSE_FILE
from .lean_httpx import httpx

#: Maximum characters of a server's message that are shown.
_MAX_DETAIL = 2000

_CLASSES: dict[int, type[ApiError]] = {
    401: NotAuthorised,
    402: QuotaExceeded,
    403: NotAuthorised,
    429: QuotaExceeded,
}

_ADVICE = {
    401: "check LYCEUM_API_KEY, or sign in again with `lyceum auth login`",
    402: "add credits, or run the cell with --local",
    403: "check the organisation (LYCEUM_ORG) and what this key may do",
    413: "send less: large data belongs into storage",
    429: "wait a moment and run the cell again",
}


def read_json(response: httpx.Response, *, source: str) -> Any:
    """Return the JSON value of a 2xx answer.

    Args:
        response: an answer whose body has been read.
        source: the place of the key, for the advice on 401.

    Raises:
        ApiError: any other status, in the class for it.
        ProtocolError: a 2xx answer that is not JSON, or a redirect.
    """
    if response.is_success:
        try:
            return json.loads(response.content)
        except ValueError:
            raise not_lyceum(response) from None
    raise error_of(response, source=source)


def read_object(response: httpx.Response, *, source: str) -> dict[str, Any]:
    """Return the JSON object of a 2xx answer; see `read_json`."""
    value = read_json(response, source=source)
    if not isinstance(value, dict):
        raise not_lyceum(response)
    return value


def objects(value: object) -> list[dict[str, Any]]:
    """Return the objects in a list; anything else that a server may send is left out."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def error_of(response: httpx.Response, *, source: str) -> ApiError | ProtocolError:
    """Return the error for an answer other than 2xx."""
    status = response.status_code
    if status < 400:
        return not_lyceum(response)
    detail = _detail(response)
    if status == 503 and detail:
        return ServiceUnavailable(
            detail, status_code=status, retry_after_s=_retry_after_s(response)
        )
    said = (detail or "it gave no reason").rstrip(".")
    if status >= 500:
        text = f"{_host(response)} failed with status {status}: {said}."
        return ServerError(text, status_code=status, retry_after_s=_retry_after_s(response))
    if not detail and status in (400, 404, 405) and not _is_json(response):
        return not_lyceum(response)
    text = f"{_host(response)} refused the request ({status}): {said}"
    if status == 401:
        text = f"The API key from {source} was refused (401): {said}"
    if said.startswith(COMPOSE_FILE) or status == 409:
        text = said  # it speaks of what the user wrote, by its line, or of the user's session
    advice = _ADVICE.get(status)
    return _CLASSES.get(status, RequestRefused)(
        f"{text}; {advice}." if advice else f"{text}.",
        status_code=status,
        retry_after_s=_retry_after_s(response),
    )


def not_lyceum(response: httpx.Response) -> ProtocolError:
    """Return the error for an answer that does not come from a Lyceum server."""
    kind = one_line(response.headers.get("content-type", "no content type").partition(";")[0], 100)
    return ProtocolError(
        f"{_host(response)} should answer as Lyceum's API does, with JSON, but answered "
        f"{response.status_code} with {kind}; check LYCEUM_BASE_URL or the login's base_url."
    )


def _detail(response: httpx.Response) -> str:
    """Return `detail`, else `error`; a list of problems (422) as `field: problem; ...`."""
    try:
        body = json.loads(response.content)
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    detail = body.get("detail") or body.get("error")
    if isinstance(detail, list):
        return one_line("; ".join(_problem(item) for item in detail), _MAX_DETAIL)
    return one_line(detail, _MAX_DETAIL) if detail else ""


def _problem(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)[:500]
    location = item.get("loc")
    places = (
        [str(part) for part in location if part != "body"] if isinstance(location, list) else []
    )
    place, said = ".".join(places) or "body", str(item.get("msg", "invalid"))[:500]
    # Many a sentence begins with its field already.
    return said if place in said or said.startswith(COMPOSE_FILE) else f"{place}: {said}"


def _is_json(response: httpx.Response) -> bool:
    return "json" in str(response.headers.get("content-type", ""))


def _host(response: httpx.Response) -> str:
    url = response.request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):  # the date form is of no use in a message
        return None
