"""The embedded server's composition: settings in, an ASGI application with all its parts out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from fastapi import FastAPI

from .. import __version__
from .account.keys import AccountKeys
from .account.secrets import AccountSecrets
from .account.tokens import Tokens
from .context import Context
from .guard import Guard
from .outbox.delivery import Deliverer
from .outbox.schedule import Schedule
from .outbox.sending import CallbackSender, HttpSender
from .outbox.signing import Signing
from .outbox.targets import Targets, problem_of
from .retention import Keep, Retention
from .routes import (
    account,
    callbacks,
    elsewhere,
    executions,
    keys,
    observability,
    orgs,
    secrets,
    sessions,
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
from .service import Outbox, RunService
from .sessions.sessions import Sessions
from .settings import ServerSettings
from .state_folder import forget_deliveries_left, new_key, write_deliveries_left
from .storage.bucket import Bucket
from .storage.s3_endpoint import S3Endpoint
from .stores.base import WholeStore
from .stores.sqlite import SqliteStore
from .stream_secrets import StreamSecrets
from .tasks import log_failure
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
    sessions.router,
    orgs.router,
    elsewhere.router,
)


def create_app(
    settings: ServerSettings,
    *,
    store: WholeStore | None = None,
    runners: Mapping[str, Runner] | None = None,
    schedule: Schedule | None = None,
    sender: CallbackSender | None = None,
    end_server: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Return the server as an ASGI application; its lifespan opens and closes the parts.

    Args:
        store: Replaces SQLite.
        runners: Replace processes and containers.
        schedule: Replaces the waits of callbacks, which add up to days.
        sender: Replaces HTTP for callbacks.
        end_server: Asks the process around the application to end; must return at once.
    """
    vault = Vault(settings.state_dir / "vault.key")
    store = store or SqliteStore(settings.state_dir / "runs.sqlite3", vault)
    bootstraps = Bootstraps(settings.state_dir / "bootstraps")
    runners = runners or _runners(settings, bootstraps)
    account_secrets = AccountSecrets(store)
    endpoint = S3Endpoint(settings.bucket)
    context = Context(account_secrets.values)
    signing = Signing(store)
    sender = sender or HttpSender(
        Targets(settings.profile, lambda: {settings.port, *endpoint.ports})
    )
    deliverer = Deliverer(store, sender, signing, schedule or Schedule(), context)
    account_sessions = Sessions(settings.state_dir / "sessions", troubles=context.troubles)
    parts = Parts(
        settings=settings,
        store=store,
        runners=runners,
        bootstraps=bootstraps,
        account_keys=AccountKeys(store, Tokens(vault), settings.api_key, new_key),
        account_secrets=account_secrets,
        stream_secrets=StreamSecrets(vault),
        bucket=Bucket(settings.bucket, drafts=settings.uploads),
        endpoint=endpoint,
        signing=signing,
        deliverer=deliverer,
        sessions=account_sessions,
        service=_service(settings, store, runners, deliverer, context, account_sessions),
        end_server=end_server,
    )
    return _application(parts)


def _service(
    settings: ServerSettings,
    store: WholeStore,
    runners: Mapping[str, Runner],
    deliverer: Deliverer,
    context: Context,
    sessions: Sessions,
) -> RunService:
    outbox = Outbox(
        problem_of_url=partial(problem_of, profile=settings.profile),
        on_deliveries=deliverer.ring,
        next_at=lambda: deliverer.next_at,
    )
    return RunService(
        store,
        runners,
        settings.state_dir / "runs",
        outbox,
        context,
        sessions=sessions,
        max_running=settings.max_running,
    )


@dataclass(frozen=True)
class Parts:
    """The parts of one server. Routes find them by these names in `app.state`.

    Attributes:
        end_server: Asks the process around the application to end.
        closing: Set when the server ends, so that streams end too.
    """

    settings: ServerSettings
    store: WholeStore
    runners: Mapping[str, Runner]
    bootstraps: Bootstraps
    account_keys: AccountKeys
    account_secrets: AccountSecrets
    stream_secrets: StreamSecrets
    bucket: Bucket
    endpoint: S3Endpoint
    signing: Signing
    deliverer: Deliverer
    sessions: Sessions
    service: RunService
    end_server: Callable[[], None]
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Open the parts, and close each that was opened, the last one first."""
        async with AsyncExitStack() as opened:
            await self.store.open()
            opened.push_async_callback(self.store.close)
            forget_deliveries_left(self.settings.state_dir)
            opened.push_async_callback(self._note_deliveries_left, app)
            await self.account_keys.open()
            self.bucket.open()
            for runner in self.runners.values():
                await runner.open()
                opened.push_async_callback(runner.close)
            opened.push_async_callback(self.sessions.close)
            opened.push_async_callback(self.endpoint.close)
            opened.push_async_callback(self.deliverer.close)
            # Before it is opened: opening may fail after its first runs have begun.
            opened.push_async_callback(self.service.close)
            await self.service.open()
            await self.deliverer.open()
            sweeping = asyncio.create_task(self._retention().sweep_for_ever(), name="the sweep")
            sweeping.add_done_callback(log_failure)
            try:
                yield
            finally:
                sweeping.cancel()
                await asyncio.wait([sweeping])

    def _retention(self) -> Retention:
        return Retention(
            self.store,
            self.settings.state_dir / "runs",
            Keep(
                self.settings.keep_days * 86_400,
                self.settings.keep_bytes,
                self.settings.keep_session_days * 86_400,
            ),
            is_in_use=self.service.is_in_use,
            is_supervised=is_supervised,
            sweep_caches=[runner.sweep for runner in self.runners.values()],
            sweep_sessions=self.sessions.sweep,
        )

    async def _note_deliveries_left(self, app: FastAPI) -> None:
        """Note the callbacks that are still to be sent, for clients that find no server."""
        if app.state.is_homeless:
            return
        health = await self.deliverer.health()
        write_deliveries_left(
            self.settings.state_dir,
            {
                "pending": health["pending"],
                "failing": health["failing"],
                "dead": health["dead"],
                "next_attempt_at": health["next_attempt_at"],
            },
        )


def _application(parts: Parts) -> FastAPI:
    app = FastAPI(
        title="Embedded Lyceum",
        version=__version__,
        lifespan=parts.lifespan,
        # A schema that no client asks for costs a quarter of the start-up time, and its pages are
        # more paths to guard.
        openapi_url=None,
        redirect_slashes=False,
        responses=EVERYWHERE,
    )
    for name, part in vars(parts).items():
        setattr(app.state, name, part)
    #: Set when the state folder is no longer this server's: then nothing may be left there.
    app.state.is_homeless = False
    for router in ROUTERS:
        app.include_router(router)
    install_description(app)
    install_handlers(app)
    settings = parts.settings
    # Not by add_middleware(): the handler of unexpected errors would be outside of the guard, and
    # its replies would leave unguarded.
    app.middleware_stack = Guard(
        app.build_middleware_stack(),
        lets_in=parts.account_keys.lets_in,
        hosts=[f"{name}:{settings.port}" for name in ("127.0.0.1", "localhost", "[::1]")],
        open_streams=settings.profile == "local",
    )
    return app


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
