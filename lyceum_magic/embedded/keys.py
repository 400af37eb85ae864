"""Keys of the embedded server for other clients: make, list and revoke them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..client.api import Client
from ..client.keys import ApiKey
from ..config import Secret
from ..display.tables import Table
from ..exceptions import OptionError
from ..protocol.proof import public_part
from ..runs.workspace import workspace

_MAX_NAME = 255


def create(name: str, days: float | None, folder: Path | None) -> tuple[Secret, str]:
    """Make a key, and return it with what its user must know.

    Args:
        days: how long it is valid; None for ever.
        folder: the server's state folder; this environment's own if None.

    Raises:
        OptionError: no key can have this name, or another key has it.
        LyceumError: the server cannot be started, or refuses.
    """
    if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
        raise OptionError(
            f"The name of a key must have 1 to {_MAX_NAME} printable characters, unlike "
            f"{name!r:.80}; choose another."
        )
    client = workspace().accounts.embedded(folder)
    if any(key.name == name for key in workspace().ask(client.keys.list)):
        raise OptionError(
            f"There is a key {name!r} already; choose another name, or revoke that one first with "
            f"`lyceum-magic keys revoke`."
        )
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    key, secret = workspace().ask(client.keys.create, name, expires_at)
    url = client.account.base_url
    return secret, (
        f"This is the key {name!r} for {url}, good {_until(key)}; it is not shown again.\n"
        "For the official client, which asks for the key:\n"
        f"  lyceum auth login --url {url} --manual"
    )


def listed(folder: Path | None) -> Table:
    """Return a table of all keys, which shows of each key the first characters alone."""
    client = workspace().accounts.embedded(folder)
    rows = [
        (
            key.name,
            key.key_id,
            f"{key.prefix}...",
            _shown(key.created_at),
            _shown(key.last_used_at) or "never",
            "until its server ends" if _is_own(key, client) else _state(key),
        )
        for key in workspace().ask(client.keys.list)
    ]
    return Table(["name", "id", "key", "made", "last used", "good"], rows)


def revoke(wanted: str, folder: Path | None) -> str:
    """End a key for good, and return a sentence that says which.

    Args:
        wanted: its name, its id, or the beginning of its id.

    Raises:
        OptionError: this fits no key, or more than one.
    """
    client = workspace().accounts.embedded(folder)
    key = _only(workspace().ask(client.keys.list), wanted)
    workspace().ask(client.keys.revoke, key.key_id)
    return f"The key {key.name!r} ({key.prefix}...) is revoked: it opens nothing any more."


def _only(keys: Sequence[ApiKey], wanted: str) -> ApiKey:
    for found in (
        [key for key in keys if key.key_id == wanted],
        [key for key in keys if key.name == wanted],
        [key for key in keys if wanted and key.key_id.startswith(wanted)],
    ):
        if len(found) > 1:
            ids = ", ".join(key.key_id for key in found)
            raise OptionError(f"{wanted!r:.80} means {len(found)} keys; name one by its id: {ids}.")
        if found:
            return found[0]
    raise OptionError(
        f"No key has the name or id {wanted!r:.80}; `lyceum-magic keys list` shows all of them."
    )


def _is_own(key: ApiKey, client: Client) -> bool:
    return key.prefix == public_part(client.account.token.reveal())


def _state(key: ApiKey) -> str:
    if not key.is_active:
        return "switched off"
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        return f"expired {_shown(key.expires_at)}"
    return _until(key)


def _until(key: ApiKey) -> str:
    return "until it is revoked" if key.expires_at is None else f"until {_shown(key.expires_at)}"


def _shown(moment: datetime | None) -> str:
    """Return a time in this machine's time zone, to the minute."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")
