"""Code of a cell -> the names that it may use, so that a restore can leave out the rest."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types

#: Stands for all names.
EVERYTHING = "*"
#: With these, code reaches names that it does not spell.
_REACHING = frozenset(
    {"__main__", "dir", "eval", "exec", "f_globals", "globals", "locals", "modules", "vars"}
    | {"reset", "run", "who", "who_ls", "whos"}
)
#: Names of this kind are looked for in texts as well: `df.query("@k")`, `%timeit f(x)`.
_NAME = re.compile(r"[^\W\d]\w*")
#: Longer texts of functions are not kept name by name.
_MAX_NAMES = 2000


def used_names(codes: list[types.CodeType]) -> set[str]:
    """Return the names that code may use; EVERYTHING is among them if that cannot be said.

    Attributes count too, and words in texts: a name too many only costs time.
    """
    names: set[str] = set()
    for code in codes:
        _collect(code, names)
    if names & _REACHING:
        names.add(EVERYTHING)
    return names


def names_of_function(code: types.CodeType) -> set[str]:
    """Return what `used_names` does for a function's code, whose first text is its docstring."""
    names: set[str] = set()
    _collect(code, names, skip_docstring=True)
    if names & _REACHING or len(names) > _MAX_NAMES:
        return {EVERYTHING}
    return names


def _collect(code: types.CodeType, names: set[str], *, skip_docstring: bool = False) -> None:
    names.update(code.co_names)
    for number, constant in enumerate(code.co_consts):
        if hasattr(constant, "co_names"):
            _collect(constant, names, skip_docstring=True)
        elif isinstance(constant, (str, tuple, frozenset)) and not (skip_docstring and number == 0):
            _collect_words(constant, names)


def _collect_words(constant: object, names: set[str]) -> None:
    if isinstance(constant, str):
        names.update(_NAME.findall(constant))
    elif isinstance(constant, (tuple, frozenset)):
        for item in constant:
            _collect_words(item, names)
