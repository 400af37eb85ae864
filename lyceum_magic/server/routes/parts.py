"""The parts of the server that routes use, as FastAPI dependencies.

`create_app` sets each part as an attribute of `app.state`. A route names it as a parameter, for
example `service: Service`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request

from ..account.keys import AccountKeys
from ..account.secrets import AccountSecrets
from ..outbox.delivery import Deliverer
from ..outbox.signing import Signing
from ..runners.process.bootstraps import Bootstraps
from ..service import RunService
from ..sessions.sessions import Sessions
from ..settings import ServerSettings
from ..storage.bucket import Bucket
from ..storage.s3_endpoint import S3Endpoint
from ..stores.base import OutboxStore
from ..stream_secrets import StreamSecrets


def _part(name: str) -> Any:
    """Return a dependency on `app.state.<name>`."""

    async def part(request: Request) -> Any:  # async: FastAPI calls any other on a thread
        return getattr(request.app.state, name)

    return Depends(part)


ApiKeys = Annotated[AccountKeys, _part("account_keys")]
Closing = Annotated[asyncio.Event, _part("closing")]
EndServer = Annotated[Callable[[], None], _part("end_server")]
LoadedBootstraps = Annotated[Bootstraps, _part("bootstraps")]
StoredDeliveries = Annotated[OutboxStore, _part("store")]
Callbacks = Annotated[Deliverer, _part("deliverer")]
Secrets = Annotated[AccountSecrets, _part("account_secrets")]
Service = Annotated[RunService, _part("service")]
AccountSessions = Annotated[Sessions, _part("sessions")]
Settings = Annotated[ServerSettings, _part("settings")]
SigningSecrets = Annotated[Signing, _part("signing")]
StorageBucket = Annotated[Bucket, _part("bucket")]
StorageEndpoint = Annotated[S3Endpoint, _part("endpoint")]
StreamUrls = Annotated[StreamSecrets, _part("stream_secrets")]
