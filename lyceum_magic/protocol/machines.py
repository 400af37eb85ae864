"""Machine names (`execution_type` on the wire)."""

import re

#: Every profile name that the cloud is known to have. The embedded server may have more: see
#: `server.machines`.
MACHINES = (
    "cpu",
    "gpu",
    "gpu.t4",
    "gpu.t4.64gb",
    "gpu.l40s",
    "gpu.a100",
    "gpu.a100.40gb",
    "gpu.a100.80gb",
    "gpu.h100",
    "gpu.h200",
    "gpu.b200",
    "gpu.rtx6000pro",
)

#: The names that the wire allows; note that there is no hyphen.
MACHINE_PATTERN = r"^[a-zA-Z0-9_.]+$"


def is_machine_name(name: str) -> bool:
    """Return whether `name` may travel; only the server knows which names exist."""
    return re.fullmatch(MACHINE_PATTERN[1:-1], name) is not None


def needs_gpu(machine: str) -> bool:
    """Return whether a machine of this name has a GPU."""
    return machine != "cpu"
