"""`%lyceum machines`: the machines, their prices, and which of them this account can use."""

from __future__ import annotations

from ...display.tables import Table
from ...protocol import money
from ...runs.workspace import workspace
from . import Call


def run(call: Call) -> Table:
    client = workspace().client()
    prices = workspace().ask(client.machine_types)
    usable = workspace().ask(client.available_hardware)
    rows = [
        (name, "free" if price == 0 else "" if price is None else money.per_hour(price),
         "yes" if not usable or name in usable else "no")
        for name, price in prices.items()
    ]  # fmt: skip
    return Table(["machine", "price", "available"], rows, empty="the server names no machines")
