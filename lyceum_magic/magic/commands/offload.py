"""`%lyceum offload on|off`: run every following cell in a session, as if it began with a magic."""

from __future__ import annotations

import shlex

from ...display.tables import Says
from ...exceptions import OptionError
from ...submission.specs import OWN_SESSION, PythonSpec
from .. import offload
from ..options import read_line
from ..parsing import Parser
from ..session_cell import session_meant
from . import Call


def add_arguments(parser: Parser) -> None:
    add_action = parser.subcommand_adder(title="actions", dest="action", metavar="on|off")
    on = add_action("on", "run the following cells on Lyceum, in a session")
    on.add_argument("-m", "--machine", metavar="NAME", help="the machine; as configured without it")
    on.add_argument("--session", metavar="NAME", help="the session; else this notebook's own")
    on.add_argument("--local", action="store_true", help="on the embedded server")
    add_action("off", "run the following cells here")


def run(call: Call) -> Says:
    from IPython import get_ipython

    options, shell = call.options, get_ipython()
    if options.action == "off":
        offload.switch_off(shell)
        return Says("Cells run here again.")
    if options.action is None:
        return Says("Cells run on Lyceum." if offload.is_on(shell) else "Cells run here.")
    if shell is None:
        raise OptionError("There is no notebook whose cells could run elsewhere.")
    session = options.session or call.defaults.session or OWN_SESSION
    words = ["--session", session]
    words += ["-m", options.machine] if options.machine else []
    words += ["--local"] if options.local else []
    line = shlex.join(words)
    spec = read_line(PythonSpec, line, code="pass", **call.defaults.of_run())  # checks it now
    offload.switch_on(shell, line)
    name = session_meant(session)
    return Says(
        f"Every following cell runs on {spec.machine}, in session {name.shown()}, until `%lyceum "
        "offload off`. Cells that begin with %lyceum or %%lyceum run as they say."
    )
