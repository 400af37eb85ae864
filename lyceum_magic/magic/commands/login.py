"""`%lyceum login`: sign in with an API key, which is typed and kept in the login file."""

from __future__ import annotations

from ... import config
from ...display.tables import Says
from ...exceptions import LyceumError
from ...runs.workspace import workspace
from ..asking import ask_secret
from . import Call


def run(call: Call) -> Says:
    key = ask_secret("Lyceum API key (lk_...)", "set LYCEUM_API_KEY where the kernel starts")
    if not key.startswith("lk_"):
        raise LyceumError("An API key begins with lk_; nothing was written.")
    workspace().accounts.check(config.account_to_log_in(config.read_login(), key, "what you typed"))
    path = config.write_login(api_key=key, refresh_token=None)
    return Says(f"Signed in: the key is in {path}. Cells run on the cloud from now on.")
