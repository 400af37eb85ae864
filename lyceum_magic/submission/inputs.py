"""The values that `--in` names -> packed values; the names of `--out`, checked."""

from __future__ import annotations

import ast
import builtins
import difflib
import dis
import functools
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..exceptions import OptionError
from ..protocol.sizes import in_words
from ..remote.refusals import MAX_BYTES, PackError, TooLarge
from ..remote.values import Packer
from .names import names_bound, names_read

#: Above this, the user must add `--yes`.
ASK_BYTES = 1024 * 1024
AUTO = "auto"
#: Names that IPython and Python bind again and again; a result, such as `_` and `_3`, is a value.
_OF_SHELL = re.compile(r"_i{1,3}|_i\d+|_[iod]h|_exit_code|__\w+__")
#: Types whose values are made of code, which no codec carries.
_OF_CODE = (
    type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial,
    functools._lru_cache_wrapper,
)  # fmt: skip
_NOTHING = object()
_NOTHING_OF_SHELL: Mapping[str, object] = {}


@dataclass(frozen=True)
class PackedInputs:
    """Values ready to travel.

    Attributes:
        packed: name -> the value as `remote.values` packs it.
        needs: the modules that unpacking imports.
        left_out: values that `auto` found and cannot send, one sentence each.
        changed: the values that arrive as something else, one sentence each.
    """

    packed: Mapping[str, bytes] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each value in bytes, uncompressed."""
        return {name: len(data) for name, data in self.packed.items()}


def choose_inputs(
    names: Iterable[str],
    tree: ast.Module | None,
    namespace: Mapping[str, object],
    *,
    allow_pickle: bool = False,
    of_shell: Mapping[str, object] = _NOTHING_OF_SHELL,
) -> PackedInputs:
    """Pack the values of `--in`.

    Args:
        names: as the option gives them; `auto` stands for the notebook's variables that the cell
            reads before it binds them, and for those that functions among these read. A variable
            called `auto` cannot be named.
        tree: the cell's; None where this Python cannot parse it.
        namespace: the notebook's.
        of_shell: the names that IPython itself has put there, which `auto` leaves out.

    Raises:
        OptionError: the notebook has no such name, or a value cannot travel.
    """
    named = [name for name in names if name != AUTO]
    for name in named:
        if name not in namespace:
            known = [known for known in namespace if not known.startswith("_")]
            close = difflib.get_close_matches(name, known)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise OptionError(f"--in: the notebook has no variable {name}.{hint}")
    found: list[str] = []
    left_out: list[str] = []
    if AUTO in names:
        found, left_out = _found_by_itself(named, tree, namespace, of_shell, allow_pickle)
    values = {name: namespace[name] for name in [*named, *found]}
    inputs = pack_values(values, allow_pickle=allow_pickle)
    return replace(inputs, left_out=tuple(left_out))


def _found_by_itself(
    named: list[str],
    tree: ast.Module | None,
    namespace: Mapping[str, object],
    of_shell: Mapping[str, object],
    allow_pickle: bool,
) -> tuple[list[str], list[str]]:
    """Return the names that `auto` adds, and a sentence for each that it leaves out."""
    found: list[str] = []
    left_out: list[str] = []
    left = [*names_read(tree), *(read for name in named for read in _read_by(namespace[name]))]
    seen = set(named)
    while left:
        name = left.pop(0)
        if name in seen or not _is_users(name, namespace, of_shell):
            continue
        seen.add(name)
        value = namespace[name]
        if isinstance(value, _OF_CODE) and not allow_pickle:
            what = "class" if isinstance(value, type) else "function"
            left_out.append(f"{name} is a {what}, which only --pickle would send")
        else:
            found.append(name)
            left += _read_by(value)
    return found, left_out


def pack_values(values: Mapping[str, object], *, allow_pickle: bool = False) -> PackedInputs:
    """Pack values for a cell's namespace.

    Raises:
        OptionError: a name that is none, a value that cannot travel, or more than 10 MiB.
    """
    packer = Packer(allow_pickle=allow_pickle, apart=values.keys())
    packed = {}
    for name, value in values.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise OptionError(f"inputs takes names of variables, not {name!r}.")
        try:
            packed[name] = packer.pack(name, value)
        except TooLarge as exc:
            raise OptionError(
                f"--in: {exc}: {MAX_BYTES >> 20} MiB in all may travel with a cell; put it in the "
                "account's storage, and read it there."
            ) from None
        except PackError as exc:
            raise OptionError(f"--in: {exc}.") from exc.__cause__
    return PackedInputs(packed, frozenset(packer.needs), (), tuple(packer.changed.values()))


def check_load(sizes: Mapping[str, int], *, may_be_large: bool) -> None:
    """Check that values and files are small enough to travel.

    Args:
        sizes: name -> bytes of all values and files.
        may_be_large: whether the user has agreed to more than 1 MiB.

    Raises:
        OptionError: they are not; it names the sizes.
    """
    total = sum(sizes.values())
    if total <= ASK_BYTES:
        return
    said = f"Values and files take {in_words(total, is_binary=True)} ({_largest(sizes)})"
    if total > MAX_BYTES:
        raise OptionError(
            f"{said}, and at most {MAX_BYTES >> 20} MiB travel with a cell; put the large ones in "
            "the account's storage, and read them there."
        )
    if not may_be_large:
        raise OptionError(f"{said}; add --yes to send more than {ASK_BYTES >> 20} MiB.")


def check_outputs(tree: ast.Module | None, names: Iterable[str], inputs: Iterable[str]) -> None:
    """Check that the cell can bind the names of `--out`.

    Raises:
        OptionError: it cannot; it names the name, and names like it that the cell binds.
    """
    names = list(names)
    bound = names_bound(tree) if names else None
    if bound is None:
        return
    bound |= set(inputs)
    for name in names:
        if name not in bound:
            close = difflib.get_close_matches(name, bound)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise OptionError(f"--out: the cell never sets {name}.{hint}")


def list_sizes(sizes: Mapping[str, int], *, is_binary: bool = False) -> str:
    """Return names with their sizes in words; see `sizes.in_words`."""
    words = (f"{name} {in_words(size, is_binary=is_binary)}" for name, size in sizes.items())
    return ", ".join(words)


def _largest(sizes: Mapping[str, int]) -> str:
    ordered = sorted(sizes, key=lambda name: -sizes[name])
    more = f", and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return list_sizes({name: sizes[name] for name in ordered[:5]}, is_binary=True) + more


def _is_users(name: str, namespace: Mapping[str, object], of_shell: Mapping[str, object]) -> bool:
    if name not in namespace or _OF_SHELL.fullmatch(name):
        return False
    value = namespace[name]
    if isinstance(value, types.ModuleType):
        return False
    same = (getattr(builtins, name, _NOTHING), of_shell.get(name, _NOTHING))
    return all(value is not other for other in same)


def _read_by(value: object) -> list[str]:
    """Return the global names that a function, a class or an object of one reads, in order."""
    names: dict[str, None] = {}
    left: list[object] = [value]
    seen: set[int] = set()
    while left:
        part = left.pop(0)
        if id(part) in seen:
            continue
        seen.add(id(part))
        match part:
            case types.FunctionType():
                if part.__module__ == "__main__":
                    names |= dict.fromkeys(_globals_in(part.__code__))
                left += [*(part.__defaults__ or ()), *(part.__kwdefaults__ or {}).values()]
                left += [cell.cell_contents for cell in part.__closure__ or () if _is_full(cell)]
            case types.MethodType():
                left += [part.__func__, part.__self__]
            case staticmethod() | classmethod():
                left.append(part.__func__)
            case property():
                left += [part.fget, part.fset, part.fdel]
            case functools._lru_cache_wrapper():
                left.append(part.__wrapped__)
            case functools.partial():
                left += [part.func, *part.args, *part.keywords.values()]
            case type():
                if part.__module__ == "__main__":
                    left += [*part.__bases__, *vars(part).values()]
            case _:
                left.append(type(part))
    return list(names)


def _globals_in(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_in(constant)


def _is_full(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - it raises where it is empty
    except ValueError:
        return False
    return True
