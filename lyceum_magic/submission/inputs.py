"""The values that `--in` names -> what travels with a cell; whether `--out` can be kept."""

from __future__ import annotations

import builtins
import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..exceptions import OptionError
from ..protocol.sizes import in_words
from .names import names_bound, names_read
from .there.refusals import MAX_BYTES, PackError, TooLarge
from .there.values import Packer

#: Above this, somebody has to say yes.
ASK_BYTES = 1024 * 1024
AUTO = "auto"
_SHELL_NAMES = {"In", "Out", "exit", "quit", "get_ipython", "open", "display"}


@dataclass(frozen=True)
class PackedInputs:
    """Values ready to travel.

    Attributes:
        packed: name -> what `there.values` made of it.
        needs: the packages that unpacking takes, by the names they are imported by.
        left_out: what `auto` found and cannot send, one sentence each.
    """

    packed: Mapping[str, bytes] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Name -> bytes, uncompressed."""
        return {name: len(data) for name, data in self.packed.items()}


def choose_inputs(
    names: Iterable[str], code: str, namespace: Mapping[str, object], *, allow_pickle: bool = False
) -> PackedInputs:
    """The values of `--in`.

    Args:
        names: as the option gives them; `auto` stands for what the cell reads before it binds it,
            if the notebook has it. A variable called `auto` cannot be named.
        code: the cell, as Python.
        namespace: the notebook's.

    Raises:
        OptionError: a name that the notebook has not, or a value that cannot travel.
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
        for name in names_read(code):
            if name in named or not _is_users(name, namespace):
                continue
            value = namespace[name]
            if isinstance(value, types.FunctionType | type) and not allow_pickle:
                what = "class" if isinstance(value, type) else "function"
                left_out.append(f"{name} is a {what}, which only --pickle would send")
            else:
                found.append(name)
    values = {name: namespace[name] for name in [*named, *found]}
    inputs = pack_values(values, allow_pickle=allow_pickle)
    return PackedInputs(inputs.packed, inputs.needs, tuple(left_out))


def pack_values(values: Mapping[str, object], *, allow_pickle: bool = False) -> PackedInputs:
    """
    Raises:
        OptionError: a name that is none, a value that cannot travel, or more than 10 MiB.
    """
    packer = Packer(allow_pickle=allow_pickle)
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
    return PackedInputs(packed, frozenset(packer.needs))


def check_raw(chosen: Mapping[str, object]) -> None:
    """Refuses what only the wrapping of a cell could carry, for a cell that is not wrapped.

    Args:
        chosen: what the option or argument is called -> its value.

    Raises:
        OptionError: naming the first that says something.
    """
    for name, value in chosen.items():
        if value:
            raise OptionError(
                f"A cell that is sent raw goes as it is: {name} cannot go with it; leave out one "
                "of them."
            )


def check_load(sizes: Mapping[str, int], *, may_be_large: bool) -> None:
    """Refuses what is too much to travel.

    Args:
        sizes: name -> bytes of all values and files.
        may_be_large: whether somebody has said yes to more than 1 MiB.

    Raises:
        OptionError: with the sizes.
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


def check_outputs(code: str, names: Iterable[str], inputs: Iterable[str]) -> None:
    """Refuses `--out` names that the cell can never bind.

    Raises:
        OptionError: with the name, and names like it that the cell binds.
    """
    bound = names_bound(code)
    if bound is None:
        return
    bound |= set(inputs)
    for name in names:
        if name not in bound:
            close = difflib.get_close_matches(name, bound)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise OptionError(f"--out: the cell never sets {name}.{hint}")


def list_sizes(sizes: Mapping[str, int], *, is_binary: bool = False) -> str:
    """Names with their sizes in words; see `sizes.in_words`."""
    words = (f"{name} {in_words(size, is_binary=is_binary)}" for name, size in sizes.items())
    return ", ".join(words)


def _largest(sizes: Mapping[str, int]) -> str:
    ordered = sorted(sizes, key=lambda name: -sizes[name])
    more = f", and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return list_sizes({name: sizes[name] for name in ordered[:5]}, is_binary=True) + more


def _is_users(name: str, namespace: Mapping[str, object]) -> bool:
    if name not in namespace or name.startswith("_"):
        return False
    value = namespace[name]
    if isinstance(value, types.ModuleType):
        return False
    if name in _SHELL_NAMES and (callable(value) or name in ("In", "Out")):
        return False
    return getattr(builtins, name, _NOTHING) is not value


_NOTHING = object()
