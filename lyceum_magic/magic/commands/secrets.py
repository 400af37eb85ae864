"""`%lyceum secrets list|set|rm`: variables that every run of the account is given."""

from __future__ import annotations

import re

from ...display.tables import Says, Table
from ...exceptions import OptionError
from ...protocol.limits import MIN_MASKED_CHARACTERS
from ...runs.workspace import workspace
from ..asking import ask_secret
from ..parsing import Parser
from . import Call


def add_arguments(parser: Parser) -> None:
    add_action = parser.subcommand_adder(title="actions", dest="action", metavar="list|set|rm")
    add_action("list", "their names")
    set_ = add_action("set", "keep a value, which is asked for")
    set_.add_argument("name", metavar="NAME", help="such as HF_TOKEN")
    add_action("rm", "remove one").add_argument("name", metavar="NAME")


def run(call: Call) -> Says | Table:
    action, name = call.options.action, getattr(call.options, "name", "")
    if action in (None, "list"):
        secrets = workspace().ask(workspace().client().secrets)
        rows = [(secret.name, secret.updated_at[:19]) for secret in secrets]
        empty = "no secrets; `%lyceum secrets set NAME` keeps one"
        return Table(["name", "set at"], rows, empty=empty)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise OptionError(f"A secret is named as a variable is, such as HF_TOKEN, not {name!r}.")
    return _set(name) if action == "set" else _remove(name)


def _set(name: str) -> Says:
    client = workspace().client()
    value = ask_secret(
        f"Value of {name}", "set it once in a notebook or a terminal: the account keeps it"
    )
    workspace().ask(client.set_secret, name, value)
    said = f"{name} is set: runs that start from now on have it as a variable."
    if len(value) < MIN_MASKED_CHARACTERS:
        said += (
            f" With fewer than {MIN_MASKED_CHARACTERS} characters it is not masked in their output."
        )
    return Says(said)


def _remove(name: str) -> Says:
    client = workspace().client()
    ids = [secret.id for secret in workspace().ask(client.secrets) if secret.name == name]
    if not ids:
        raise OptionError(f"There is no secret {name}; `%lyceum secrets list` shows their names.")
    for secret_id in ids:
        workspace().ask(client.remove_secret, secret_id)
    return Says(f"{name} is removed.")
