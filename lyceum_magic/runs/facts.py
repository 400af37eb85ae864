"""Attributes of a run that are read where its state is kept."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Generic, NoReturn, Self, TypeVar, overload

T = TypeVar("T")


class Fact(Generic[T]):
    """A read-only attribute of a `Run` whose value is its `Following`'s.

    Args:
        path: below `run.following`, such as "entry.machine".
        doc: its docstring.
    """

    def __init__(self, path: str, doc: str) -> None:
        self._name = ""
        self._read = attrgetter(f"following.{path}")
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, run: None, owner: type) -> Self: ...
    @overload
    def __get__(self, run: object, owner: type) -> T: ...
    def __get__(self, run: object, owner: type) -> Any:
        return self if run is None else self._read(run)

    def __set__(self, run: object, value: object) -> NoReturn:
        raise AttributeError(f"{self._name} is what became of the run, and cannot be set")
