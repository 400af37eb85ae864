"""`%` and `!` lines where the cell runs."""

from __future__ import annotations


def install_shell(namespace: dict[str, object]) -> None:
    raise NotImplementedError
