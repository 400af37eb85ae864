"""The runner of Compose stacks: a `RunOrder` in, a `RunHandle` out.

The server checks the file (see `file` and `policy`) and pulls the images, since
credentials for them must reach no disk; from then on the run belongs to its supervisor (see
`engine.runner` and `work`).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....protocol.requests import Start, StartCompose
from ...gpus import NO_ENGINE_GPU, NO_GPU, has_gpu
from ..base import InvalidField, ProgressListener, Refusal, RunOrder, Usage
from ..engine.engine import NEEDS_TOOLKIT, RUN_LABEL, hands_out_gpus
from ..engine.images import parse_reference, provide
from ..engine.registry import check_credentials, sign_in
from ..engine.runner import EngineRunner
from ..folder import new_work_folder, note, report
from ..marks import kill_marked
from .command import PROJECT_VARIABLE, check_compose, model_of, project_name
from .file import naming_lines, read_compose_file, refuse
from .model import Model, bind_paths, complete_model, images, without_gpus
from .policy import check_model
from .secrets import file_paths, with_account_files
from .stack import Stack
from .work import StackPlan

if TYPE_CHECKING:
    from docker import DockerClient


class ComposeRunner(EngineRunner):
    """A `Runner` that starts each stack in the engine that DOCKER_HOST names.

    Args:
        state_dir: marks the containers of this server among others.
        bucket: the folder that is mounted as the account's storage.
        allow_privileged: whether services may have more of this machine than containers have.
    """

    def __init__(self, state_dir: Path, *, bucket: Path, allow_privileged: bool) -> None:
        super().__init__(state_dir, bucket=bucket, kind="compose", supervisor="compose.work")
        self._allow_privileged = allow_privileged
        self._has_compose = False

    async def check(self, request: Start) -> None:
        assert isinstance(request, StartCompose)
        check_credentials(request)
        await self._engine.client()
        await asyncio.to_thread(self._check_file, request.compose_file_code)

    async def prepare(
        self, run_order: RunOrder, on_progress: ProgressListener
    ) -> Mapping[str, Any]:
        request = run_order.request
        assert isinstance(request, StartCompose)
        plan = await asyncio.to_thread(self._plan, run_order, request)
        client = await self._engine.client()
        credentials = await asyncio.to_thread(sign_in, request)
        if (on_cpu := without_gpus(plan["model"])) is not plan["model"] and not (
            await asyncio.to_thread(hands_out_gpus, client)
        ):
            plan["model"] = on_cpu
            note(run_order, NO_ENGINE_GPU if has_gpu() else NO_GPU)
            if has_gpu():
                report(run_order, NEEDS_TOOLKIT)
        for image in images(plan["model"]):
            await provide(image, client, credentials, on_progress)
        on_progress("starting the stack")
        return {**plan}

    def usage(self, client: DockerClient, run_id: str) -> Usage | None:
        return Stack(client, run_id).usage()

    def remove(self, client: DockerClient, run_id: str) -> None:
        # A `docker compose` may still start the stack of a supervisor that has died.
        kill_marked(PROJECT_VARIABLE, project_name(run_id))
        Stack(client, run_id).remove(self._folders.of(run_id) / "work")

    def found(self, client: DockerClient) -> Iterable[str]:
        found = client.api.containers(all=True, filters=self.own)
        found += client.api.networks(filters=self.own)
        found += client.api.volumes(filters=self.own)["Volumes"] or ()
        return {each["Labels"][RUN_LABEL] for each in found}

    def _check_file(self, text: str) -> None:
        if not self._has_compose:
            check_compose()
            self._has_compose = True
        with tempfile.TemporaryDirectory() as folder:
            self._checked_model(text, Path(folder), project_name("check"))

    def _checked_model(self, text: str, folder: Path, project: str) -> tuple[Model, list[str]]:
        """Return the stack that a file describes, its paths below `folder`, and remarks. Blocks.

        Raises:
            InvalidField: it describes none, or one that asks for too much.
            EngineUnavailable: there is no Compose.
        """
        folder = folder.resolve()
        with naming_lines(text):
            model, remarks = model_of(read_compose_file(text), folder, project)
            check_model(model, os.fspath(folder), allow_privileged=self._allow_privileged)
            _check_images(model)
        return model, remarks

    def _plan(self, run_order: RunOrder, request: StartCompose) -> StackPlan:
        """Return what the supervisor will start, and make its files in the run's folder.

        Raises:
            Refusal: this server does not accept the file, though an earlier one did.
        """
        work = new_work_folder(run_order.folder)
        project = project_name(run_order.run_id)
        try:
            model, remarks = self._checked_model(request.compose_file_code, work, project)
        except InvalidField as exc:
            raise Refusal(str(exc)) from exc
        if remarks:
            report(run_order, "".join(f"{remark}\n" for remark in dict.fromkeys(remarks)).encode())
        with_account_files(
            model, run_order.environment, os.fspath(work.resolve())
        )  # it refuses what it cannot place
        files = set(file_paths(model))
        for path in map(Path, [*files, *bind_paths(model)]):
            if path.is_relative_to(work.resolve()):
                _make(path, is_file=os.fspath(path) in files)
        complete = complete_model(
            model,
            project=project,
            labels=self.labels(run_order.run_id),
            bucket=self.mounted_bucket() if request.enable_s3_mount else None,
        )
        return StackPlan(project=project, model=complete, grace_s=request.graceful_timeout)


def _make(path: Path, *, is_file: bool) -> None:
    """Make a folder or file that is mounted from the run's folder, for programs of any user."""
    if not is_file:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    path.chmod(0o666)


def _check_images(model: Model) -> None:
    """Check the names of the images that a stack needs.

    Raises:
        InvalidField: a name means none.
    """
    try:
        for name in images(model):
            parse_reference(name)
    except ValueError as exc:
        users = [service for service, entry in model["services"].items() if entry["image"] == name]
        refuse(
            "should name each image as in python:3.12 or "
            f"registry.example.com/team/tool:1.0, in lower case; {exc}",
            "services", *users[:1], "image",
        )  # fmt: skip
