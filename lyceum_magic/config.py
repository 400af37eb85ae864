"""Where settings and credentials come from: environment, login file, folders on this machine."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from .exceptions import ConfigError
from .protocol.paths import PRODUCTION_ORIGIN

#: In a state folder: the database of all runs. What it is not in is no state folder.
RECORDS_FILE = "runs.sqlite3"
#: In a state folder: the path of the Python whose environment it belongs to, as JSON.
INTERPRETER_FILE = "interpreter.json"
#: In `LYCEUM_MAGIC_HOME`: where the state went that an earlier version kept there. A JSON array
#: of `{"at": seconds since 1970, "to": path}`, oldest first.
MOVES_FILE = "moves.json"
#: In `server.json`. A server listens on loopback alone, and makes its key of 256 random bits.
_SERVER_FACTS = {
    "base_url": r"http://127\.0\.0\.1:\d{1,5}",
    "api_key": r"lk_[\w-]{32,}",
    "version": r".*",
}
#: The first bytes of a server's lock file are its address, with blanks behind it: kernels of
#: earlier versions take just these for the address. Its process id follows.
LOCK_ADDRESS_BYTES = 200


class Secret:
    """A string that shows itself as `***` wherever it could leak; `reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: it would leave this process in the clear")


@dataclass(frozen=True)
class Account:
    """Whom to talk to, and as whom.

    `base_url` is an origin without a trailing slash. `source` says in a few words where this was
    found. `is_embedded` marks the embedded server of this machine. `bootstrap` is the digest of the
    bootstrap that the server has loaded; empty if cells travel with theirs. `needs_proof`: a server
    on this machine must prove that it knows the key before it is sent the key. A login outlives the
    server that it is for, and its port may be another user's by then.
    """

    base_url: str
    token: Secret
    source: str
    org: str | None = None
    refresh_token: Secret | None = None
    is_embedded: bool = False
    bootstrap: str = ""
    needs_proof: bool = False


#: SQLite opens no file whose path has more than 512 bytes; names in the folder take the rest.
_MAX_FOLDER_BYTES = 400


def user_folder() -> Path:
    """The folder of all that belongs to this user: `LYCEUM_MAGIC_HOME`, else the platform's.

    Raises:
        ConfigError: its path is longer than databases in it may have.
    """
    if home := os.environ.get("LYCEUM_MAGIC_HOME"):
        return _short_enough(Path(home).expanduser().absolute())
    import platformdirs

    return _short_enough(Path(platformdirs.user_state_path("lyceum-magic", appauthor=False)))


def _short_enough(folder: Path) -> Path:
    size = len(os.fsencode(folder))
    if size > _MAX_FOLDER_BYTES:
        raise ConfigError(
            f"The folder for runs would be {str(folder)[:60]}..., whose path has {size:,} bytes; "
            f"{_MAX_FOLDER_BYTES} are the most: set LYCEUM_MAGIC_HOME to a folder with a shorter "
            "one."
        )
    return folder


def journal_folder() -> Path:
    """Where every run of this user is written down."""
    return user_folder() / "journal"


def server_folder(home: Path | None = None) -> Path:
    """The embedded server's state folder: one for each environment, named after `sys.prefix`.

    So a kernel never runs on another environment's packages.

    Args:
        home: what `user_folder` returns to the processes that are meant; this one's if None.
    """
    digest = hashlib.sha256(sys.prefix.encode()).hexdigest()[:10]
    name = f"{Path(sys.prefix).name.lstrip('.')}-{digest}"
    return (home or user_folder()) / "servers" / name


def server_facts(text: bytes) -> dict[str, Any]:
    """The members of a `server.json`: `base_url`, `api_key`, `pid`, `version` and maybe more.

    Raises:
        ValueError: no server wrote it. The error does not hold the text, in which a key may be.
    """
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise ValueError("it is no JSON object") from None
    for name, pattern in _SERVER_FACTS.items():
        if not isinstance(facts.get(name), str) or not re.fullmatch(pattern, facts[name], re.ASCII):
            raise ValueError(f"its {name} is none")
    if not 0 < int(facts["base_url"].rpartition(":")[2]) < 65536:
        raise ValueError("its port is none")
    if type(facts.get("pid")) is not int or facts["pid"] <= 0:
        raise ValueError("its pid is none")
    return facts


def earlier_server_folder() -> Path | None:
    """Where earlier versions kept the state of all environments: `LYCEUM_MAGIC_HOME` itself.

    None where that is not set: there each environment has always had a folder of its own.
    """
    return user_folder() if os.environ.get("LYCEUM_MAGIC_HOME") else None


def own_folder(folder: Path) -> None:
    """Makes a folder for this user alone, 0700, or sees to it that the one there is such a one.

    So are those above it, from `user_folder()` on: their owners could put another in its place.

    Raises:
        OSError: one is another user's, or leads to one of theirs, or cannot be made.
    """
    for path in _from_user_folder(folder):
        check_folder(path)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_folder(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o700)


def check_folders(folder: Path) -> None:
    """Sees to it that a folder and those above it are this user's, as far as they are there.

    Raises:
        PermissionError: one is another user's, or leads to one of theirs.
    """
    for path in _from_user_folder(folder):
        check_folder(path)


def check_folder(path: Path) -> None:
    """
    Raises:
        PermissionError: what is there is another user's, or leads to what is.
    """
    for look in (path.lstat, path.stat):  # a link's own owner decides where it leads
        try:
            check_owner(look(), path)
        except FileNotFoundError:
            return


def _from_user_folder(folder: Path) -> list[Path]:
    home = user_folder()
    return [*(path for path in reversed(folder.parents) if path.is_relative_to(home)), folder]


def check_owner(status: os.stat_result, path: Path) -> None:
    """
    Raises:
        PermissionError: what is there is another user's.
    """
    if sys.platform != "win32" and status.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it belongs to another user", str(path))


def open_own(path: Path, flags: int) -> int:
    """Opens a file of this user's, made with mode 0600 if `flags` say so; returns its descriptor.

    Nothing happens to a file before its owner is known, and no link is followed: another user may
    have put it there before the folder was closed.

    Args:
        flags: as for `os.open`, without O_TRUNC.

    Raises:
        OSError: it is not there, is another user's, or is no file.
    """
    # O_NONBLOCK: a pipe would be waited for. Windows has O_BINARY alone.
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as exc:
        if path.is_symlink():
            raise OSError(exc.errno, "it is a symbolic link", str(path)) from None
        raise
    try:
        _check_file(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_private(mode: int) -> bool:
    """Return whether only its owner can read or write a file, and nobody can execute it."""
    return not stat.S_IMODE(mode) & 0o177


def is_misplaced(error: OSError, path: Path) -> bool:
    """Whether a file could not be opened because something that is none is in its place, or
    because its mode keeps its own user out: it can be written again."""
    try:
        status = path.lstat()
    except OSError:
        return False
    is_ours = sys.platform == "win32" or status.st_uid == os.getuid()
    return is_ours and (not stat.S_ISREG(status.st_mode) or error.errno == errno.EACCES)


def read_own(path: Path) -> bytes:
    """The content of a file of this user's.

    Raises:
        OSError: see `open_own`.
    """
    with open(open_own(path, os.O_RDONLY), "rb") as file:
        return file.read()


def put_own(path: Path, text: str) -> None:
    """Writes a file of this user's, 0600: a reader sees all of it, or what was there before.

    A folder in its place is moved aside. Nothing else is left where it cannot be written.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{path.name}.{time.time_ns()}"))
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()  # a part of it may be there, with a key in it
        raise


def own_database(path: Path) -> None:
    """Makes a file for SQLite, 0600, or checks the one there, with those that belong to it.

    SQLite gives the others the mode of the first.

    Raises:
        OSError: one is another user's, is no file, or cannot be made.
    """
    for suffix in ("-wal", "-shm", "-journal"):
        beside = path.with_name(path.name + suffix)
        if os.path.lexists(beside):
            _check_file(beside.lstat(), beside)
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        if sys.platform != "win32":
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _check_file(status: os.stat_result, path: Path) -> None:
    check_owner(status, path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a file", str(path))


def login_file() -> Path:
    """The user's login, shared with the official client."""
    return Path.home() / ".lyceum" / "config.json"


def find_account(environ: Mapping[str, str] = os.environ) -> Account | None:
    """The account to use: environment, then login file; None means the embedded server.

    Raises:
        ConfigError: the login file is there and cannot be used, or a URL is not an origin.
    """
    org = _slug(environ.get("LYCEUM_ORG"), "LYCEUM_ORG")
    if key := environ.get("LYCEUM_API_KEY", "").strip():
        origin = environ.get("LYCEUM_BASE_URL") or PRODUCTION_ORIGIN
        base_url = _origin(origin, "LYCEUM_BASE_URL")
        return Account(base_url, _header_safe(key, "LYCEUM_API_KEY"), "LYCEUM_API_KEY", org)
    login = read_login()
    if not login.get("api_key"):
        return None
    where = str(login_file())
    refresh = login.get("refresh_token")
    return replace(
        account_to_log_in(login, login["api_key"], where),
        org=org or _slug(login.get("active_org_slug"), where),
        refresh_token=Secret(refresh) if refresh else None,
    )


def account_to_log_in(login: Mapping[str, Any], key: str, source: str) -> Account:
    """The account that a key opens on the server of a login.

    Args:
        login: what `read_login` gave.
        source: see `Account`.

    Raises:
        ConfigError: the login's URL is not an origin, or the text is no key.
    """
    base_url = _origin(login.get("base_url") or PRODUCTION_ORIGIN, str(login_file()))
    return Account(base_url, _header_safe(key, source), source, needs_proof=True)


def read_login() -> dict[str, Any]:
    """The login file's object; empty where there is no file.

    Raises:
        ConfigError: unreadable, not JSON, or members of the wrong type.
    """
    path = login_file()
    expected = f"{path} should be the JSON object that `lyceum auth login` writes"
    todo = "mend or remove it, or set LYCEUM_API_KEY"
    login, problem = _load(path)
    if problem:
        raise ConfigError(f"{expected}, but it {problem}; {todo}.")
    if not isinstance(login, dict):
        raise ConfigError(f"{expected}, but it holds a {type(login).__name__}; {todo}.")
    for name in ("api_key", "base_url", "refresh_token", "active_org_slug"):
        if login.get(name) is not None and not isinstance(login[name], str):
            raise ConfigError(f"{expected}, but its `{name}` is not a string; {todo}.")
    return login


def _load(path: Path) -> tuple[Any, str]:
    """The JSON value in a file, and what is wrong with it.

    No exception leaves: a decoder's holds the whole file, keys included, and whatever is raised
    while it is handled keeps it as its context.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")), ""
    except (FileNotFoundError, NotADirectoryError):  # a home may be /dev/null
        return {}, ""
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            return {}, ""
        return None, f"cannot be read ({exc.strerror})"
    except UnicodeDecodeError:
        return None, "is not UTF-8 text"
    except json.JSONDecodeError as exc:
        return None, f"is broken at line {exc.lineno}"
    except (ValueError, RecursionError):
        return None, "is broken"


def write_login(**members: str | None) -> Path:
    """Writes members into the login file, keeps the others, mode 0600; returns its path.

    Raises:
        ConfigError: the file that is there cannot be used, or none can be written.
    """
    login = {**read_login(), **members}
    path = login_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        put_own(path, json.dumps(login, indent=2))
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be written ({exc.strerror}); set LYCEUM_API_KEY instead."
        ) from None
    return path


def _header_safe(key: str, where: str) -> Secret:
    # httpx would raise an error that quotes the whole key.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"The API key in {where} holds characters that no key has (spaces, line breaks or "
            "non-ASCII letters); copy it again from the dashboard."
        )
    return Secret(key)


def _slug(org: str | None, where: str) -> str | None:
    if org and re.fullmatch(r"[\w.-]+", org, re.ASCII) is None:
        raise ConfigError(
            f"{where} should name an organisation by its slug (a-z, 0-9 and -), not {org!r}; "
            "correct it, or remove it to use your own."
        )
    return org or None


#: Names and addresses that a resolver takes; others make it raise what no caller expects.
_HOST = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?|[0-9a-f:.]+(%\w+)?", re.ASCII)


def _origin(url: str, where: str) -> str:
    from urllib.parse import urlsplit

    problem = f"{where} should name an origin such as https://api.lyceum.technology"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ConfigError(f"{problem}, but it is not a URL; correct it.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ConfigError(f"{problem}; it must begin with http:// or https:// and hold no user.")
    if _HOST.fullmatch(parts.hostname) is None:
        raise ConfigError(f"{problem}, but its host is no name that exists; correct it.")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"{problem}, without a path; remove what follows the host.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")
