"""The account to use: environment and login file in, where to talk to and the key out."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from .exceptions import ConfigError
from .own_files import put_own
from .protocol.paths import PRODUCTION_ORIGIN


class Secret:
    """A string that prints as `***` everywhere; `reveal()` returns it."""

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
        raise TypeError("A Secret is not pickled: its text would leave this process unprotected.")


@dataclass(frozen=True)
class Account:
    """A server, and the key with which to talk to it.

    Attributes:
        base_url: an origin without a trailing slash.
        source: where the key was found, in a few words.
        is_embedded: the server is the embedded one of this machine.
        bootstrap: the digest of the bootstrap that the server has loaded; empty if cells carry
            their own.
        needs_proof: a server on this machine must prove that it knows the key before the key is
            sent to it. A login outlives its server, whose port may be another user's by then.
    """

    base_url: str
    token: Secret
    source: str
    org: str | None = None
    refresh_token: Secret | None = None
    is_embedded: bool = False
    bootstrap: str = ""
    needs_proof: bool = False


def login_file() -> Path:
    """Return the path of the user's login, which the official client uses too."""
    return Path.home() / ".lyceum" / "config.json"


def find_account(environ: Mapping[str, str] = os.environ) -> Account | None:
    """Return the account of the environment or else of the login file.

    Returns:
        None if there is none: the embedded server is to be used.

    Raises:
        ConfigError: the login file cannot be used, or a URL is not an origin.
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
    """Return the account of a key on the server of a login.

    Args:
        login: what `read_login` returned.
        source: see `Account`.

    Raises:
        ConfigError: the login's URL is not an origin, or the key holds characters that no key has.
    """
    base_url = _origin(login.get("base_url") or PRODUCTION_ORIGIN, str(login_file()))
    return Account(base_url, _header_safe(key, source), source, needs_proof=True)


def read_login() -> dict[str, Any]:
    """Return the login file's object; an empty one if there is no file.

    Raises:
        ConfigError: the file cannot be read, is not JSON, or has members of the wrong type.
    """
    path = login_file()
    expected = f"{path} should be the JSON object that `lyceum auth login` writes"
    todo = "correct or remove it, or set LYCEUM_API_KEY"
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
    """Return the JSON value in a file, and what is wrong with the file, if anything.

    Nothing is raised: a decoder's exception holds the whole file, keys included, and each exception
    that is raised during its handling would keep it as its context.
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
    """Write members into the login file (0600), keep its others, and return its path.

    Raises:
        ConfigError: the present file cannot be used, or the file cannot be written.
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
    # The error that httpx would raise quotes the whole key.
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


#: Names and addresses that a resolver takes; for others it raises unexpected exceptions.
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
        raise ConfigError(f"{problem}, but no host can have such a name; correct it.")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"{problem}, without a path; remove what follows the host.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")
