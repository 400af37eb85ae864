"""The embedded server's composition: settings in, an ASGI application with all its parts out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI

from .. import __version__
from .account.keys import Keys
from .account.secrets import AccountSecrets
from .account.tokens import Tokens
from .bell import Bell
from .guard import Guard
from .outbox.delivery import Deliverer
from .outbox.schedule import Schedule
from .outbox.sending import HttpSender, Sender
from .outbox.signing import Signing
from .outbox.targets import Targets, problem_of
from .retention import Retention
from .routes import (
    account,
    callbacks,
    elsewhere,
    executions,
    keys,
    observability,
    orgs,
    secrets,
    storage,
    streams,
    workloads,
)
from .routes.description import EVERYWHERE, install_description
from .routes.errors import install_handlers
from .runners.base import Runner
from .runners.compose.runner import ComposeRunner
from .runners.control import is_supervised
from .runners.engine.container import ContainerRunner
from .runners.process.bootstraps import Bootstraps
from .runners.process.runner import ProcessRunner
from .service import RunService
from .settings import ServerSettings
from .state_folder import forget_deliveries_left, new_key, write_deliveries_left
from .storage.bucket import Bucket
from .storage.s3_endpoint import S3Endpoint
from .stores.base import WholeStore
from .stores.sqlite import SqliteStore
from .stream_secrets import StreamSecrets
from .tasks import log_failure
from .troubles import Troubles
from .vault import Vault

#: The last one answers for the paths that the others leave to Lyceum Cloud.
ROUTERS = (
    executions.router,
    streams.router,
    workloads.router,
    observability.router,
    storage.router,
    account.router,
    keys.router,
    secrets.router,
    callbacks.router,
    orgs.router,
    elsewhere.router,
)


def create_app(
    settings: ServerSettings,
    *,
    store: WholeStore | None = None,
    runners: Mapping[str, Runner] | None = None,
    schedule: Schedule | None = None,
    sender: Sender | None = None,
    end_server: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The server as an ASGI application; its lifespan opens and closes the parts.

    Args:
        store, runners: in place of SQLite, and of processes and containers.
        schedule, sender: in place of the days for which callbacks are tried, and of HTTP.
        end_server: asks the process around the application to end; must return at once.
    """
    vault = Vault(settings.state_dir / "vault.key")
    store = store or SqliteStore(settings.state_dir / "runs.sqlite3", vault)
    bootstraps = Bootstraps(settings.state_dir / "bootstraps")
    runners = runners or _runners(settings, bootstraps)
    account_secrets = AccountSecrets(store)
    account_keys = Keys(store, Tokens(vault), settings.api_key, new_key)
    bucket = Bucket(settings.bucket, drafts=settings.uploads)
    endpoint = S3Endpoint(settings.bucket)
    troubles, activity = Troubles(), Bell()
    signing = Signing(store)
    deliverer = Deliverer(
        store,
        sender or HttpSender(Targets(settings.profile, lambda: {settings.port, *endpoint.ports})),
        signing,
        account_secrets.values,
        schedule or Schedule(),
        troubles=troubles,
        activity=activity,
    )
    service = RunService(
        store,
        runners,
        settings.state_dir / "runs",
        max_running=settings.max_running,
        secrets=account_secrets.values,
        on_deliveries=deliverer.ring,
        problem_of_url=partial(problem_of, profile=settings.profile),
        next_delivery_at=lambda: deliverer.next_at,
        troubles=troubles,
        activity=activity,
    )
    retention = Retention(
        store,
        settings.state_dir / "runs",
        is_in_use=service.is_in_use,
        is_supervised=is_supervised,
        keep_s=settings.keep_days * 86_400,
        keep_bytes=settings.keep_bytes,
        sweep_caches=[runner.sweep for runner in runners.values()],
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Each part is closed that was opened, the last one first, wherever the next one fails.
        async with AsyncExitStack() as parts:
            await store.open()
            parts.push_async_callback(store.close)
            forget_deliveries_left(settings.state_dir)
            parts.push_async_callback(_leave_word, settings.state_dir, deliverer, app)
            await account_keys.open()
            bucket.open()
            for runner in runners.values():
                await runner.open()
                parts.push_async_callback(runner.close)
            parts.push_async_callback(endpoint.close)
            parts.push_async_callback(deliverer.close)
            parts.push_async_callback(service.close)  # it may fail behind its first runs
            await service.open()
            await deliverer.open()
            sweeping = asyncio.create_task(retention.sweep_for_ever(), name="the sweep")
            sweeping.add_done_callback(log_failure)
            try:
                yield
            finally:
                sweeping.cancel()
                await asyncio.wait([sweeping])

    app = FastAPI(
        title="Embedded Lyceum",
        version=__version__,
        lifespan=lifespan,
        # A schema nobody asks for costs a quarter of the start-up time, and more paths to guard.
        openapi_url=None,
        redirect_slashes=False,
        responses=EVERYWHERE,
    )
    app.state.closing = asyncio.Event()
    #: Set when the state folder is no longer this server's: then nothing may be left there.
    app.state.is_homeless = False
    app.state.settings = settings
    app.state.service = service
    app.state.store = store
    app.state.stream_secrets = StreamSecrets(vault)
    app.state.account_keys = account_keys
    app.state.account_secrets = account_secrets
    app.state.bootstraps = bootstraps
    app.state.bucket = bucket
    app.state.endpoint = endpoint
    app.state.deliverer = deliverer
    app.state.signing = signing
    app.state.end_server = end_server
    for router in ROUTERS:
        app.include_router(router)
    install_description(app)
    install_handlers(app)
    # Not add_middleware(): that puts it behind the handler of unexpected errors, whose replies
    # would then leave unguarded.
    app.middleware_stack = Guard(
        app.build_middleware_stack(),
        lets_in=account_keys.lets_in,
        hosts=[f"{name}:{settings.port}" for name in ("127.0.0.1", "localhost", "[::1]")],
        open_streams=settings.profile == "local",
    )
    return app


async def _leave_word(state_dir: Path, deliverer: Deliverer, app: FastAPI) -> None:
    if app.state.is_homeless:
        return
    health = await deliverer.health()
    write_deliveries_left(
        state_dir,
        {
            "pending": health["pending"],
            "failing": health["failing"],
            "dead": health["dead"],
            "next_attempt_at": health["next_attempt_at"],
        },
    )


def _runners(settings: ServerSettings, bootstraps: Bootstraps) -> Mapping[str, Runner]:
    return {
        "process": ProcessRunner(
            settings.state_dir,
            bootstraps=bootstraps,
            index_url=settings.index_url,
            find_links=settings.find_links,
            memory_limit_bytes=settings.memory_limit_bytes,
            is_refused=settings.profile == "shared",
        ),
        "container": ContainerRunner(settings.state_dir, bucket=settings.bucket),
        "compose": ComposeRunner(
            settings.state_dir,
            bucket=settings.bucket,
            allow_privileged=settings.allow_privileged,
        ),
    }
