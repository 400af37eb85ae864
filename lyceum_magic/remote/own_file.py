"""The file of a cell on its machine, which libraries and tracebacks take for its source."""

from __future__ import annotations

import os
from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types

#: Only a cell with one of these words may look for its own file.
LOOKING = ("import", "exec", "eval", "open", "get_ipython")
#: The file that was sent, whose lines are ours, and the one with the cell's own.
program = path = ""
#: The beginning of the file names of this package's code.
OURS = "<lyceum-magic"


def give(cell: str, name: str, namespace: dict[str, object]) -> str:
    """Give the cell a file of its own, so that no line of ours is found as its source.

    Libraries open and stat the file that a function names (numba, joblib, memory_profiler). The
    file's folder has the name that a kernel uses, by which they recognise a notebook's cell.

    Args:
        name: the cell's name if no file can be written.
        namespace: of the program that was sent, in whose folder the file is written.

    Returns:
        The cell's name in tracebacks: the file's path.
    """
    global program, path
    # The interpreter or `runpy` has read the program; a loader would give it to `linecache`, as
    # the source of any frame with the cell's globals.
    namespace["__loader__"] = None
    program = os.path.abspath(str(namespace.get("__file__") or name))
    text = cell.encode("utf-8", "replace")
    folder = os.path.join(os.path.dirname(program), "__pycache__", f"ipykernel_{crc32(text)}")
    file_path = os.path.join(folder, "cell.py")
    # A third of a millisecond, which a cell that calls no library is spared.
    if any(word in cell for word in LOOKING):
        try:
            os.makedirs(folder, exist_ok=True)
            with open(file_path, "wb") as file:
                file.write(text)
        except OSError:
            return name
    namespace["__file__"] = path = file_path
    return path


def remember_lines(cell: str, name: str) -> None:
    """Let `linecache` know the cell's lines, and none of the program that was sent."""
    import linecache

    # Each line with its end, as `linecache` itself has them, or marks are drawn one place off.
    lines = (cell if cell.endswith("\n") else cell + "\n").splitlines(True)
    clear = linecache.clearcache

    def clearcache() -> None:
        clear()
        linecache.cache[name] = (len(cell), None, lines, name)
        # Relative names are looked for on `sys.path`, where the program lies.
        for ours in {program, os.path.basename(program)} - {"", name}:
            linecache.cache[ours] = (0, None, [], ours)

    clearcache()
    linecache.clearcache = clearcache


def without_ours(trace: types.TracebackType | None) -> types.TracebackType | None:
    while trace is not None and is_ours(trace.tb_frame):
        trace = trace.tb_next
    last = trace
    while last is not None and last.tb_next is not None:
        if is_ours(last.tb_next.tb_frame):
            last.tb_next = last.tb_next.tb_next
        else:
            last = last.tb_next
    return trace


def is_ours(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename.startswith(OURS) or (frame.f_code.co_filename == program)


def called_cell(text: str) -> str:
    """Return a traceback with a short name for the cell's file, whose path is long."""
    return text.replace(f'File "{path}"', 'File "<cell>"')
