"""The list of `namespaces.txt`: text -> namespaces by library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Namespace:
    """A namespace.

    Attributes:
        cell: the source that makes it.
        check: an expression over it.
        refused: words of the reason, if it is not kept; empty if the check must be true.
    """

    name: str
    cell: str
    check: str
    refused: str = ""


def _parsed(text: str) -> dict[str, list[Namespace]]:
    found: dict[str, list[Namespace]] = {}
    _, *libraries = text.split("\n# ")
    for library in libraries:
        name, *blocks = library.split("\n-- ")
        found[name.strip().replace("python", "")] = [_namespace(block) for block in blocks]
    return found


def _namespace(block: str) -> Namespace:
    name, *lines = block.rstrip("\n").split("\n")
    checks = [line[3:] for line in lines if line.startswith("-> ")]
    refused = [line[3:] for line in lines if line.startswith("!! ")]
    cell = "\n".join(line for line in lines if not line.startswith(("-> ", "!! ")))
    return Namespace(name, cell, " and ".join(checks), "".join(refused))


#: Library -> its namespaces; "" is Python itself.
LIBRARIES = _parsed(Path(__file__).with_name("namespaces.txt").read_text("utf-8"))
