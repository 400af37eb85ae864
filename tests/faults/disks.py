"""Disks that fill up or go read-only under a server: small ones, mounted for the purpose."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lyceum_magic.protocol import paths

from .driving import Load, Server, server_on
from .receiver import Receiver

#: Half of the attempts fail, so that there are attempts all the time.
_FAULTS = {"503": 0.5}
_RUNS = 12
_ENDPOINTS = 4
#: How long a server is watched on a disk that takes nothing, in seconds.
_WATCHED_S = 3.0
_LIMIT_S = 60.0
_LOOK_S = 0.05


#: Does something to the disk that a folder is on.
_OnDisk = Callable[[Path], None]


class NoMounts(Exception):
    """This user, or this machine, cannot mount a disk; says why."""


@dataclass(frozen=True)
class Result:
    """The result of a disk that failed.

    Attributes:
        visible_after_s: from the first end that could not be written to the first error in
            delivery health; infinite where none came.
        error: what it said then.
        load: processor time against time, while the disk took nothing.
        attempts_at_most: at one URL, while the disk took nothing.
        recovered_after_s: from the disk's recovery to the last arrival.
        errors_left: in delivery health at the end.
        twice: attempts that were accepted though an earlier one of theirs had been.
        slots: how many attempts could be under way: `twice` is at most that where the server was
            killed, else 0.
    """

    deliveries: int
    lost: int
    visible_after_s: float
    error: str
    load: float
    attempts_at_most: int
    recovered_after_s: float
    errors_left: int
    twice: int
    slots: int


async def full_disk(folder: Path) -> Result:
    """The disk has no room left while runs end and attempts are made, then it has."""
    state = folder / "state"
    state.mkdir(mode=0o700)
    with _tmpfs(state, "8m"):
        async with server_on(state) as server:
            return await _Failing(server, _fill, _empty, is_killed=False).run()


async def read_only_disk(folder: Path) -> Result:
    """The system turns the disk read-only, as it does after an error; then it is repaired."""
    state = folder / "state"
    state.mkdir(mode=0o700)
    image = folder / "disk"
    with _ext4(image, state):
        async with server_on(state) as server:

            def abort(state: Path) -> None:
                _run("sync", "--file-system", str(state))
                _run("mount", "-o", "remount,abort", str(state))

            def repair(state: Path) -> None:
                _run("umount", str(state))
                _check(image)
                _run("mount", "-o", "loop,errors=remount-ro", str(image), str(state))

            return await _Failing(server, abort, repair, is_killed=True).run()


class _Failing:
    """The course of it; a server whose disk is repaired is killed first, and started again."""

    def __init__(self, server: Server, fail: _OnDisk, recover: _OnDisk, *, is_killed: bool) -> None:
        self._server = server
        self._fail = fail
        self._recover = recover
        self._is_killed = is_killed

    async def run(self) -> Result:
        server, receiver = self._server, Receiver(1, _FAULTS)
        async with receiver.listening(_ENDPOINTS):
            await server.start()
            receiver.secret = await server.signing_secret()
            held, urls = [], []
            for number in range(2 * _RUNS):
                of_this = [f"{o}/{number}/{n}" for n, o in enumerate(receiver.origins)]
                urls += of_this
                if number < _RUNS:
                    held.append(await server.run(of_this, "goes on"))
                else:
                    await server.run(of_this)
            self._fail(server.folder)
            await self._use_up()
            before = len(receiver.arrivals)
            failed_at = time.monotonic()
            await self._abort(held)
            errors = await _errors(server, some=True)
            visible_after_s = time.monotonic() - failed_at if errors else float("inf")
            load = Load(server.pid)
            await asyncio.sleep(_WATCHED_S)  # what is measured is a stretch of time
            share = load.share()
            during = [arrival.url for arrival in receiver.arrivals[before:]]
            if self._is_killed:
                server.signal(signal.SIGKILL)
                await server.ended()
                receiver.server += 1
            self._recover(server.folder)
            recovered_at = time.monotonic()
            if self._is_killed:
                await server.start()
                await self._abort(held)
            await receiver.wait_for_all(urls, _LIMIT_S)
            arrived_after_s = time.monotonic() - recovered_at
            return Result(
                deliveries=len(urls),
                lost=sum(not receiver.accepted(url) for url in urls),
                visible_after_s=visible_after_s,
                error="; ".join(errors),
                load=share,
                attempts_at_most=max((during.count(url) for url in set(during)), default=0),
                recovered_after_s=arrived_after_s,
                errors_left=len(await _errors(server, some=False)),
                twice=sum(max(0, len(receiver.accepted(url)) - 1) for url in urls),
                slots=4 * _ENDPOINTS if self._is_killed else 0,
            )

    async def _use_up(self) -> None:
        """Start runs until one is refused: what the database had of the disk before is used up."""
        body = {"code": "goes on" + "#" * 65536, "execution_type": "cpu"}
        for _ in range(500):
            reply = await self._server.client.post(paths.START_PYTHON, json=body)
            if reply.status_code != 200:
                assert reply.status_code == 507, reply.text
                return
        raise AssertionError("the disk takes everything")

    async def _abort(self, runs: list[str]) -> None:
        replies = await asyncio.gather(
            *(self._server.client.post(paths.abort(run_id)) for run_id in runs)
        )
        assert {reply.status_code for reply in replies} == {200}, [r.text for r in replies]


async def _errors(server: Server, *, some: bool) -> list[str]:
    """Return the errors of delivery health once there are `some`, or the limit has passed."""
    for _ in range(round(_LIMIT_S / _LOOK_S)):
        if bool(await server.errors()) == some:
            break
        await asyncio.sleep(_LOOK_S)
    return await server.errors()


# Disks.


def _fill(folder: Path) -> None:
    ballast = os.open(folder / "ballast", os.O_WRONLY | os.O_CREAT)
    try:
        for size in (65536, 4096):
            with contextlib.suppress(OSError):
                while True:
                    os.write(ballast, bytes(size))
    finally:
        os.close(ballast)


def _empty(folder: Path) -> None:
    (folder / "ballast").unlink()


@contextmanager
def _tmpfs(folder: Path, size: str) -> Iterator[None]:
    with _mounted("-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)):
        yield


@contextmanager
def _ext4(image: Path, folder: Path) -> Iterator[None]:
    image.write_bytes(b"")
    os.truncate(image, 32 * 2**20)
    _needed("mkfs.ext4", "-q", "-m", "0", "-E", "root_owner=0:0", str(image))
    with _mounted("-o", "loop,errors=remount-ro", str(image), str(folder)):
        yield


@contextmanager
def _mounted(*arguments: str) -> Iterator[None]:
    _needed("mount", *arguments)
    try:
        yield
    finally:
        _run("umount", arguments[-1])


def _check(image: Path) -> None:
    done = subprocess.run(["e2fsck", "-p", str(image)], capture_output=True, text=True, check=False)
    if done.returncode > 1:  # 1: it had something to repair
        raise RuntimeError(done.stdout + done.stderr)


def _needed(*command: str) -> None:
    try:
        _run(*command)
    except (OSError, RuntimeError) as exc:
        raise NoMounts(f"disks of the tests' own cannot be mounted here ({exc})") from exc


def _run(*command: str) -> None:
    """Raises RuntimeError with what the command said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
