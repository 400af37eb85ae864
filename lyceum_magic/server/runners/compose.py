"""Runs Compose stacks: a `RunSpec` in, a `RunHandle` out.

The server checks the file (see `compose_file`) and pulls the images, since credentials for them
shall reach no disk; from then on the run belongs to its attendant (see `attendant` and
`compose_work`), and the handle only listens to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

import psutil

from ...protocol.requests import Start, StartCompose
from .attendant import EngineAssignment
from .base import EngineUnavailable, InvalidField, ProgressListener, Refusal, RunSpec, Usage
from .compose_command import PROJECT_VARIABLE, check_compose, model_of, project_name
from .compose_file import (
    FIELD,
    Model,
    bind_paths,
    check_model,
    complete_model,
    images,
    read_compose_file,
)
from .compose_work import StackPlan
from .engine import (
    RUN_LABEL,
    STATE_LABEL,
    Engine,
    check_credentials,
    connect,
    engine_environment,
    sign_in,
)
from .handle import SupervisedRun, hand_over, is_supervised
from .images import ImageReference, is_present, parse_reference, pull
from .pool import InterpreterPool
from .stack import PROJECT_LABEL, Stack
from .supervisor import write_json

logger = logging.getLogger(__name__)


class ComposeRunner:
    """Runs each stack in the engine that DOCKER_HOST names.

    Args:
        state_dir: marks the containers of this server among others.
        bucket: the folder that is mounted as the account's storage.
        allow_privileged: whether services may have more of this machine than containers have.
    """

    def __init__(self, state_dir: Path, *, bucket: Path, allow_privileged: bool) -> None:
        self._state_dir = state_dir
        self._bucket = bucket
        self._allow_privileged = allow_privileged
        self._engine = Engine()
        self._has_compose = False
        self._attendants = InterpreterPool(
            size=0, module="compose_work", environment=engine_environment()
        )
        self._handles: set[SupervisedRun] = set()
        self._sweeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        # Nothing is asked of an engine, and nothing imported for it, where there was no stack yet.
        if self._mark.exists():
            self._sweeping = asyncio.create_task(asyncio.to_thread(self._sweep))

    async def check(self, request: Start) -> None:
        assert isinstance(request, StartCompose)
        check_credentials(request)
        await self._engine.client()
        await asyncio.to_thread(self._check_file, request.compose_file_code)

    async def start(self, spec: RunSpec, on_progress: ProgressListener) -> SupervisedRun:
        handle = self._new_handle(spec)
        handle.launch(self._launch(spec, handle, on_progress))
        return handle

    async def find(self, spec: RunSpec) -> SupervisedRun | None:
        handle = self._new_handle(spec)
        if await handle.recover():
            return handle
        self._handles.discard(handle)
        return None

    async def close(self) -> None:
        for handle in list(self._handles):
            await handle.leave()
        await self._attendants.close()
        if self._sweeping is not None:
            await self._sweeping

    @property
    def _mark(self) -> Path:
        """Exists once there may be stacks of this state folder."""
        return self._state_dir / "stacks"

    def _new_handle(self, spec: RunSpec) -> SupervisedRun:
        handle = SupervisedRun(
            spec, on_end=self._handles.discard, clean_up=_clean_up, measure=self._measure
        )
        self._handles.add(handle)
        return handle

    def _check_file(self, text: str) -> None:
        if not self._has_compose:
            check_compose()
            self._has_compose = True
        with tempfile.TemporaryDirectory() as folder:
            self._checked_model(text, Path(folder), project_name("check"))

    def _checked_model(self, text: str, folder: Path, project: str) -> Model:
        """The stack that a file describes, its paths below `folder`. Blocks.

        Raises:
            InvalidField: it describes none, or one that asks for too much.
            EngineUnavailable: there is no Compose.
        """
        folder = folder.resolve()
        model = model_of(read_compose_file(text), folder, project)
        check_model(model, os.fspath(folder), allow_privileged=self._allow_privileged)
        _image_references(model)
        return model

    async def _launch(
        self, spec: RunSpec, handle: SupervisedRun, on_progress: ProgressListener
    ) -> None:
        request = spec.request
        assert isinstance(request, StartCompose)
        plan = await asyncio.to_thread(self._plan, spec, request)
        client = await self._engine.client()
        credentials = await asyncio.to_thread(sign_in, request)
        for image in _image_references(plan["model"]):
            # An image that is here already says nothing about who may have it.
            if credentials is not None or not await asyncio.to_thread(is_present, client, image):
                await pull(image, credentials, on_progress)
        on_progress("starting the stack")
        self._mark.touch()
        # No await from here on: a kill() finds either no stack at all or its attendant.
        self._hand_over(spec, handle, plan)

    def _plan(self, spec: RunSpec, request: StartCompose) -> StackPlan:
        """What the attendant will start, in the run's own folder.

        Raises:
            Refusal: this server does not accept the file, though an earlier one did.
        """
        work = spec.folder / "work"
        if work.exists():  # an earlier server may have got this far
            shutil.rmtree(work)
        work.mkdir()
        project = project_name(spec.run_id)
        try:
            model = self._checked_model(request.compose_file_code, work, project)
        except InvalidField as exc:
            raise Refusal(str(exc)) from exc
        for path in bind_paths(model):
            if Path(path).is_relative_to(work.resolve()):
                Path(path).mkdir(parents=True, exist_ok=True)
        complete = complete_model(
            model,
            project=project,
            labels={RUN_LABEL: spec.run_id, STATE_LABEL: os.fspath(self._state_dir)},
            bucket=self._mounted_bucket() if request.enable_s3_mount else None,
        )
        return StackPlan(project=project, model=complete)

    def _mounted_bucket(self) -> str:
        self._bucket.mkdir(parents=True, exist_ok=True)
        if self._bucket.stat().st_mode & 0o777 != 0o777:
            # The programs may be any user. On this machine only the folder's owner gets this far:
            # the state folder around it is 0700.
            self._bucket.chmod(0o777)
        return os.fspath(self._bucket)

    def _hand_over(self, spec: RunSpec, handle: SupervisedRun, plan: StackPlan) -> None:
        for remains in ("spool", "control.sock"):  # an earlier server may have got this far
            (spec.folder / remains).unlink(missing_ok=True)
        assignment = EngineAssignment(
            run_id=spec.run_id,
            kind="compose",
            environment={**spec.environment},
            timeout_s=spec.request.timeout,
            stop_grace_s=spec.stop_grace_s,
            work={**plan},
        )
        write_json(spec.folder / "assignment.json", assignment)
        try:
            hand_over(spec, handle, self._attendants.take, self._attendants.bury)
        except OSError:
            (spec.folder / "assignment.json").unlink(missing_ok=True)  # it holds secrets
            raise

    def _measure(self, folder: Path) -> Usage | None:
        try:
            client = self._engine.client_at_once()
        except EngineUnavailable:
            return None
        from docker.errors import DockerException

        with contextlib.suppress(DockerException, OSError):
            return Stack(client, folder.name).usage()
        return None

    def _sweep(self) -> None:
        """Removes what runs have left behind that nobody attends to any more."""
        try:
            client = connect()
        except EngineUnavailable:
            return
        from docker.errors import DockerException

        try:
            labels = [f"{STATE_LABEL}={self._state_dir}", PROJECT_LABEL]
            filters = {"label": labels}
            found = [each["Labels"] for each in client.api.containers(all=True, filters=filters)]
            found += [each["Labels"] for each in client.api.networks(filters=filters)]
            volumes = client.api.volumes(filters=filters)["Volumes"] or []
            found += [each["Labels"] for each in volumes]
            for run_id in {labels[RUN_LABEL] for labels in found if RUN_LABEL in labels}:
                # Looked at after the engine was: whoever made a stack had the run by then.
                if not is_supervised(self._state_dir / "runs" / run_id):
                    Stack(client, run_id).remove()
        except (DockerException, OSError):
            logger.warning("stacks of earlier runs could not be removed", exc_info=True)


def _image_references(model: Model) -> list[ImageReference]:
    """The images that a stack needs.

    Raises:
        InvalidField: a name means none.
    """
    try:
        return [parse_reference(name) for name in images(model)]
    except ValueError as exc:
        raise InvalidField(
            f"{FIELD} should name each image as in python:3.12 or "
            f"registry.example.com/team/tool:1.0, in lower case; {exc}.",
            field=FIELD,
        ) from None


def _clean_up(folder: Path) -> None:
    """Removes the stack of a run whose attendant died."""
    _kill_commands(project_name(folder.name))
    try:
        client = connect()
    except EngineUnavailable as exc:
        logger.warning("run %s may have left a stack: %s", folder.name, exc)
        return
    from docker.errors import DockerException

    try:
        Stack(client, folder.name).remove()
    except (DockerException, OSError):
        # The next server sweeps it up.
        logger.warning("run %s left a stack", folder.name, exc_info=True)


def _kill_commands(project: str) -> None:
    """Kills a `docker compose` that still starts a stack whose attendant has died."""
    found = True
    while found:
        found = False
        for process in psutil.process_iter():
            # Other users' processes do not show their environment, and are not ours to kill.
            with contextlib.suppress(psutil.Error):
                if process.environ().get(PROJECT_VARIABLE) == project:
                    process.kill()
                    found = True
