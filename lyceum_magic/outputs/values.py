"""`--out` values as they came -> the values, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..exceptions import TransferError
from ..remote.refusals import UnpackError
from ..remote.values import unpack
from .decoding import Value


class Values(Mapping[str, Any]):
    """The values that a run sent home, by name; each is made at its first use.

    Those that could not travel are not among the names; asking for one says why.

    Attributes:
        source: what came; may still grow.
        allow_pickle: whether a value may be a pickle, which runs what its maker wanted.
        came_along: the names that functions among the values have brought into `__main__`, since
            they read them and it lacked them.
    """

    def __init__(self, source: Mapping[str, Value], *, allow_pickle: bool = False) -> None:
        self.source = source
        self.allow_pickle = allow_pickle
        self.came_along: list[str] = []
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """
        Raises:
            KeyError: none of that name came.
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
