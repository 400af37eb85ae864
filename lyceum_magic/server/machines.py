"""The machines that runs may ask for: one row each, with its price and the runner of each kind.

A new runner is a folder below `runners`, an entry in `app._runners`, a name in `RUNNERS` and its
rows in `MACHINES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..exceptions import LyceumError
from ..protocol import machines as wire
from ..protocol.requests import Kind
from .gpus import NO_GPU, has_gpu
from .runners.base import InvalidField

#: The names of this server's runners, as `RunService` has them.
RUNNERS = ("process", "container", "compose")


class UnknownMachine(LyceumError):
    """A request asks for a machine that does not exist."""


@dataclass(frozen=True)
class Machine:
    """A row of the table.

    Attributes:
        name: `execution_type` on the wire.
        has_gpu: whether a run on it may expect a GPU.
        price_per_hour: in the account's currency.
        runners: kind of run -> the name of its runner; kinds that it does not run are left out.
        note: returns what users should know about it now; empty if there is nothing to say.
    """

    name: str
    has_gpu: bool
    price_per_hour: float
    runners: Mapping[Kind, str]
    note: Callable[[], str] = lambda: ""


def _this_computer(name: str) -> Machine:
    """Return the row of a cloud machine's name, for which this computer stands in."""
    wants_gpu = wire.needs_gpu(name)
    return Machine(
        name,
        has_gpu=wants_gpu,
        price_per_hour=0.0,
        runners={"python": "process", "image": "container", "compose": "compose"},
        note=lambda: NO_GPU if wants_gpu and not has_gpu() else "",
    )


MACHINES: dict[str, Machine] = {name: _this_computer(name) for name in wire.MACHINES}


def machine_named(name: str) -> Machine:
    """Return the machine of this name.

    Raises:
        UnknownMachine: there is none; the message lists those that exist.
    """
    if machine := MACHINES.get(name):
        return machine
    raise UnknownMachine(f"There is no machine {name!r}; choose one of: {', '.join(MACHINES)}.")


def runner_name(kind: Kind, machine: str) -> str:
    """Return the name of the runner for this kind of run on this machine.

    Raises:
        UnknownMachine: there is no such machine.
        InvalidField: the machine does not run this kind.
    """
    if runner := machine_named(machine).runners.get(kind):
        return runner
    others = [name for name, row in MACHINES.items() if kind in row.runners]
    raise InvalidField(
        f"the machine {machine} runs nothing of the kind `{kind}`; choose one of: "
        f"{', '.join(others)}.",
        field="execution_type",
    )
