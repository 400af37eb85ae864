"""`%lyceum storage ls|put|get|rm`: the account's files."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...client.storage import Storage
from ...display.progress import ProgressBar, size
from ...display.summary import duration
from ...display.tables import Says, Table
from ...exceptions import OptionError, RequestRefused
from ...runs.saving import name_file
from ...runs.workspace import workspace
from ..parsing import Parser
from . import Call


def add_arguments(parser: Parser) -> None:
    add_action = parser.subcommand_adder(
        title="actions", dest="action", metavar="ls|put|get|rm", required=True
    )
    add_action("ls", "list files").add_argument(
        "prefix", metavar="PREFIX", nargs="?", default="", help="only keys that begin with it"
    )
    put = add_action("put", "upload a file")
    put.add_argument("path", metavar="PATH", help="of a file here")
    put.add_argument("key", metavar="KEY", nargs="?", help="its name there; else the file's own")
    get = add_action("get", "download a file")
    get.add_argument("key", metavar="KEY")
    get.add_argument("path", metavar="PATH", nargs="?", help="a file or a folder here; else .")
    get.add_argument("--yes", action="store_true", help="write over a file that is here already")
    rm = add_action("rm", "remove a file, or all below a key that ends in /")
    rm.add_argument("key", metavar="KEY")


def run(call: Call) -> Says | Table | None:
    options = call.options
    storage = workspace().client().storage
    match options.action:
        case "ls":
            return _list(storage, options.prefix)
        case "put":
            _put(storage, options.path, options.key)
        case "get":
            _get(storage, options.key, options.path, may_overwrite=options.yes)
        case "rm":
            with _known(options.key):
                workspace().ask(storage.delete, options.key)
            return Says(f"{options.key} is removed.")
    return None  # a transfer has printed its line


def _list(storage: Storage, prefix: str) -> Table:
    files, has_more = workspace().ask(storage.list, prefix)
    rows = [
        (file.key, "" if file.size is None else size(file.size), file.modified[:19])
        for file in files
    ]
    if has_more:
        rows.append(("… and more; name a PREFIX", "", ""))
    where = f" whose keys begin with {prefix!r}" if prefix else ""
    return Table(["key", "size", "modified"], rows, empty=f"no files{where}")


def _put(storage: Storage, named: str, key: str | None) -> None:
    path = Path(named).expanduser()
    if path.is_dir():
        raise OptionError(f"{named} is a folder; one file is put at a time.")
    if key is None or key.endswith("/"):
        key = f"{key or ''}{path.name}"
    try:
        file = path.open("rb")
    except OSError as exc:
        raise OptionError(f"{named} cannot be read: {exc.strerror}.") from None
    with file:
        bar = ProgressBar(f"put {key}", os.fstat(file.fileno()).st_size)

        def note(count: int) -> None:
            bar.done = count

        _transfer(bar, lambda: storage.upload(file, key, note), f"put {named} as {key}")


def _get(storage: Storage, key: str, named: str | None, *, may_overwrite: bool) -> None:
    name = key.rpartition("/")[2]
    if not name:
        raise OptionError(f"{key!r} names a folder; one file is got at a time.")
    place = Path(named or ".").expanduser()
    if place.is_dir() or (named or "").endswith("/"):
        place = place / name
    taken = OptionError(f"{place} is here already; --yes writes over it, or name another PATH.")
    if place.is_dir() or (os.path.lexists(place) and not may_overwrite):
        raise taken
    bar = ProgressBar(f"get {key}")

    async def download() -> None:
        async with storage.download(key) as (bar.total, pieces):
            # In the folder of its place, so that it can be renamed in one step.
            with _draft(place.parent) as (draft, path):
                async for piece in pieces:
                    draft.write(piece)
                    bar.done += len(piece)
                draft.close()
                if may_overwrite:
                    path.replace(place)
                else:
                    try:
                        name_file(path, place)
                    except FileExistsError:
                        raise taken from None  # it has been made meanwhile

    try:
        with _known(key):
            _transfer(bar, download, f"got {key} as {place}")
    except OSError as exc:
        raise OptionError(f"{place} cannot be written: {exc.strerror or exc}.") from None


@contextmanager
def _draft(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".lyceum-{uuid.uuid4().hex}"
    try:
        with path.open("xb") as file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


def _transfer(bar: ProgressBar, work: Callable[[], Awaitable[None]], done: str) -> None:
    began_at = time.monotonic()
    try:
        workspace().wait_for(work, while_waiting=bar.show)
    except BaseException:
        bar.leave()
        raise
    bar.finish(f"{done}: {size(bar.done)} in {duration(time.monotonic() - began_at)}")


@contextmanager
def _known(key: str) -> Iterator[None]:
    """Translate the server's error for a key that does not exist."""
    try:
        yield
    except RequestRefused as exc:
        if exc.status_code == 404:
            raise OptionError(
                f"The storage has no {key!r}; `%lyceum storage ls` lists what it has."
            ) from None
        raise
