"""Answer 501 for the parts of Lyceum Cloud that an embedded server does not have.

Nothing is pretended. A path that is in no table stays 404, as for a client that is newer than both.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from ...protocol.paths import PREFIX

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

#: Path below the prefix -> its subject. Included after all other routers: on a path that another
#: one serves too, this answers the remaining methods.
_ELSEWHERE = {
    "/vms/{rest:path}": "Virtual machines are",
    "/serverless/{rest:path}": "Inference is",
    "/inference/{rest:path}": "Inference is",
    "/billing/checkout": "Buying credits is",
    "/billing/invoices": "Invoices are",
    "/billing/activities": "Billing activities are",
    "/billing/credits/details": "The details of credits are",
    "/orgs": "Creating organisations is",
    "/orgs/{slug}": "Changing and deleting organisations is",
    "/orgs/{slug}/{rest:path}": "Members, invites, keys and balances of organisations are",
    "/invites/{rest:path}": "Invites to organisations are",
    "/execution/gpu_selection/{rest:path}": "The selection of a GPU by trial runs is",
    "/storage/block": "Creating block storage is",
    "/user/delete": "Deleting the account is",
}


router = APIRouter()


def _add_route(path: str, subject: str) -> None:
    detail = f"{subject} not part of the embedded server. Use Lyceum Cloud for that."

    @router.api_route(path, methods=_METHODS, include_in_schema=False)
    async def refuse() -> JSONResponse:
        return JSONResponse({"detail": detail}, 501)


for _path, _subject in _ELSEWHERE.items():
    _add_route(f"{PREFIX}{_path}", _subject)
