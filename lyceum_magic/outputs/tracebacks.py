"""The description of a remote exception -> an exception that prints as the original did.

The description comes from `remote.errors.describe`. The run wrote it and is not trusted: any part
that is not of the expected form is left out.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import linecache
import os
import re
import stat
import sys
import traceback
import types
from collections.abc import Iterable, Mapping
from typing import Any

from ..protocol.surrogates import without_surrogates
from .decoding import Raised

#: Limits of the exception that is rebuilt; the rest is left out.
MAX_EXCEPTIONS = 100
MAX_FRAMES = 3000  # of one exception
MAX_ARGUMENTS = 1000  # of one frame
MAX_LINES = 1_000_000  # of all files, with those that were not sent
#: A longer file of this machine is not compared with the lines of the run's.
MAX_SOURCE_BYTES = 16 * 1024 * 1024
#: Maximum characters of a message in a headline.
MAX_HEADLINE = 200


def name_and_value(error: Mapping[str, Any]) -> tuple[str, str]:
    """Return the class name and message of the exception; empty if they are missing."""
    described = _list(error, "exceptions")
    if not described or not isinstance(described[0], dict):
        return "", ""
    return _text(described[0], "type").rpartition(".")[2], _text(described[0], "value")


def style(error: Mapping[str, Any]) -> str:
    """Return a mode of IPython's `%xmode`, "shown" if the cell has shown the error, or nothing."""
    return "shown" if error.get("is_shown") is True else _text(error, "xmode")


def headline(raised: Raised | None) -> str:
    """Return class and message of the exception in one line; empty if there is none."""
    ename, evalue = name_and_value(raised.error) if raised is not None else ("", "")
    message = evalue.strip().partition("\n")[0][:MAX_HEADLINE]
    return ": ".join(filter(None, (ename, message)))


def lines(exception: BaseException | None) -> list[str]:
    """Return the lines of an exception's traceback, as Python prints it; none for None."""
    return "".join(traceback.format_exception(exception)).splitlines() if exception else []


def text(error: Mapping[str, Any]) -> str:
    """Return the traceback of a described exception as text; empty if none is described."""
    return "".join(f"{line}\n" for line in lines(rebuild(error, "<cell>")))


def rebuild(error: Mapping[str, Any], cell_name: str) -> BaseException | None:
    """Return the exception, with its traceback, causes, contexts, notes and members.

    Its class is the builtin class if that can be built, else a new one of the same name and module,
    derived from the nearest builtin one.

    Args:
        cell_name: the cell's name in the traceback. The lines of the cell and of files that differ
            on this machine become known to `linecache`, under names that no file here has.

    Returns:
        None if nothing is described.
    """
    described = [one for one in _list(error, "exceptions") if isinstance(one, dict)]
    described = described[:MAX_EXCEPTIONS]
    if not described:
        return None
    names = _names_of_files(error, cell_name)
    rebuilt: dict[int, BaseException] = {}
    # A group is made of its members, which come after it.
    for place in reversed(range(len(described))):
        members = [rebuilt[at] for at in _list(described[place], "members") if at in rebuilt]
        rebuilt[place] = _exception(described[place], members, names)
    for place, one in enumerate(described):
        exception = rebuilt[place]
        exception.__traceback__ = _traceback(one, names)
        exception.__cause__ = _other(rebuilt, place, one.get("cause"))
        exception.__context__ = _other(rebuilt, place, one.get("context"))
        exception.__suppress_context__ = one.get("suppress_context") is True
        for note in _list(one, "notes"):
            if isinstance(note, str):
                exception.add_note(note)
    return rebuilt[0]


def _other(rebuilt: dict[int, BaseException], place: int, other: object) -> BaseException | None:
    # Only one after it, or the chain could become a circle.
    return rebuilt.get(other) if isinstance(other, int) and other > place else None


# Classes.


def _exception(
    one: Mapping[str, Any], members: list[BaseException], names: Mapping[str, str]
) -> BaseException:
    value = _text(one, "value")
    base = getattr(builtins, _name(one, "builtin"), None)
    if not isinstance(base, type) or not issubclass(base, BaseException):
        base = Exception
    if issubclass(base, BaseExceptionGroup):
        if members:
            return _group(one, base, members)
        base = Exception  # it is not whole
    if issubclass(base, SyntaxError) and isinstance(one.get("syntax"), dict):
        return _syntax_error(one, base, names)
    kind = base
    if one.get("module") != "builtins" or one.get("type") != base.__name__:
        kind = _class(one, base)
    arguments = one.get("args")
    for args in (arguments if isinstance(arguments, list) else [], [value]):
        try:
            exception = kind(*args)
            if str(exception) == value:
                return exception
        except Exception:  # noqa: BLE001 - the class decides what it takes, and how it says no
            continue
    kind = _class(one, base)
    kind.__str__ = lambda self: value  # type: ignore[method-assign]
    return kind.__new__(kind, value)


def _class(one: Mapping[str, Any], base: type[BaseException]) -> type[BaseException]:
    qualname = _name(one, "type") or "Exception"
    module = _name(one, "module")
    namespace = {"__module__": module, "__qualname__": qualname}
    return type(qualname.rpartition(".")[2], (base,), namespace)


def _group(
    one: Mapping[str, Any], base: type[BaseExceptionGroup[Any]], members: list[BaseException]
) -> BaseException:
    if not all(isinstance(member, Exception) for member in members):
        base = BaseExceptionGroup
    kind = base
    if one.get("module") != "builtins" or one.get("type") != base.__name__:
        kind = _class(one, base)  # type: ignore[assignment]
    return kind(_text(one, "message"), members)


def _syntax_error(
    one: Mapping[str, Any], base: type[SyntaxError], names: Mapping[str, str]
) -> BaseException:
    kind = base if one.get("type") == base.__name__ else _class(one, base)
    exception = kind(_text(one, "value"))
    syntax = one["syntax"]
    for field, wanted in (
        ("msg", str), ("filename", str), ("text", str),
        ("lineno", int), ("offset", int), ("end_lineno", int), ("end_offset", int),
    ):  # fmt: skip
        if isinstance(syntax.get(field), wanted):
            setattr(exception, field, syntax[field])
    exception.filename = names.get(exception.filename, exception.filename)  # type: ignore[attr-defined]
    return exception


# Lines.


def _names_of_files(error: Mapping[str, Any], cell_name: str) -> dict[str, str]:
    """Return the run's names of files -> names here, under which `linecache` has their lines."""
    names = {}
    room = MAX_LINES
    files = error.get("files")
    cell = _name(error, "cell")
    for said, texts in files.items() if isinstance(files, dict) else ():
        name, lines = _clean(said), _lines(texts)
        own = _name_of_own(name, error)
        if name == cell:
            names[name] = cell_name
        elif not lines or name.startswith("<"):
            names[name] = name
        elif (same := _same_here(own, lines) if own else _same([name], lines)) is not None:
            names[name] = same
            continue
        else:
            names[name] = f"<lyceum>{own or name}"
        if lines and max(lines) <= room:
            room -= max(lines)
            source = ["\n"] * max(lines)
            for at, text in lines.items():
                source[at - 1] = f"{text}\n"
            # Without a time of change, it is not looked for on disk.
            linecache.cache[names[name]] = (
                sum(map(len, source)), None, source, names[name],
            )  # fmt: skip
    names.setdefault(cell, cell_name)
    return names


def _name_of_own(name: str, error: Mapping[str, Any]) -> str:
    """Return the name of a module that travelled, below its import root; else an empty text."""
    folder = _name(error, "folder")
    own = name.removeprefix(f"{folder}/") if folder else name
    return own if own != name and ".." not in own.split("/") else ""


def _same_here(own: str, lines: Mapping[int, str]) -> str | None:
    """Return the file here from which a travelled module was read, if it has not changed."""
    files = []
    for folder in sys.path:
        with contextlib.suppress(OSError):  # the current one may be deleted
            files.append(os.path.abspath(os.path.join(folder, own)))
    return _same(files, lines)


def _same(files: Iterable[str], lines: Mapping[int, str]) -> str | None:
    """Return the first file that has these lines."""
    for file in files:
        if _is_source(file):
            linecache.checkcache(file)
            if all(linecache.getline(file, at).rstrip("\n") == text for at, text in lines.items()):
                return file
    return None


def _is_source(file: str) -> bool:
    """Return whether a file may be read: the run names it, and may name a pipe or a device."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return False
    return (
        os.path.isabs(file)  # any other one `linecache` looks for in places of its own
        and stat.S_ISREG(found.st_mode)
        and 0 < found.st_size <= MAX_SOURCE_BYTES  # what the system makes up has no size
    )


def _lines(texts: object) -> dict[int, str]:
    if not isinstance(texts, dict):
        return {}
    return {
        int(number): _clean(text)
        for number, text in texts.items()
        if re.fullmatch(r"[1-9]\d{0,6}", number) and isinstance(text, str)
    }


# Tracebacks.


class _NotSent:
    """An argument in a frame: values stay where they are."""

    def __repr__(self) -> str:
        return "(not sent)"


def _traceback(one: Mapping[str, Any], names: Mapping[str, str]) -> types.TracebackType | None:
    """Return a traceback of real frames: Python makes no others.

    Those of tblib lack the columns, which Python and IPython mark, and the arguments, which IPython
    lists.
    """
    described = [place for place in _list(one, "places") if isinstance(place, dict)]
    places = [_raiser(place, names) for place in described[:MAX_FRAMES]]
    first: types.TracebackType | None = None
    for call in reversed(_list(one, "calls")[:MAX_FRAMES]):
        if isinstance(call, int) and 0 <= call < len(places):
            function, arguments = places[call]
            try:
                function(*arguments)
            except _RaisedThere as raised:
                step = raised.__traceback__ and raised.__traceback__.tb_next
                assert step is not None
                step.tb_next = first
                first = step
    return first


class _RaisedThere(Exception):
    """The exception that the frames of a rebuilt traceback raise."""


def _raiser(
    place: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[types.FunctionType, list[_NotSent]]:
    """Return a function that raises at this place, and its arguments."""
    line = place.get("line")
    line = line if isinstance(line, int) and 0 < line < 1 << 24 else 1
    first = place.get("first")
    stars, arguments = _arguments(place)
    signature = ", ".join(f"{star}a{at}" for at, star in enumerate(stars))
    tree = ast.parse(f"def f({signature}): raise {_RaisedThere.__name__}")
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.expr | ast.arg):
            node.lineno = line
            node.end_lineno, node.col_offset, node.end_col_offset = _position(place, line)
    if isinstance(first, int) and 0 < first <= line:
        tree.body[0].lineno = first
    file = _name(place, "file")
    constants = compile(tree, names.get(file, file), "exec").co_consts
    code = next(constant for constant in constants if isinstance(constant, types.CodeType))
    name = _name(place, "name") or "?"
    code = code.replace(
        co_name=name,
        co_qualname=_name(place, "qualname") or name,
        co_varnames=arguments,  # not all are identifiers
    )
    scope = {"__name__": _name(place, "module"), _RaisedThere.__name__: _RaisedThere}
    return types.FunctionType(code, scope), [_NotSent() for star in stars if not star]


def _arguments(place: Mapping[str, Any]) -> tuple[list[str], tuple[str, ...]]:
    """Return the stars and names of a function's parameters; nothing if they are impossible."""
    arguments = [name for name in _list(place, "arguments") if isinstance(name, str)]
    arguments = [_clean(name) for name in arguments[:MAX_ARGUMENTS]]
    stars = [name[: len(name) - len(name.lstrip("*"))] for name in arguments]
    if not re.fullmatch(r"(-)*(\*-)?(\*\*-)?", "".join(f"{star}-" for star in stars)):
        return [], ()
    return stars, tuple(name.lstrip("*") for name in arguments)


def _position(place: Mapping[str, Any], line: int) -> tuple[int, int, int]:
    """Return end line, column and end column, in bytes; -1 for unknown columns."""
    match place.get("position"):
        case [int(first), int(last), int(column), int(end)] if (
            first == line <= last < 1 << 24
            and 0 <= column < 1 << 24
            and 0 <= end < 1 << 24
            and (line, column) <= (last, end)
        ):
            return last, column, end
    return line, -1, -1


def _list(described: Mapping[str, Any], member: str) -> list[Any]:
    value = described.get(member)
    return value if isinstance(value, list) else []


def _text(described: Mapping[str, Any], member: str) -> str:
    value = described.get(member)
    return value if isinstance(value, str) else ""


def _name(described: Mapping[str, Any], member: str) -> str:
    return _clean(_text(described, member))


def _clean(name: str) -> str:
    """Return a text that Python accepts as a line or as the name of a class, function or file."""
    return without_surrogates(name.replace("\0", "\N{REPLACEMENT CHARACTER}"))
