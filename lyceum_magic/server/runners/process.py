"""Runs Python programs as processes of this machine: a `RunSpec` in, a `RunHandle` out.

The server prepares the run's folder and hands it to a waiting interpreter; from then on the run
belongs to its supervisor (see `supervisor`), and the handle only listens to it.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Container, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ...protocol.requests import StartPython, decode_import_files
from ..spool import SpoolWriter
from .base import ProgressListener, RunEnd, RunSpec
from .pool import InterpreterPool
from .requirements import Installer, Refusal, Wanted, installed_versions, missing_requirements
from .supervisor import KILL, STARTED, STOP, SUPERVISOR_ID, Assignment, write_json

#: How many interpreters may die over one run before it is given up.
MAX_HAND_OVERS = 3


class ProcessRunner:
    """Runs each program in a process of its own, as the server's own user.

    Args:
        state_dir: where installed requirements are kept.
        pool_size: how many interpreters wait for a run.
        index_url, find_links: where requirements are installed from; None for uv's defaults.
        install_limit_s: how long the installation of a run's requirements may take.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        pool_size: int = 2,
        index_url: str | None = None,
        find_links: str | None = None,
        install_limit_s: float = 600.0,
    ) -> None:
        self._pool = InterpreterPool(size=pool_size)
        self._installer = Installer(
            state_dir / "requirements",
            index_url=index_url,
            find_links=find_links,
            limit_s=install_limit_s,
        )
        self._handles: set[ProcessHandle] = set()

    async def open(self) -> None:
        self._pool.refill()

    async def start(self, spec: RunSpec, on_progress: ProgressListener) -> ProcessHandle:
        handle = self._new_handle(spec)
        handle.launch(self._launch(spec, handle, on_progress))
        return handle

    async def find(self, spec: RunSpec) -> ProcessHandle | None:
        handle = self._new_handle(spec)
        if await handle.recover():
            return handle
        self._handles.discard(handle)
        return None

    async def close(self) -> None:
        for handle in list(self._handles):
            await handle.leave()
        await self._pool.close()

    def _new_handle(self, spec: RunSpec) -> ProcessHandle:
        handle = ProcessHandle(spec, on_end=self._handles.discard)
        self._handles.add(handle)
        return handle

    async def _launch(
        self, spec: RunSpec, handle: ProcessHandle, on_progress: ProgressListener
    ) -> None:
        wanted = await asyncio.to_thread(_prepare, spec)
        if wanted.requirements:
            on_progress("installing requirements")
            folder = await self._installer.install(wanted.requirements)
            await asyncio.to_thread(_write_assignment, spec, [str(folder)])
        # No await from here on: a kill() finds either no program at all or its supervisor.
        self._hand_over(spec, handle)

    def _hand_over(self, spec: RunSpec, handle: ProcessHandle) -> None:
        """Gives a prepared run to a waiting interpreter."""
        with _locked(spec.folder) as lock, _listening(spec.folder) as listener:
            while True:
                interpreter = self._pool.take()
                try:
                    interpreter.hand_over(spec.folder, lock, listener)
                except (BrokenPipeError, ConnectionResetError):
                    self._pool.bury(interpreter)  # it died while it waited
                else:
                    break
        handle.follow(
            interpreter.control,
            bury=lambda: self._pool.bury(interpreter),
            hand_over_again=lambda: self._hand_over(spec, handle),
        )


class ProcessHandle:
    """A run of `ProcessRunner`; see `RunHandle`."""

    def __init__(self, spec: RunSpec, *, on_end: Callable[[ProcessHandle], None]) -> None:
        self.run_id = spec.run_id
        self.spool = spec.folder / "spool"
        self.started_at: float | None = None
        self._folder = spec.folder
        self._on_end = on_end
        self._end: RunEnd | None = None
        self._control: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._order: bytes = b""
        self._bury: Callable[[], None] = lambda: None
        self._hand_over_again: Callable[[], None] | None = None
        self._hand_overs_left = MAX_HAND_OVERS - 1
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._changed = asyncio.Event()  # set once and replaced: wakes all who wait

    # What the service sees.

    async def ended(self) -> RunEnd:
        await self._over.wait()
        assert self._end is not None
        return self._end

    async def started(self) -> None:
        await self._begun.wait()

    async def grown(self, offset: int) -> None:
        while self._end is None:
            changed = self._changed
            if _size(self.spool) > offset:
                return
            await changed.wait()

    async def kill(self) -> None:
        self._give(KILL)

    async def stop(self) -> None:
        self._give(STOP)

    # What the runner does.

    def launch(self, steps: Coroutine[Any, Any, None]) -> None:
        """Carries out the steps that lead to a program, in the background."""

        async def carry_out() -> None:
            try:
                await steps
            except asyncio.CancelledError:
                if not self._order:
                    raise
                word = "aborted" if self._order == KILL else "stopped"
                self._finish(_unstarted(word, f"the run was {word} before it began"))
            except Refusal as exc:
                if exc.output:
                    _report(self._folder, exc.output)
                self._finish(_unstarted("refused", str(exc)))
            except OSError as exc:
                self._finish(_unstarted("lost", f"the run could not be started: {exc.strerror}"))

        self._task = asyncio.get_running_loop().create_task(carry_out())

    def follow(
        self,
        control: socket.socket,
        bury: Callable[[], None] = lambda: None,
        hand_over_again: Callable[[], None] | None = None,
    ) -> None:
        """Listens to the run's supervisor until it ends.

        Args:
            bury: called then, if the supervisor is our child.
            hand_over_again: called where it died before it had begun anything.
        """
        self._control = control
        self._bury = bury
        self._hand_over_again = hand_over_again
        asyncio.get_running_loop().add_reader(control, self._hear)

    async def recover(self) -> bool:
        """Takes up a run that an earlier server handed over; False where none did."""
        try:
            lock = os.open(self._folder / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            if _is_held(lock):
                try:
                    control = _connect(self._folder)
                except ConnectionRefusedError:
                    # It is just ending: the lock is free in a moment.
                    await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
                else:
                    self.follow(control)
                    return True
        finally:
            os.close(lock)
        if not _wrote_anything(self._folder):
            return False  # handed over, but it died before the program began
        await self._conclude()
        return True

    async def leave(self) -> None:
        """Lets go of the run."""
        if self._control is not None:
            self._stop_following()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    # Underneath.

    def _give(self, order: bytes) -> None:
        if self._end is not None:
            return
        self._order = order
        if self._control is not None:
            # A supervisor that has just gone needs no orders; _hear() will notice.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._control.send(order)
        elif self._task is not None:
            self._task.cancel()

    def _hear(self) -> None:
        assert self._control is not None
        try:
            notices = self._control.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionResetError:
            notices = b""
        if not notices:
            self._stop_following()
            self._bury()
            self._task = asyncio.get_running_loop().create_task(self._after_supervisor())
            return
        if STARTED in notices and not self._begun.is_set():
            try:
                self.started_at = _read_json(self._folder / "supervisor.json")["started_at"]
            except FileNotFoundError:  # the program has already taken the whole folder away
                self.started_at = time.time()
            self._begun.set()
        self._wake()

    def _stop_following(self) -> None:
        assert self._control is not None
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None

    async def _after_supervisor(self) -> None:
        if (
            self._hand_over_again is not None
            and self._hand_overs_left
            and not self._order
            and (self._folder / "assignment.json").exists()
            and not _wrote_anything(self._folder)
        ):
            # It was killed while it waited, after it had been handed the run and before it had
            # looked at it: another one shall have it.
            self._hand_overs_left -= 1
            with contextlib.suppress(OSError):
                self._hand_over_again()
                return
        await self._conclude()

    async def _conclude(self) -> None:
        """Reads how the run ended, once its supervisor is gone."""
        try:
            end = RunEnd(**_read_json(self._folder / "exit.json"))
        except FileNotFoundError:
            try:
                end = await asyncio.to_thread(_clean_up_lost_run, self._folder)
            except OSError as exc:  # the program took the whole folder away, or the disk is gone
                end = _unstarted("lost", f"the run's folder cannot be used: {exc.strerror}")
        self.started_at = end.started_at
        self._finish(end)

    def _finish(self, end: RunEnd) -> None:
        self._end = end
        self._begun.set()
        self._over.set()
        self._wake()
        self._on_end(self)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


# --- the run's folder ------------------------------------------------------------------------


def _prepare(spec: RunSpec) -> Wanted:
    """Writes what the supervisor and the program need; returns what is to be installed.

    Raises:
        Refusal: the request cannot be carried out.
    """
    request = spec.request
    for remains in ("spool", "control.sock"):  # an earlier server may have got this far
        (spec.folder / remains).unlink(missing_ok=True)
    files = decode_import_files(request.import_files) if request.import_files else {}
    modules = {name.partition("/")[0].removesuffix(".py") for name in files}
    wanted = Wanted()
    if request.requirements_content:
        wanted = missing_requirements(request.requirements_content, modules, installed_versions())
    if wanted.notices:
        _report(spec.folder, "\n".join(wanted.notices).encode() + b"\n")
    _write_program(spec.folder / "work", {**files, _script_name(request, files): request.code})
    if not wanted.requirements:
        _write_assignment(spec, [])
    return wanted


def _write_program(work: Path, files: Mapping[str, str]) -> None:
    if work.exists():
        shutil.rmtree(work)
    work.mkdir()
    for name, source in files.items():
        try:
            if "/" in name:
                (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(source.encode())
        except UnicodeEncodeError as exc:
            raise Refusal(f"{name} holds characters that are not valid Unicode") from exc
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            raise Refusal(f"{name!r} cannot be written: {exc.strerror}") from exc


def _write_assignment(spec: RunSpec, path: Sequence[str]) -> None:
    request = spec.request
    files = decode_import_files(request.import_files) if request.import_files else {}
    assignment = Assignment(
        run_id=spec.run_id,
        script=_script_name(request, files),
        prior_imports=check_prior_imports(request.prior_imports or []),
        path=list(path),
        environment=dict(spec.environment),
        timeout_s=request.timeout,
        stop_grace_s=spec.stop_grace_s,
    )
    write_json(spec.folder / "assignment.json", assignment)


def _report(folder: Path, text: bytes) -> None:
    """Adds to the run's stderr, before there is a supervisor that does it."""
    spool = SpoolWriter(folder / "spool")
    spool.append("stderr", time.time(), text)
    spool.flush(time.time())
    spool.close()


def _script_name(request: StartPython, taken: Container[str]) -> str:
    name = os.path.basename(request.file_name or "")
    if not re.fullmatch(r"\w[\w .-]{0,100}\.py", name):
        name = "main.py"
    if name in taken:
        name = "main.py"
    while name in taken:
        name = f"_{name}"
    return name


def check_prior_imports(items: Sequence[str]) -> list[str]:
    """The import statements that `prior_imports` means: a name, or a statement as it is.

    Raises:
        ValueError: an item is neither.
    """
    return [_import_statement(item.strip()) for item in items]


def _import_statement(item: str) -> str:
    statement = f"import {item}" if all(p.isidentifier() for p in item.split(".")) else item
    try:
        body = ast.parse(statement).body
    except (SyntaxError, ValueError):
        body = []
    if not body or not all(isinstance(node, ast.Import | ast.ImportFrom) for node in body):
        raise ValueError(f"prior_imports: {item!r} is neither a module's name nor an import")
    return statement


def _unstarted(reason: Any, error: str) -> RunEnd:
    return RunEnd(reason, None, error, started_at=None, finished_at=time.time())


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_bytes())
    return value


# --- finding supervisors ---------------------------------------------------------------------


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """A locked file: locked for as long as anybody has this descriptor or a copy of it."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _is_held(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def _listening(folder: Path) -> Iterator[socket.socket]:
    """The socket on which the supervisor will await later servers."""
    with socket.socket(socket.AF_UNIX) as listener, _short_path(folder) as short:
        (folder / "control.sock").unlink(missing_ok=True)
        listener.bind(f"{short}/control.sock")
        listener.listen()
        yield listener


def _connect(folder: Path) -> socket.socket:
    control = socket.socket(socket.AF_UNIX)
    try:
        with _short_path(folder) as short:
            control.connect(f"{short}/control.sock")
    except BaseException:
        control.close()
        raise
    control.setblocking(False)
    return control


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """Another path of `folder`: a socket's address has room for about 100 characters."""
    if sys.platform == "linux":
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryDirectory(dir="/tmp") as parent:
            link = os.path.join(parent, "run")
            os.symlink(folder, link)
            yield link


def _wrote_anything(folder: Path) -> bool:
    return (folder / "supervisor.json").exists() or (folder / "exit.json").exists()


def _clean_up_lost_run(folder: Path) -> RunEnd:
    """Kills what is left of a run whose supervisor died, and writes down its end in its place."""
    error, started_at = "the run's supervisor died", None
    with contextlib.suppress(FileNotFoundError):  # it died before the program began
        supervisor = _read_json(folder / "supervisor.json")
        started_at = supervisor["started_at"]
        _kill_marked(supervisor["id"])
    end = RunEnd("lost", None, error, started_at, time.time())
    write_json(folder / "exit.json", vars(end))
    return end


def _kill_marked(supervisor_id: str) -> None:
    """Kills all processes that a supervisor's program left behind, until there are none."""
    found = True
    while found:
        found = False
        for process in psutil.process_iter():
            # Other users' processes do not show their environment, and are not ours to kill.
            with contextlib.suppress(psutil.Error):
                if process.environ().get(SUPERVISOR_ID) == supervisor_id:
                    process.kill()
                    found = True
