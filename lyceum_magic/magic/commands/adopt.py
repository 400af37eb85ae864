"""`%lyceum adopt`: this notebook's own variables become the first snapshot of a session.

It is a command, and no form of `--in`: it shows sizes and asks before anything travels, names that
share an object go on sharing it, and it happens once, not with each run of a cell.
"""

from __future__ import annotations

from ...display.progress import size
from ...display.session import session_title
from ...display.tables import Table
from ...exceptions import OptionError
from ...runs.workspace import workspace
from ...sessions.adopting import ASK_BYTES, Adoption, adopt, prepare
from ...submission.specs import OWN_SESSION
from ..asking import ask_yes
from ..parsing import Parser
from ..session_cell import session_meant
from ..transfer import say
from . import Call


def add_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a session; else this notebook's")
    parser.add_argument("-m", "--machine", metavar="NAME", help="the machine that takes them")
    parser.add_argument("--yes", action="store_true", help="send more than 10 MiB")
    parser.add_argument("--local", action="store_true", help="on the embedded server")


def run(call: Call) -> Table:
    from IPython import get_ipython

    options, shell = call.options, get_ipython()
    if shell is None:
        raise OptionError("There is no notebook whose variables could be adopted.")
    name = session_meant(options.name or call.defaults.session or OWN_SESSION)
    adoption = prepare(shell.user_ns, shell.user_ns_hidden)
    if adoption.size > ASK_BYTES and not options.yes:
        _ask(adoption)
    branch = workspace().sessions.branch(name.key)

    def tell(piece: int) -> None:
        if adoption.pieces > 1:
            say(f"{piece} of {adoption.pieces} parts have arrived")

    done = adopt(
        adoption, name, on_piece=tell, branch=branch,
        machine=options.machine or call.defaults.machine,
        place="local" if options.local else "auto",
    )  # fmt: skip
    for line in done.text.splitlines():
        say(line)
    workspace().sessions.begin(name.key)
    rows = [(one, size(count), "") for one, count in sorted(adoption.sizes.items())]
    rows += [(one, "", f"not adopted: {why}") for one, why in sorted(adoption.lost.items())]
    title = (
        f"session {session_title(name.key, name.title, branch)} begins with "
        f"{len(adoption.sizes):,} variables, {size(adoption.size)}"
    )
    return Table(["name", "size", ""], rows, title=title)


def _ask(adoption: Adoption) -> None:
    largest = sorted(adoption.sizes.items(), key=lambda item: -item[1])[:5]
    named = ", ".join(f"{name} {size(count)}" for name, count in largest)
    if not ask_yes(f"{size(adoption.size)} would travel ({named}, ...). Send them?", "add --yes"):
        raise OptionError("Nothing was sent.")
