"""The embedded server's composition: settings in, an ASGI application with all its parts out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI

from .. import __version__
from ..protocol.requests import Kind
from .guard import Guard
from .routes import account, executions, streams, workloads
from .routes.description import EVERYWHERE, install_description
from .routes.errors import install_handlers
from .runners.base import Runner
from .service import RunService
from .settings import ServerSettings
from .stores.base import Store
from .stores.sqlite import SqliteStore
from .stream_secrets import StreamSecrets
from .vault import Vault


def create_app(
    settings: ServerSettings,
    *,
    store: Store | None = None,
    runners: Mapping[Kind, Runner] | None = None,
    end_server: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The server as an ASGI application; its lifespan opens and closes the parts.

    Args:
        store, runners: in place of SQLite, and of processes and containers.
        end_server: asks the process around the application to end; must return at once.
    """
    vault = Vault(settings.state_dir / "vault.key")
    store = store or SqliteStore(settings.state_dir / "runs.sqlite3", vault)
    runners = runners or _runners(settings)
    service = RunService(
        store,
        runners,
        settings.state_dir / "runs",
        max_running=settings.max_running,
        secrets=_no_secrets,
    )
    closing = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await store.open()
        try:
            for runner in runners.values():
                await runner.open()
            try:
                await service.open()
                yield
            finally:
                await service.close()
                for runner in runners.values():
                    await runner.close()
        finally:
            await store.close()

    app = FastAPI(
        title="Embedded Lyceum",
        version=__version__,
        lifespan=lifespan,
        # A schema nobody asks for costs a quarter of the start-up time, and more paths to guard.
        openapi_url=None,
        redirect_slashes=False,
        responses=EVERYWHERE,
    )
    app.state.service = service
    app.state.closing = closing
    secrets = StreamSecrets(settings.api_key)
    executions.add_routes(app.router, service, secrets)
    streams.add_routes(app.router, service, secrets, closing)
    workloads.add_routes(app.router, service)
    account.add_routes(app.router, service, settings.api_key, end_server)
    install_description(app)
    install_handlers(app)
    # Not add_middleware(): that puts it behind the handler of unexpected errors, whose replies
    # would then leave unguarded.
    app.middleware_stack = Guard(
        app.build_middleware_stack(),
        api_key=settings.api_key,
        hosts=[f"{name}:{settings.port}" for name in ("127.0.0.1", "localhost", "[::1]")],
        open_streams=settings.profile == "local",
    )
    return app


async def _no_secrets() -> Mapping[str, str]:
    return {}


def _runners(settings: ServerSettings) -> Mapping[Kind, Runner]:
    from .runners.compose import ComposeRunner
    from .runners.container import ContainerRunner
    from .runners.process import ProcessRunner

    return {
        "python": ProcessRunner(
            settings.state_dir,
            index_url=settings.index_url,
            find_links=settings.find_links,
            memory_limit_bytes=settings.memory_limit_bytes,
            is_refused=settings.profile == "shared",
        ),
        "image": ContainerRunner(settings.state_dir, bucket=settings.bucket),
        "compose": ComposeRunner(
            settings.state_dir,
            bucket=settings.bucket,
            allow_privileged=settings.allow_privileged,
        ),
    }
