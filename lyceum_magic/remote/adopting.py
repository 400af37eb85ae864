"""The variables of a notebook -> bytes -> the variables of a session's first cell.

The rules are those of every save; see `saving`. `pack` runs in the notebook, and `adopt` in the
first cell.
"""

from __future__ import annotations

import json
import os
import tempfile
import time

from .packs import Mapped, PackReader, PackWriter
from .restoring import PYTHON, Restored
from .saving import pickle_namespace
from .used_names import EVERYTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_PACK = "adopted"


class Packed:
    """Variables, packed.

    Attributes:
        data: all of it.
        sizes: name -> bytes.
        lost: name -> why it cannot go along.
        packages: top-level modules that loading them imports.
    """

    def __init__(self) -> None:
        self.data = b""
        self.sizes: dict[str, int] = {}
        self.lost: dict[str, str] = {}
        self.packages: set[str] = set()


def pack(
    namespace: dict[str, Any], values: dict[str, Any], *, max_bytes: int, limit_s: float
) -> Packed:
    """Pack variables.

    Args:
        namespace: the notebook's, the globals of its functions.
        values: the variables.
        max_bytes: maximum size.
        limit_s: maximum time in seconds.

    Raises:
        TooMuch: they take more.
        SaveTimeout: it takes longer.
    """
    packed = Packed()
    saved = pickle_namespace(namespace, values, max_bytes, time.monotonic() + limit_s)
    with tempfile.TemporaryDirectory(prefix="lyceum-") as folder:
        path = os.path.join(folder, _PACK)
        writer = PackWriter(path, _PACK, (), max_bytes)
        groups = []
        for part in saved.parts:
            groups.append(
                {
                    "names": part.names,
                    "needs": sorted(part.needs),
                    "uses": sorted(part.uses),
                    "pickle": writer.add(part.content),
                    "buffers": [writer.add_buffer(buffer, None) for buffer in part.buffers],
                    "has_code": part.has_code,
                    "has_cuda": part.has_cuda,
                    "python": PYTHON,
                }
            )
            packed.packages |= part.packages
        writer.close()
        with open(path, "rb") as file:
            content = file.read()
    head = json.dumps({"groups": groups, "modules": saved.imports}).encode()
    packed.data = b"".join([len(head).to_bytes(4, "big"), head, content])
    packed.sizes = {name: int(about["size"]) for name, about in saved.variables.items()}
    packed.packages |= {module.partition(".")[0] for module in saved.imports.values()}
    packed.lost = saved.lost
    return packed


def adopt(parts: Sequence[bytes], namespace: dict[str, Any]) -> dict[str, str]:
    """Put packed variables into the namespace of the present cell.

    Args:
        parts: the bytes of `pack`, in pieces.

    Returns:
        Name -> why it could not be restored here.
    """
    data = b"".join(parts)
    size = int.from_bytes(data[:4], "big")
    head = json.loads(data[4 : 4 + size])
    with tempfile.TemporaryDirectory(prefix="lyceum-") as folder:
        path = os.path.join(folder, _PACK)
        with open(path, "wb") as file:
            file.write(memoryview(data)[4 + size :])
        reader = PackReader(lambda _pack: path, True, Mapped())
        restored = Restored(head, reader, namespace)
        restored.restore({EVERYTHING}, head["groups"])
        reader.close()
    return restored.failed
