"""The notebook's own variables -> the first snapshot of a session, by the rules of every save."""

from __future__ import annotations

import types
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..exceptions import OptionError
from ..protocol.sizes import in_words
from ..remote import adopting
from ..remote.packs import TooMuch
from ..remote.saving import SaveTimeout
from ..runs.run import Run
from .naming import SessionName
from .session import Session

#: Above this, the user is asked. In bytes.
ASK_BYTES = 10 * 2**20
#: Maximum bytes in all: they travel in pieces, each with a run of its own.
MAX_BYTES = 200 * 10**6
#: Bytes of a piece. A request has at most 16 MiB, of text.
PIECE_BYTES = 8 * 2**20
#: Seconds that packing may take.
LIMIT_S = 60.0

_OURS = "lyceum_magic"
_PART = "_lyceum_part_"
#: In one expression, so that nothing of it is left among the variables.
_ADOPT = """\
for _name, _why in sorted(__import__("lyceum_magic_remote.adopting", fromlist=["adopt"]).adopt(
    [globals().pop(_part) for _part in {parts!r}], globals()
).items()):
    print(f"Not adopted: {{_name}} ({{_why}})")
globals().pop("_part", None), globals().pop("_name", None), globals().pop("_why", None);
"""


@dataclass(frozen=True)
class Adoption:
    """Variables that are ready to travel.

    Attributes:
        sizes: name -> bytes.
        lost: name -> why it cannot go along.
        size: of all that travels, in bytes.
    """

    packed: adopting.Packed
    sizes: Mapping[str, int]
    lost: Mapping[str, str]

    @property
    def size(self) -> int:
        return len(self.packed.data)

    @property
    def pieces(self) -> int:
        """The number of runs that it takes."""
        return -(-self.size // PIECE_BYTES)


def prepare(namespace: dict[str, Any], of_shell: Mapping[str, object]) -> Adoption:
    """Pack the user's variables.

    They are pickled in this process: a forked one would hang in libraries that have threads.

    Args:
        namespace: the notebook's.
        of_shell: what IPython itself has put there.

    Raises:
        OptionError: there is nothing, or too much.
    """
    values = {
        name: value
        for name, value in list(namespace.items())
        if not name.startswith("_") and name not in of_shell and not _is_ours(value)
    }
    try:
        packed = adopting.pack(namespace, values, max_bytes=MAX_BYTES, limit_s=LIMIT_S)
    except TooMuch:
        raise OptionError(
            f"The variables take more than {in_words(MAX_BYTES)}: delete the large ones, or put "
            "them in the account's storage and read them in the session."
        ) from None
    except SaveTimeout:
        raise OptionError(
            f"Packing the variables takes more than {LIMIT_S:.0f} s: delete the large ones."
        ) from None
    if not packed.sizes:
        raise OptionError("The notebook has no variables that a session could keep.")
    return Adoption(packed, packed.sizes, packed.lost)


def adopt(
    adoption: Adoption, name: SessionName, *, on_piece: Callable[[int], object], **options: Any
) -> Run:
    """Make packed variables the first snapshot of a session, and return the run that did.

    All happens on a branch of its own, which takes the place of the session's branch at the end: a
    failure leaves the session as it was.

    Args:
        on_piece: called with the number of each piece that has arrived.
        options: those of `Session`; `branch` is the branch that begins with the variables.

    Raises:
        LyceumError: a run failed or could not be started.
    """
    target = Session(name.key, title=name.title, **options)
    options["branch"] = f"in-{uuid.uuid4().hex[:12]}"
    side = Session(name.key, title=name.title, **options)
    data, parts = adoption.packed.data, []
    for number in range(adoption.pieces):
        part = f"{_PART}{number}"
        parts.append(part)
        piece = data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
        is_last = number + 1 == adoption.pieces
        code = _code(adoption, parts) if is_last else f"{part} = {part}"
        run = side.run(code, inputs={part: piece})
        on_piece(number + 1)
    target.take_over(side)
    return run


def _code(adoption: Adoption, parts: list[str]) -> str:
    """Return the last cell, which names the packages so that they are there."""
    packages = sorted(name for name in adoption.packed.packages if name.isidentifier())
    needs = "".join(f"    import {name}\n" for name in packages if name != _OURS)
    named = f"def _lyceum_needs():\n{needs}\ndel _lyceum_needs\n" if needs else ""
    return named + _ADOPT.format(parts=parts)


def _is_ours(value: object) -> bool:
    module = value.__name__ if isinstance(value, types.ModuleType) else type(value).__module__
    return str(module).partition(".")[0] in (_OURS, "IPython")
