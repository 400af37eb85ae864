"""The machines and the server itself: requests of clients before and beside runs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from ... import __version__
from ...protocol import paths
from ...protocol.proof import key_proof, proof
from ...protocol.sessions import EXTENSION
from ..machines import MACHINES
from .keys import MAX_TOKEN
from .parts import ApiKeys, EndServer, LoadedBootstraps, Service, Settings

router = APIRouter()


@router.get(paths.HEALTH)
async def ping(
    settings: Settings,
    bootstraps: LoadedBootstraps,
    keys: ApiKeys,
    nonce: Annotated[str | None, Query(min_length=16, max_length=128)] = None,
    key: Annotated[str | None, Query(min_length=1, max_length=MAX_TOKEN)] = None,
) -> dict[str, Any]:
    reply: dict[str, Any] = {
        "status": "healthy", "version": __version__, "extensions": [EXTENSION],
    }  # fmt: skip
    if nonce is None:
        return reply
    reply["bootstrap"] = bootstraps.loaded
    reply["proof"] = proof(settings.api_key.reveal(), nonce)
    if key is not None:  # the public part of one
        digests = await keys.digests(key)
        address = f"127.0.0.1:{settings.port}"  # where the server listens
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
async def shut_down(service: Service, end_server: EndServer) -> dict[str, str]:
    service.check_idle()
    end_server()
    return {"message": "The server ends."}
