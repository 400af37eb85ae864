"""The files in a state folder that a server writes, and that others read to find the server."""

from __future__ import annotations

import json
import re
from typing import Any

#: The database of all runs. A folder without it is not a state folder.
RECORDS_FILE = "runs.sqlite3"
#: The path of the Python whose environment the folder belongs to, as JSON.
INTERPRETER_FILE = "interpreter.json"
#: The server's address and key. It outlives the server.
SERVER_FILE = "server.json"
#: Locked by the server for as long as it lives.
LOCK_FILE = "server.lock"
#: In `LYCEUM_MAGIC_HOME`: the new places of the state that an earlier version kept there, as a JSON
#: array of `{"at": seconds since 1970, "to": path}`, oldest first.
MOVES_FILE = "moves.json"
#: The first bytes of the lock file are the server's address, padded with spaces: kernels of earlier
#: versions read exactly these as the address. The process id follows.
LOCK_ADDRESS_BYTES = 200

#: A server listens on loopback alone, and makes its key of 256 random bits.
_PATTERNS = {
    "base_url": r"http://127\.0\.0\.1:\d{1,5}",
    "api_key": r"lk_[\w-]{32,}",
    "version": r".*",
}


def server_facts(text: bytes) -> dict[str, Any]:
    """Return the members of a `server.json`: `base_url`, `api_key`, `pid`, `version` and others.

    Raises:
        ValueError: the text is not a server's. The error does not quote it: it may hold a key.
    """
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise ValueError("it is not a JSON object") from None
    for name, pattern in _PATTERNS.items():
        if not isinstance(facts.get(name), str) or not re.fullmatch(pattern, facts[name], re.ASCII):
            raise ValueError(f"its {name} is not valid")
    if not 0 < int(facts["base_url"].rpartition(":")[2]) < 65536:
        raise ValueError("its port is not valid")
    if type(facts.get("pid")) is not int or facts["pid"] <= 0:
        raise ValueError("its pid is not valid")
    return facts
