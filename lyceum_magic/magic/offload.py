"""`%lyceum offload on`: cells without a magic of ours -> cells of a session, until it is off."""

from __future__ import annotations

from typing import Any

#: The mark at the end of a line that this module has written; a comment to the parser.
MARK = "# offloaded"

#: First words of the cells that run in the notebook all the same.
_OURS = ("%lyceum", "%%lyceum")
_LOADING = ("%load_ext lyceum_magic", "%reload_ext lyceum_magic", "%unload_ext lyceum_magic")


def is_offloaded(line: str) -> bool:
    """Return whether a magic's line was written here, for a cell that has no such line."""
    return line.endswith(MARK)


def is_on(shell: Any) -> bool:
    """Return whether cells run elsewhere."""
    return bool(_transforms(shell))


def switch_on(shell: Any, line: str) -> None:
    """Run the following cells by `%%lyceum` with a line of options."""
    switch_off(shell)

    def offload(lines: list[str]) -> list[str]:
        return offloaded(lines, line)

    offload.is_lyceum = True  # type: ignore[attr-defined]
    shell.input_transformers_cleanup.append(offload)


def switch_off(shell: Any) -> None:
    """Run the following cells in the notebook."""
    for transform in _transforms(shell):
        shell.input_transformers_cleanup.remove(transform)


def offloaded(lines: list[str], line: str) -> list[str]:
    """Return the lines of a cell as they run: as a cell of ours, unless it is for the notebook."""
    first = next((text.strip() for text in lines if text.strip()), "")
    if not first or first.startswith((*_OURS, *_LOADING)):
        return lines
    text = "".join(lines)
    call = f"get_ipython().run_cell_magic('lyceum', {f'{line} {MARK}'!r}, {text!r})\n"
    return [call]


def _transforms(shell: Any) -> list[Any]:
    return [
        known
        for known in shell.input_transformers_cleanup
        if getattr(known, "is_lyceum", False)
    ]  # fmt: skip
