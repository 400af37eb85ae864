"""`orgs`, `user/org` and `user/status`: the one organisation there is, and its user."""

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


def add_routes(router: APIRouter) -> None:
    created_at = iso(time.time())
    org = {
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
        return [org]

    @router.get(paths.org("{slug}"), responses=problems(404))
    async def read_org(slug: str) -> dict[str, Any]:
        if slug != ORG_SLUG:
            raise UnknownOrg(f"There is one organisation here, {ORG_SLUG!r}, and none {slug!r}.")
        return {**org, "created_at": created_at}

    @router.get(paths.USER_STATUS)
    async def read_status() -> dict[str, Any]:
        return {"user_id": ORG_SLUG, "org_id": ORG_SLUG, "status": "active"}
