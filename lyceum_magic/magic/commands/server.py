"""`%lyceum server`: where the embedded server is."""

from __future__ import annotations

from ...display.tables import Says
from ...embedded import local_server
from ...runs.workspace import workspace
from . import Call


def run(call: Call) -> Says:
    folder = local_server.current_folder()
    client = workspace().accounts.embedded_if_running()
    if client is not None:
        said = (
            f"The embedded server serves at {client.account.base_url} from {folder}.\n"
            "It runs code as your own user, and ends 30 minutes after the last run."
        )
    elif problem := local_server.unreachable(folder):
        return Says(problem)
    else:
        said = f"No embedded server runs; the first cell starts one. Its folder: {folder}"
    return Says("\n".join(filter(None, [said, local_server.earlier_state()])))
