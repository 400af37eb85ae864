"""The status code of each error of the server: one table for all routes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse, Response

from ...exceptions import EmbeddedServerError, LyceumError, UnknownRun
from ...protocol.lines import safe_lines
from ..account.keys import KeyInUse, SignInRefused, UnknownApiKey
from ..account.secrets import SecretsTooLarge, UnknownSecret
from ..machines import UnknownMachine
from ..runners.base import EngineUnavailable, InvalidField
from ..service import ServerBusy
from ..sessions.errors import (
    SessionConflict,
    SessionFull,
    SessionsUnavailable,
    SnapshotDamaged,
    UnknownSession,
    UnknownSnapshot,
)
from ..storage.bucket import InvalidKey, KeyConflict, StorageFull, UnknownFile
from ..storage.s3_endpoint import StorageUnavailable
from ..stores.base import StoreUnavailable
from .callbacks import UnknownDelivery
from .orgs import UnknownOrg
from .uploads import BadUpload


class BadEventId(LyceumError):
    """The run has no event with the id from which a reader wants to continue."""


_STATUS_CODES: dict[type[LyceumError], int] = {
    UnknownMachine: 400,
    BadEventId: 400,
    SecretsTooLarge: 400,
    SignInRefused: 401,
    BadUpload: 400,
    InvalidKey: 400,
    UnknownRun: 404,
    UnknownApiKey: 404,
    UnknownOrg: 404,
    UnknownSecret: 404,
    UnknownFile: 404,
    UnknownDelivery: 404,
    UnknownSession: 404,
    UnknownSnapshot: 404,
    KeyInUse: 409,
    ServerBusy: 409,
    KeyConflict: 409,
    SessionConflict: 409,
    SnapshotDamaged: 409,
    SessionFull: 409,
    EmbeddedServerError: 500,  # the vault's key does not fit
    EngineUnavailable: 503,
    StorageUnavailable: 503,
    SessionsUnavailable: 507,
    StorageFull: 507,
    StoreUnavailable: 507,
}


def install_handlers(app: FastAPI) -> None:
    """Make every route of `app` answer errors by the table."""
    for error, status_code in _STATUS_CODES.items():
        app.add_exception_handler(error, _detail_handler(status_code))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InvalidField, _invalid_field)
    app.add_exception_handler(Exception, _failed)


def _detail_handler(
    status_code: int,
) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": safe_lines(error)}, status_code)

    return handler


async def _invalid(request: Request, error: Exception) -> Response:
    # FastAPI's shape without its `input` and `ctx`: those would send the client's code back, and
    # put it into logs of the reply.
    assert isinstance(error, RequestValidationError)
    return _unprocessable(
        [{key: entry[key] for key in ("loc", "msg", "type")} for entry in error.errors()]
    )


async def _invalid_field(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidField)
    return _unprocessable(
        [{"loc": ["body", error.field], "msg": str(error), "type": "value_error"}]
    )


def _unprocessable(detail: list[dict[str, Any]]) -> Response:
    # ASCII, because a key or a message may quote half of a surrogate pair.
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")


async def _failed(request: Request, error: Exception) -> Response:
    # The traceback goes to the server's log; it would not help a client.
    return JSONResponse({"detail": "Internal Server Error"}, 500)
