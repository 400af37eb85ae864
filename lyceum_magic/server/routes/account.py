"""The machines and the server itself: what clients ask before and beside runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query

from ... import __version__
from ...config import Secret
from ...protocol import paths
from ...protocol.proof import key_proof, proof
from ..account.keys import Keys
from ..machines import MACHINES
from ..service import RunService
from .keys import MAX_TOKEN


def add_routes(
    router: APIRouter,
    service: RunService,
    api_key: Secret,
    end_server: Callable[[], None],
    *,
    address: str,
    keys: Keys,
    bootstrap: Callable[[], str],
) -> None:
    """
    Args:
        address: where the server listens, as `key_proof` has it.
        bootstrap: gives the digest of the bootstrap that is loaded for Python runs.
    """

    @router.get(paths.HEALTH)
    async def ping(
        nonce: Annotated[str | None, Query(min_length=16, max_length=128)] = None,
        key: Annotated[str | None, Query(min_length=1, max_length=MAX_TOKEN)] = None,
    ) -> dict[str, Any]:
        reply: dict[str, Any] = {"status": "healthy", "version": __version__}
        if nonce is None:
            return reply
        reply |= {"bootstrap": bootstrap(), "proof": proof(api_key.reveal(), nonce)}
        if key is not None:  # the public part of one
            digests = await keys.digests(key)
            reply["key_proofs"] = [key_proof(digest, address, nonce) for digest in digests]
        return reply

    @router.get(paths.MACHINE_TYPES)
    async def list_machines() -> dict[str, Any]:
        machines = [
            {"hardware_profile": machine.name, "price_per_hour": machine.price_per_hour}
            for machine in MACHINES.values()
        ]
        return {"machine_types": machines, "count": len(machines)}

    @router.get(paths.AVAILABLE_HARDWARE)
    async def list_available_hardware() -> dict[str, Any]:
        return {"available_hardware_profiles": list(MACHINES)}

    @router.get(paths.VERSION)
    async def read_version() -> dict[str, str]:
        return {"version": __version__, "build": "embedded"}

    @router.post(paths.SHUTDOWN)
    async def shut_down() -> dict[str, str]:
        service.check_idle()
        end_server()
        return {"message": "The server ends."}
