"""Values on their way there and back."""

from __future__ import annotations


def restore_inputs(packed: str) -> dict[str, object]:
    raise NotImplementedError


def send_outputs(names: list[str], namespace: dict[str, object], *, allow_pickle: bool) -> None:
    raise NotImplementedError
