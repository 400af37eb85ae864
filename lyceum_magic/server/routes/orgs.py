"""`orgs`, `user/org` and `user/status`: the one organisation of the server, and its user."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter

from ...exceptions import LyceumError
from ...protocol import paths
from ...protocol.times import iso
from ..settings import ORG_SLUG
from .description import problems

_NAME = "This machine"


class UnknownOrg(LyceumError):
    """No organisation has the slug."""


router = APIRouter()

#: The account of an embedded server is as old as its process.
_CREATED_AT = iso(time.time())
_ORG = {
    "id": ORG_SLUG,
    "slug": ORG_SLUG,
    "name": _NAME,
    "role": "owner",
    "is_default": True,
    "billing_email": None,
}


@router.get(paths.ORG)
async def read_own_org() -> dict[str, Any]:
    return {
        "org_id": ORG_SLUG,
        "slug": ORG_SLUG,
        "name": _NAME,
        "is_personal": True,
        "is_key_scoped": False,
    }


@router.get(paths.ORGS)
async def list_orgs() -> list[dict[str, Any]]:
    return [_ORG]


@router.get(paths.org("{slug}"), responses=problems(404))
async def read_org(slug: str) -> dict[str, Any]:
    if slug != ORG_SLUG:
        raise UnknownOrg(f"This server has one organisation, {ORG_SLUG!r}, and not {slug!r}.")
    return {**_ORG, "created_at": _CREATED_AT}


@router.get(paths.USER_STATUS)
async def read_status() -> dict[str, Any]:
    return {"user_id": ORG_SLUG, "org_id": ORG_SLUG, "status": "active"}
