"""One option of a run, declared once: its flags, its default, its help, and its place on the wire.

A spec (see `specs`) is a frozen dataclass whose fields are made by `option` and `line_option`. From
these fields come the parser of a magic, the signature and the documentation of `submit*`, the rows
of `--dry-run`, completion, and the tables of the README.
"""

from __future__ import annotations

import argparse
import keyword
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, TypeVar, dataclass_transform

from ..exceptions import OptionError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Option:
    """The facts of an option beside its name, type and default.

    Attributes:
        flags: the flags in a magic's line; a name without dashes is positional; empty: the magics
            do not offer it.
        help: a phrase for the magic's help and the README.
        doc: a phrase for the documentation of `submit*`; by default `help`.
        more: a sentence that the README adds.
        switches: flag -> (value, help), for an option that has one flag for each value.
        argument: further arguments of `argparse.ArgumentParser.add_argument`.
        read: makes the option's value of a flag and the words that follow it.
        problem: describes a wrong value, in words that follow the option's name; empty: it is fine.
        offers: values to offer for completion, beside which others are allowed.
        row: the heading of its row in `--dry-run`; empty: it has none.
        text: makes the row's text of a spec; by default it is the option's value.
        wire: the field of the start request that takes its value; empty: no field does.
        to_wire: makes the field's value of the option's.
    """

    flags: tuple[str, ...]
    help: str
    doc: str = ""
    more: str = ""
    switches: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    argument: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[str, Any], Any] | None = None
    problem: Callable[[Any], str] | None = None
    offers: Sequence[str] = ()
    row: str = ""
    text: Callable[[Any], str] | None = None
    wire: str = ""
    to_wire: Callable[[Any], object] | None = None

    @property
    def label(self) -> str:
        """The flags as error messages name them, such as `-t/--timeout`."""
        return "/".join(self.flags or self.switches)


_OF_ARGPARSE = {"action", "choices", "const", "metavar", "nargs", "type"}


def option(
    *flags: str, default: Any = MISSING, kw_only: bool = True, repr: bool = True, **members: Any
) -> Any:
    """Declare an option that `submit*` offers, and a magic too if it has flags.

    Args:
        members: those of `Option`, and arguments of `argparse.ArgumentParser.add_argument`.
    """
    declared = _declared(flags, default, members)
    return field(default=default, kw_only=kw_only, repr=repr, metadata={"option": declared})


def line_option(*flags: str, default: Any, init: Literal[False] = False, **members: Any) -> Any:
    """Declare an option that the magics alone offer; the arguments are as for `option`."""
    return field(
        default=default, init=init, metadata={"option": _declared(flags, default, members)}
    )


def _declared(flags: tuple[str, ...], default: object, members: dict[str, Any]) -> Option:
    argument = {name: members.pop(name) for name in _OF_ARGPARSE & set(members)}
    if isinstance(default, bool):  # a flag without a value says the opposite
        argument.setdefault("action", "store_false" if default else "store_true")
    if "choices" in argument:
        members.setdefault("problem", one_of(*argument["choices"]))
    return Option(flags=flags, argument=argument, **members)


@dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(option, line_option, field)
)
def spec(cls: type[T]) -> type[T]:
    """Make a class of options a frozen dataclass with keyword arguments."""
    # Making methods takes time, and a class that belongs to no magic has no instances.
    has = hasattr(cls, "magic")
    return dataclass(frozen=True, kw_only=True, init=has, repr=has, eq=has)(cls)


def options_of(kind: Any) -> Iterator[tuple[Field[Any], Option]]:
    """Yield the options of a spec's class or instance, in the order of its arguments."""
    for one in fields(kind):
        if (declared := one.metadata.get("option")) is not None:
            yield one, declared


def own_first(kind: type) -> list[tuple[Field[Any], Option]]:
    """Return the options of a spec's class: its own, then those that it shares with others."""
    order = [name for cls in kind.__mro__ for name in vars(cls).get("__annotations__", ())]
    return sorted(options_of(kind), key=lambda found: order.index(found[0].name))


def row_of(spec: Any, name: str, declared: Option) -> tuple[str, list[str]]:
    """Return the heading and the lines of an option in `--dry-run`."""
    value = declared.text(spec) if declared.text else getattr(spec, name)
    if isinstance(value, Mapping):
        value = "\n".join(f"{key}={text}" for key, text in value.items())
    elif not isinstance(value, str):
        value = ", ".join(value or ())
    return declared.row, value.split("\n")


# Readers: a flag and the words after it -> the option's value.


def read_pairs(advice: str = "") -> Callable[[str, list[str]], dict[str, str]]:
    """Return a reader of KEY=VALUE; of several values for a key the last one counts."""

    def read(flag: str, texts: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            if not equals or not key.strip():
                raise OptionError(f"{flag} takes KEY=VALUE, not {text!r}{advice}.")
            found[key.strip()] = value
        return found

    return read


def read_names(flag: str, lists: list[str]) -> tuple[str, ...]:
    """Return the names in comma-separated lists, each once, in their order."""
    names = [name.strip() for text in lists for name in text.split(",") if name.strip()]
    for name in names:
        if problem_of_name(name):
            raise OptionError(f"{flag} takes names such as a,b, not {name!r}.")
    if not names:
        raise OptionError(f"{flag} takes names such as a,b, and no name was given.")
    return tuple(dict.fromkeys(names))


def read_requirements(_flag: str, words: list[str]) -> tuple[str, ...]:
    """Return the words without the commas between them."""
    # A requirement may hold a comma, but not as its last character.
    return tuple(word.rstrip(",") or word for word in words)


def whole_number(text: str) -> int:
    """Return a whole number.

    Raises:
        argparse.ArgumentTypeError: the text is not one.
    """
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number is expected, not {text!r}") from None


def dollars(text: str) -> float:
    """Return a sum of dollars such as `0.50` or `$2`.

    Raises:
        argparse.ArgumentTypeError: the text is not one, or the sum is not above 0.
    """
    try:
        dollars = float(text.removeprefix("$"))
    except ValueError:
        dollars = float("nan")
    if not 0 < dollars < float("inf"):
        raise argparse.ArgumentTypeError(f"a sum such as 0.50 is expected, not {text!r}")
    return dollars


# Checks: a value -> its problem, in words that follow the option's name; empty if it has none.


def between(least: int, most: int, advice: str = "") -> Callable[[object], str]:
    """Return a check for a whole number of seconds."""

    def problem(value: object) -> str:
        if value is None or (isinstance(value, int) and least <= value <= most):
            return ""
        return f"takes {least} to {most} seconds, not {value!r}{advice}"

    return problem


def at_most(most: int, what: str) -> Callable[[Any], str]:
    """Return a check for the number of items."""
    return lambda value: (
        f"takes at most {most} {what}, not {len(value)}"
        if isinstance(value, Sized) and len(value) > most
        else ""
    )


def one_of(*choices: str) -> Callable[[object], str]:
    """Return a check for one of several words."""
    quoted = [f'"{choice}"' for choice in choices]
    listed = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
    return lambda value: (
        "" if value is None or value in choices else f"takes {listed}, not {value!r}"
    )


def problem_of_name(value: object) -> str:
    """Return the problem of a variable's name."""
    if value is None or (
        isinstance(value, str) and value.isidentifier() and not keyword.iskeyword(value)
    ):
        return ""
    return f"takes a Python name, not {value!r}"


def problem_of_budget(value: object) -> str:
    """Return the problem of a sum of dollars."""
    if value is None or (isinstance(value, int | float) and 0 < value < math.inf):
        return ""
    return f"takes dollars such as 0.50, not {value!r}"
