"""The OpenAPI description of the server, and the errors that each route may answer."""

from __future__ import annotations

from typing import Any, get_type_hints

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, create_model
from starlette.responses import JSONResponse, Response

from ...protocol import paths

_MEANINGS = {
    400: "The request cannot be understood, or names something that does not exist.",
    401: "The token is missing, wrong or expired.",
    403: "The request comes from another origin, or names another organisation.",
    404: "Nothing has this name.",
    409: "The present state does not allow this.",
    413: "The body is too large.",
    415: "The body has the wrong content type.",
    416: "The range lies outside the file.",
    500: "The server's encrypted data does not fit its key.",
    501: "Only Lyceum Cloud has this.",
    503: "The server lacks something: a container engine, or an optional package.",
    507: "The server's disk is full, or fails.",
}


#: The reason of a refusal, in one sentence. A plain schema with a name: FastAPI would make a model
#: for each error of each route, several hundred of them, before the server listens.
_PROBLEM = {
    "title": "Problem",
    "type": "object",
    "required": ["detail"],
    "properties": {"detail": {"title": "Detail", "type": "string"}},
}
_PROBLEM_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


Responses = dict[int | str, dict[str, Any]]


def problems(*status_codes: int) -> Responses:
    """Return `responses=` for a route with these errors, beside those of `EVERYWHERE`."""
    return {
        code: {"description": _MEANINGS[code], "content": _PROBLEM_CONTENT} for code in status_codes
    }


#: The errors of every route: from the guard, the HTTP parser, or a full disk.
EVERYWHERE = problems(400, 401, 403, 413, 415, 507)


#: The tag of routes that Lyceum Cloud does not have.
EXTENSIONS = "extensions"
_TAGS = [
    {
        "name": EXTENSIONS,
        "description": "Extensions of Lyceum's API that the server of lyceum-magic has.",
    }
]


def model_of(shape: type, **members: Any) -> type[BaseModel]:
    """Return the model of a typed dictionary: pydantic does not take Python 3.11's own.

    Args:
        members: Members whose types are narrower than the dictionary says.
    """
    kinds = {**get_type_hints(shape), **members}
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in kinds.items()}
    return create_model(shape.__name__, __doc__=shape.__doc__, **fields)


def install_description(app: FastAPI) -> None:
    """Serve the description of the routes that `app` has by the time of the request."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description="The part of Lyceum's API that the server of lyceum-magic speaks.",
                routes=app.routes,
                tags=_TAGS,
            )
            components = schema["components"]
            components["schemas"]["Problem"] = _PROBLEM
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"token": []}]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]

    @app.get(paths.OPENAPI, include_in_schema=False)
    async def read_description() -> Response:
        return JSONResponse(app.openapi())
