"""The runner of Python programs as processes of this machine: a `RunOrder` in, a `RunHandle` out.

The server prepares the run's folder and hands it to a waiting interpreter; from then on the run
belongs to its supervisor (see `supervisor`), and the handle only listens to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from ....protocol.bootstrap import digest_in
from ....protocol.requests import Start, StartPython, decode_import_files, import_statements
from ...gpus import read_gpus
from ..base import EngineUnavailable, ProgressListener, Refusal, RunOrder, Usage
from ..control import SUPERVISOR_ID
from ..folder import clear, read_facts, report, script_name, write_assignment, write_program
from ..handle import SupervisedHandle
from ..marks import kill_marked
from ..pool import InterpreterPool
from ..supervised import SupervisedRunner
from .bootstraps import Bootstraps
from .memory import MEMORY_ERROR, remove_group
from .requirements import Installer, Wanted, installed_versions, missing_requirements
from .supervisor import Assignment

#: An upper bound of the time from the installation of a run's requirements to its beginning.
_PREPARATION_S = 3600.0

_REFUSED = (
    "a server of profile `shared` runs nothing as processes of its own user; start an image or a "
    "stack, or serve with `--profile local`"
)


class ProcessRunner(SupervisedRunner):
    """A `Runner` that starts each program in a process of its own, as the server's own user.

    Args:
        state_dir: where installed requirements are kept.
        bootstraps: what makes programs of cells that come without it; None for a folder of its own.
        pool_size: how many interpreters wait for a run.
        index_url, find_links: where requirements are installed from; None for uv's defaults.
        install_limit_s: how long the installation of a run's requirements may take.
        memory_limit_bytes: how much memory a run may use; None for no limit.
        is_refused: runs nothing, since the server's user is not the runs' user.
        forks: whether interpreters are forked where the system can do that, and not each started.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        bootstraps: Bootstraps | None = None,
        pool_size: int = 2,
        index_url: str | None = None,
        find_links: str | None = None,
        install_limit_s: float = 600.0,
        memory_limit_bytes: int | None = None,
        is_refused: bool = False,
        forks: bool = True,
    ) -> None:
        self._bootstraps = bootstraps or Bootstraps(state_dir / "bootstraps")
        super().__init__(
            InterpreterPool(
                size=0 if is_refused else pool_size,
                arguments=[str(self._bootstraps.file)],
                forks=forks and not is_refused,
            )
        )
        self._memory_limit_bytes = memory_limit_bytes
        self._is_refused = is_refused
        self._installer = Installer(
            state_dir / "requirements",
            index_url=index_url,
            find_links=find_links,
            limit_s=install_limit_s,
        )

    async def open(self) -> None:
        if not self._is_refused:
            self._bootstraps.open()
        self._supervisors.refill()

    async def check(self, request: Start) -> None:
        if self._is_refused:
            raise EngineUnavailable(f"{_REFUSED[0].upper()}{_REFUSED[1:]}.")

    async def sweep(self, unused_since: float) -> None:
        """Remove installed requirements that are unused since a moment, in seconds since 1970.

        Those that an unfinished run may use stay.
        """
        oldest = time.time()
        for handle in self._handles:
            if handle.started_at is None:  # it may be about to use any of them
                return
            oldest = min(oldest, handle.started_at)
        await self._installer.sweep(min(unused_since, oldest - _PREPARATION_S))
        await asyncio.to_thread(self._bootstraps.sweep, unused_since)

    async def launch(
        self, run_order: RunOrder, handle: SupervisedHandle, on_progress: ProgressListener
    ) -> None:
        if self._is_refused:  # an earlier server, of another profile, accepted it
            raise Refusal(_REFUSED)
        limit = self._memory_limit_bytes
        if digest := digest_in(_python(run_order).code):
            self._bootstraps.provide(digest, run_order.folder)
        wanted = await asyncio.to_thread(_prepare, run_order, limit)
        if wanted.requirements:
            on_progress("installing requirements")
            folder = await self._installer.install(wanted.requirements)
            await asyncio.to_thread(_write_assignment, run_order, [str(folder)], limit)
        # No await from here on: a kill() finds either no program at all or its supervisor.
        self.hand_over(run_order, handle)

    def measure(self, folder: Path) -> Usage | None:
        """Return what the program and all that it started use now; None if it is over by now."""
        try:
            supervisor = psutil.Process(read_facts(folder)["pid"])
            family = supervisor.children(recursive=True)
            # What has ended is counted with the one that it left its exit code to.
            cpu_s = sum(supervisor.cpu_times()[2:4])
        except (OSError, psutil.Error, KeyError, TypeError, ValueError):
            return None
        memory_bytes = 0
        for process in family:
            with contextlib.suppress(psutil.Error), process.oneshot():  # it may have ended just now
                cpu_s += sum(process.cpu_times()[:4])
                memory_bytes += process.memory_info().rss
        return Usage(cpu_s, memory_bytes, read_gpus())

    def clean_up(self, folder: Path) -> None:
        facts = read_facts(folder)  # empty if its supervisor died before the program began
        if mark := facts.get("id"):
            kill_marked(SUPERVISOR_ID, mark)
        # Runs that an older version started have none.
        if isinstance(group := facts.get("memory_group"), str):
            remove_group(group)


# --- the run's folder ------------------------------------------------------------------------


def _prepare(run_order: RunOrder, memory_limit_bytes: int | None) -> Wanted:
    """Write what the supervisor and the program need; return what is to be installed.

    Raises:
        Refusal: the request cannot be carried out.
    """
    request = _python(run_order)
    clear(run_order.folder, MEMORY_ERROR)
    files = decode_import_files(request.import_files) if request.import_files else {}
    modules = {name.partition("/")[0].removesuffix(".py") for name in files}
    wanted = Wanted()
    if request.requirements_content:
        wanted = missing_requirements(request.requirements_content, modules, installed_versions())
    if wanted.notices:
        report(run_order, "\n".join(wanted.notices).encode() + b"\n")
    write_program(run_order.folder, request, files)
    if not wanted.requirements:
        _write_assignment(run_order, [], memory_limit_bytes)
    return wanted


def _python(run_order: RunOrder) -> StartPython:
    assert isinstance(run_order.request, StartPython)
    return run_order.request


def _write_assignment(
    run_order: RunOrder, path: Sequence[str], memory_limit_bytes: int | None
) -> None:
    request = _python(run_order)
    files = decode_import_files(request.import_files) if request.import_files else {}
    assignment = Assignment(
        run_id=run_order.run_id,
        script=script_name(request, files),
        prior_imports=import_statements(request.prior_imports or []),
        path=list(path),
        environment=dict(run_order.environment),
        timeout_s=request.timeout,
        stop_grace_s=run_order.stop_grace_s,
        memory_limit_bytes=memory_limit_bytes,
        bootstrap=digest_in(request.code),
        session_folder=str(run_order.session_folder or ""),
    )
    write_assignment(run_order.folder, assignment)
