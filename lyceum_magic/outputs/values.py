"""Packed `--out` values -> the values, each made at its first use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..exceptions import TransferError
from ..remote.refusals import UnpackError
from ..remote.values import unpack
from .decoding import Value


class Values(Mapping[str, Any]):
    """The values that a run sent back, by name; each is made at its first use.

    A value that could not travel is not among the names; looking it up raises the reason.

    Attributes:
        source: the packed values; may still grow.
        allow_pickle: whether a value may be a pickle, which runs any code of its maker.
        came_along: the names that functions among the values have brought into `__main__`, because
            they read them and they were missing there.
    """

    def __init__(self, source: Mapping[str, Value], *, allow_pickle: bool = False) -> None:
        self.source = source
        self.allow_pickle = allow_pickle
        self.came_along: list[str] = []
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Return a value, made now if this is its first use.

        Raises:
            KeyError: no value of that name came.
            TransferError: it could not travel, or cannot be made here.
        """
        if name not in self._made:
            value = self.source[name]
            if value.problem:
                raise TransferError(f"{value.problem}.")
            try:
                self._made[name] = unpack(
                    value.data, allow_pickle=self.allow_pickle, came_along=self.came_along
                )
            except UnpackError as exc:
                raise TransferError(f"{name}: {exc}.") from exc.__cause__
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in set(self)

    def __iter__(self) -> Iterator[str]:
        return (name for name, value in list(self.source.items()) if not value.problem)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Values {', '.join(self) or '(none)'}>"
