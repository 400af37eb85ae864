"""`%lyceum secrets list|set|rm`: variables that every run of the account is given."""

from __future__ import annotations

import argparse
import re

from ..exceptions import OptionError
from ..protocol.limits import MIN_MASKED_CHARACTERS
from ..runs.workspace import workspace
from .asking import ask_secret
from .tables import Says, Table


def run_secrets(parsed: argparse.Namespace) -> object:
    """What a subcommand of `secrets` answers.

    Raises:
        OptionError: a name that no variable can have, or that is not known.
        LyceumError: what the server says.
    """
    here = workspace()
    client = here.client()
    if parsed.action in (None, "list"):
        rows = [(secret.name, secret.updated_at[:19]) for secret in here.ask(client.secrets)]
        empty = "no secrets; `%lyceum secrets set NAME` keeps one"
        return Table(["name", "set at"], rows, empty=empty)
    name = parsed.name
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise OptionError(f"A secret is named as a variable is, such as HF_TOKEN, not {name!r}.")
    if parsed.action == "set":
        value = ask_secret(
            f"Value of {name}", "set it once where somebody can type: the account keeps it"
        )
        here.ask(client.set_secret, name, value)
        said = f"{name} is set: runs that start from now on have it as a variable."
        if len(value) < MIN_MASKED_CHARACTERS:
            said += (
                f" With fewer than {MIN_MASKED_CHARACTERS} characters it is not masked in "
                "their output."
            )
        return Says(said)
    ids = [secret.id for secret in here.ask(client.secrets) if secret.name == name]
    if not ids:
        raise OptionError(f"There is no secret {name}; `%lyceum secrets list` shows their names.")
    for secret_id in ids:
        here.ask(client.remove_secret, secret_id)
    return Says(f"{name} is removed.")
