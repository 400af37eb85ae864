"""The exception that ended the cell -> a description of it, for `outputs.tracebacks`."""

from __future__ import annotations

import builtins
import contextlib
import sys
import threading
import types

from . import frames, own_file
from .own_file import called_cell, is_ours, without_ours

PACKAGE = __name__.rpartition(".")[0]
#: Maximum characters of a message that are sent; the rest is only counted.
MAX_TEXT = 20_000
#: Maximum exceptions in one chain with its groups; frames of one traceback, half at each end.
MAX_EXCEPTIONS = 100
MAX_FRAMES = 3000
#: Lines of a file that are sent before and after the one that raised.
LINES_AROUND = 5


def report(
    error: BaseException, trace: types.TracebackType | None, name: str, *, is_sent: bool
) -> None:
    """Report the exception that ended the program, without frames of this package or of asyncio.

    Args:
        name: the cell's name in tracebacks.
        is_sent: whether it is sent as a frame; else it is printed, as Python would.
    """
    trace = from_cell(trace, name)
    is_of_cell = trace is not None and trace.tb_frame.f_code.co_filename == name
    if isinstance(error, SyntaxError) and not is_of_cell:
        trace = None  # the cell itself could not be compiled: nothing of it has run
    trace = without_ours(trace)
    try:
        say(error, trace, name, is_sent=is_sent)
    except Exception:  # noqa: BLE001 - a class of the program may raise at any question
        sys.__excepthook__(type(error), error.with_traceback(trace), trace)
    if type(error) is KeyboardInterrupt:
        # The interpreter remembers that an interrupt ended it, for its exit code; every import
        # that evaluates a string, as that of `traceback` does, has made it forget.
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")


def say(
    error: BaseException, trace: types.TracebackType | None, name: str, *, is_sent: bool
) -> None:
    """See `report`."""
    import traceback

    is_shown, xmode = False, ""
    if f"{PACKAGE}.shell" in sys.modules:
        from . import shell

        is_shown, xmode = is_sent and shell.show_end(error, trace), shell.xmode()
    error.__traceback__ = trace
    for linked in linked_with(error):
        linked.__traceback__ = without_ours(linked.__traceback__)
    try:
        text = called_cell("".join(traceback.format_exception(type(error), error, trace)))
    except Exception:  # noqa: BLE001 - a function that the cell has replaced, or its own class's
        text = f"{type(error).__name__}: {text_of(error)}\n"
    if is_sent:
        described = {**describe(error, name), "is_shown": is_shown, "xmode": xmode}
        frames.send("raised", described, readable=text, descriptor=2)
    elif sys.stderr is not None:
        sys.stderr.write(text)


def from_cell(trace: types.TracebackType | None, name: str) -> types.TracebackType | None:
    """Return the traceback from the first frame of the cell, or else from the first of ours."""
    for is_first in (lambda frame: frame.f_code.co_filename == name, is_ours):
        inner = trace
        while inner is not None and not is_first(inner.tb_frame):
            inner = inner.tb_next
        if inner is not None:
            return inner
    return trace


def linked_with(error: BaseException) -> list[BaseException]:
    """Return the error, its causes and contexts, the members of its groups, and theirs."""
    found: dict[int, BaseException] = {}
    waiting: list[object] = [error]
    while waiting and len(found) < MAX_EXCEPTIONS:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in found:
            found[id(one)] = one
            waiting += [one.__cause__, one.__context__, *members_of(one)]
    return list(found.values())


def members_of(error: BaseException) -> tuple[object, ...]:
    group = getattr(builtins, "BaseExceptionGroup", ())  # from Python 3.11 on
    return tuple(error.exceptions) if isinstance(error, group) else ()


def describe(error: BaseException, name: str) -> dict[str, object]:
    """Return the error as data, without any value of the program except its messages.

    Returns:
        `exceptions`: each one linked with the error, which is the first; they name each other by
        their places in this list. `files`: name -> line number -> text, as far as tracebacks show
        them. `cell`: the cell's name in `files`. `folder`: of the modules that came with it.
        `python`: the version that raised it.
    """
    linked = linked_with(error)
    places = {id(one): place for place, one in enumerate(linked)}
    files: dict[str, dict[int, str]] = {}
    return {
        "exceptions": [describe_one(one, places, files, name) for one in linked],
        "files": files,
        "cell": name,
        "folder": plain(own_file.program.rpartition("/")[0]),
        "python": "{}.{}.{}".format(*sys.version_info),
    }


def describe_one(
    error: BaseException, places: dict[int, int], files: dict[str, dict[int, str]], name: str
) -> dict[str, object]:
    kind = type(error)
    builtin = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    notes = member(error, "__notes__")
    args = member(error, "args")
    described: dict[str, object] = {
        "type": kind.__qualname__,
        "module": kind.__module__,
        "builtin": builtin.__name__,
        "value": text_of(error),
        "notes": [text_of(note) for note in notes] if isinstance(notes, list) else [],
        "cause": places.get(id(error.__cause__)),
        "context": places.get(id(error.__context__)),
        "suppress_context": error.__suppress_context__,
        "members": [places[id(one)] for one in members_of(error) if id(one) in places],
        **describe_frames(error.__traceback__, files, name),
    }
    if members_of(error):
        described["message"] = text_of(member(error, "message"))
    if isinstance(error, SyntaxError):
        fields = ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset")
        described["syntax"] = {key: plain(member(error, key)) for key in fields}
    elif isinstance(error, (NameError, ImportError)):
        described["name"] = plain(member(error, "name"))  # of a NameError from 3.10 on
    elif isinstance(error, OSError):
        described["filename"] = plain(member(error, "filename"))
    if isinstance(args, tuple) and all(plain(one) is one for one in args):
        described["args"] = list(args)
    return described


def describe_frames(
    trace: types.TracebackType | None, files: dict[str, dict[int, str]], name: str
) -> dict[str, object]:
    """Return `places`, each different place once, and `calls`, their numbers, outermost first."""
    steps = []
    while trace is not None:
        steps.append(trace)
        trace = trace.tb_next
    omitted = max(0, len(steps) - MAX_FRAMES)
    if omitted:
        steps[MAX_FRAMES // 2 : -MAX_FRAMES // 2] = []
    places: dict[tuple[types.CodeType, int], int] = {}
    described = []
    calls = []
    for step in steps:
        code = step.tb_frame.f_code
        if (code, step.tb_lasti) not in places:
            places[code, step.tb_lasti] = len(places)
            described.append(describe_frame(step))
            remember_lines(step, files, name)
        calls.append(places[code, step.tb_lasti])
    return {"places": described, "calls": calls, "omitted": omitted}


def describe_frame(step: types.TracebackType) -> dict[str, object]:
    code = step.tb_frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    arguments = list(code.co_varnames[:count])
    for flag, stars in ((4, "*"), (8, "**")):  # CO_VARARGS, CO_VARKEYWORDS
        if code.co_flags & flag:
            arguments.append(stars + code.co_varnames[count])
            count += 1
    columns: list[object] = []
    if sys.version_info >= (3, 11):
        columns = list(list(code.co_positions())[step.tb_lasti // 2])
    return {
        "file": code.co_filename,
        "line": step.tb_lineno,
        "first": code.co_firstlineno,
        "name": code.co_name,
        "qualname": getattr(code, "co_qualname", ""),  # from Python 3.11 on
        "arguments": arguments,
        "module": plain(step.tb_frame.f_globals.get("__name__")),
        "position": columns,
    }


def remember_lines(step: types.TracebackType, files: dict[str, dict[int, str]], name: str) -> None:
    import linecache

    file, line = step.tb_frame.f_code.co_filename, step.tb_lineno or 0
    try:
        lines = linecache.getlines(file, step.tb_frame.f_globals)
    except Exception:  # noqa: BLE001 - a function that the cell has replaced
        lines = []
    remembered = files.setdefault(file, {})
    first, last = max(1, line - LINES_AROUND), min(len(lines), line + LINES_AROUND)
    if file == name:
        first, last = 1, len(lines)
    for number in range(first, last + 1):
        remembered[number] = cut(lines[number - 1].rstrip("\n"))


def member(error: BaseException, name: str) -> object:
    """Return an attribute of the exception; None if reading it raises."""
    try:
        return getattr(error, name, None)
    except Exception:  # noqa: BLE001 - it is the program's own property
        return None


def plain(value: object) -> object:
    """Return the value if JSON expresses it exactly and it is short, else None."""
    if type(value) is str:
        return value if len(value) < 1000 else None
    if type(value) is int:
        return value if value.bit_length() < 1000 else None
    return value if type(value) in (bool, float) else None


def text_of(value: object) -> str:
    """Return the value of an exception as Python shows it, whatever its `__str__` does."""
    try:
        return cut(str(value))
    except BaseException:  # noqa: BLE001 - it is the program's own method
        return "<exception str() failed>"


def cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}... ({len(text) - MAX_TEXT:,} more characters)"


def print_thread_error(what: threading.ExceptHookArgs) -> None:
    """Print an exception as `threading.excepthook` does."""
    if what.exc_type is not SystemExit:
        thread = what.thread.name if what.thread is not None else threading.get_ident()
        print_error(f"Exception in thread {thread}:", what)


def print_ignored_error(what: sys.UnraisableHookArgs) -> None:
    """Print an exception as `sys.unraisablehook` does."""
    print_error(f"{what.err_msg or 'Exception ignored in'}: {what.object!r}", what)


def print_error(title: str, what: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> None:
    import traceback

    lines = traceback.format_exception(what.exc_type, what.exc_value, what.exc_traceback)
    if sys.stderr is not None:
        sys.stderr.write(called_cell("".join([f"{title}\n", *lines])))
