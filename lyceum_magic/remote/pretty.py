"""An object -> the text that a notebook shows for it, laid out as IPython lays it out.

`Printer` is what an object's `_repr_pretty_(p, cycle)` gets: its public names are the protocol's.
"""

from __future__ import annotations

import io
import types
from collections import deque
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Optional

    Show = Callable[[Any, "Printer", bool], None]

MAX_WIDTH = 79
MAX_ITEMS = 1000


def pretty(value: object) -> str:
    """Return the text of `text/plain`.

    Raises:
        Exception: what the value's own methods raise.
    """
    output = io.StringIO()
    printer = Printer(output)
    printer.pretty(value)
    printer.flush()
    return output.getvalue()


class Group:
    """A stretch of text that is broken at all of its places or at none."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.breakables: deque[Breakable] = deque()
        self.want_break = False


class Breakable:
    """A place where a line may end; `text` is there if it does not."""

    def __init__(self, text: str, group: Group, indentation: int) -> None:
        self.text = text
        self.group = group
        self.indentation = indentation
        group.breakables.append(self)


class Printer:
    """A writer that writes as far as line ends are decided, and holds the rest.

    When a line becomes too long, the outermost group that can be broken is broken.
    """

    newline = "\n"
    verbose = False

    def __init__(self, output: io.StringIO) -> None:
        self.output = output
        self.max_width = MAX_WIDTH
        self.max_seq_length = MAX_ITEMS
        self.indentation = 0
        self.stack: list[int] = []
        self.group_stack = [Group(0)]
        self._open: list[list[Group]] = [[self.group_stack[0]]]  # by depth: those not yet broken
        self._waiting: deque[list[str] | Breakable] = deque()
        self._written_width = 0
        self._waiting_width = 0

    # What is printed.

    def text(self, text: str) -> None:
        """Add text in which no line ends."""
        if not self._waiting:
            self.output.write(text)
            self._written_width += len(text)
            return
        last = self._waiting[-1]
        if isinstance(last, list):
            last.append(text)
        else:
            self._waiting.append([text])
        self._waiting_width += len(text)
        self._break_while_too_long()

    def breakable(self, sep: str = " ") -> None:
        """Add a place where the line may end, else `sep`."""
        group = self.group_stack[-1]
        if group.want_break:
            self._end_line()
            return
        self._waiting.append(Breakable(sep, group, self.indentation))
        self._waiting_width += len(sep)
        self._break_while_too_long()

    def break_(self) -> None:
        """End the line, in any case."""
        group = self._next_to_break()
        if group is not None:
            self._break(group)
        self._end_line()

    def begin_group(self, indent: int = 0, open: str = "") -> None:
        if open:
            self.text(open)
        group = Group(self.group_stack[-1].depth + 1)
        self.group_stack.append(group)
        while len(self._open) <= group.depth:
            self._open.append([])
        self._open[group.depth].append(group)
        self.indentation += indent

    def end_group(self, dedent: int = 0, close: str = "") -> None:
        self.indentation -= dedent
        group = self.group_stack.pop()
        if not group.breakables:
            self._forget(group)
        if close:
            self.text(close)

    @contextmanager
    def group(self, indent: int = 0, open: str = "", close: str = "") -> Iterator[None]:
        self.begin_group(indent, open)
        try:
            yield
        finally:
            self.end_group(indent, close)

    @contextmanager
    def indent(self, indent: int) -> Iterator[None]:
        self.indentation += indent
        try:
            yield
        finally:
            self.indentation -= indent

    def flush(self) -> None:
        for item in self._waiting:
            # The width so far is counted again with each item. IPython counts like this, and where
            # its lines end depends on it.
            self._written_width += self._put(item)
        self._waiting.clear()
        self._waiting_width = 0

    def pretty(self, value: object) -> None:
        """Add a value, by the first class in its `__mro__` that has a way to show it."""
        is_cycle = id(value) in self.stack
        self.stack.append(id(value))
        self.begin_group()
        try:
            way_of(value)(value, self, is_cycle)
        finally:
            self.end_group()
            self.stack.pop()

    def items(self, values: Iterable[Any]) -> Iterator[Any]:
        """Add values with commas between them; after the thousandth an ellipsis."""
        for count, value in enumerate(values):
            if count >= self.max_seq_length:
                self.text(",")
                self.breakable()
                self.text("...")
                return
            if count:
                self.text(",")
                self.breakable()
            yield value

    # Where lines end.

    def _end_line(self) -> None:
        self.flush()
        self.output.write(self.newline + " " * self.indentation)
        self._written_width = self.indentation

    def _break_while_too_long(self) -> None:
        while self._written_width + self._waiting_width > self.max_width:
            group = self._next_to_break()
            if group is None:
                return
            self._break(group)

    def _break(self, group: Group) -> None:
        while group.breakables:
            self._put_first()
        while self._waiting and isinstance(self._waiting[0], list):
            self._put_first()

    def _put_first(self) -> None:
        item = self._waiting.popleft()
        self._waiting_width -= sum(map(len, item)) if isinstance(item, list) else len(item.text)
        self._written_width = self._put(item)

    def _put(self, item: list[str] | Breakable) -> int:
        """Write the item and return the width of the line after it."""
        if isinstance(item, list):
            self.output.write("".join(item))
            return self._written_width + sum(map(len, item))
        group = item.group
        group.breakables.popleft()
        if group.want_break:
            self.output.write(self.newline + " " * item.indentation)
            return item.indentation
        if not group.breakables:
            self._forget(group)
        self.output.write(item.text)
        return self._written_width + len(item.text)

    def _next_to_break(self) -> Group | None:
        for groups in self._open:
            for place, group in enumerate(reversed(groups)):
                if group.breakables:
                    # Counted from the other end: as IPython does, see `flush`.
                    del groups[place]
                    group.want_break = True
                    return group
            for group in groups:
                group.want_break = True
            groups.clear()
        return None

    def _forget(self, group: Group) -> None:
        if group in self._open[group.depth]:
            self._open[group.depth].remove(group)


def way_of(value: object) -> Show:
    kind: type = getattr_or_none(value, "__class__") or type(value)
    for base in getattr_or_none(kind, "__mro__") or ():
        show = WAYS.get(base) or WAYS_BY_NAME.get((base.__module__, base.__name__))
        if show is not None:
            return show
        own = vars(base)
        if "_repr_pretty_" in own and callable(base._repr_pretty_):
            method: Show = base._repr_pretty_
            return method
        if base is not object and "__repr__" in own and callable(base.__repr__):
            return show_repr
    return show_default


def getattr_or_none(value: object, name: str) -> Any:
    """Return an attribute, or None if it is missing or its lookup raises."""
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - whatever a property of the user's raises
        return None


def show_repr(value: object, p: Printer, cycle: bool) -> None:
    with p.group():
        for number, line in enumerate(repr(value).splitlines()):
            if number:
                p.break_()
            p.text(line)


def show_default(value: object, p: Printer, cycle: bool) -> None:
    kind = getattr_or_none(value, "__class__") or type(value)
    if getattr_or_none(kind, "__repr__") is not object.__repr__:
        show_repr(value, p, cycle)
        return
    with p.group(1, "<", ">"):
        p.pretty(kind)
        p.text(f" at {id(value):#x}")
        if cycle:
            p.text(" ...")


def sequence(start: str, end: str) -> Show:
    def show(value: Any, p: Printer, cycle: bool) -> None:
        if cycle:
            p.text(f"{start}...{end}")
            return
        with p.group(len(start), start, end):
            for item in p.items(value):
                p.pretty(item)
            if isinstance(value, tuple) and len(value) == 1:
                p.text(",")

    return show


def unordered(start: str, end: str) -> Show:
    def show(value: Any, p: Printer, cycle: bool) -> None:
        if cycle:
            p.text(f"{start}...{end}")
        elif not value:
            p.text(f"{type(value).__name__}()")
        else:
            with p.group(len(start), start, end):
                for item in p.items(value if len(value) >= MAX_ITEMS else in_order(value)):
                    p.pretty(item)

    return show


def in_order(values: Iterable[Any]) -> Iterable[Any]:
    values = list(values)
    for key in (None, str):
        try:
            return sorted(values, key=key)
        except Exception:  # noqa: BLE001 - what cannot be compared stays as it is
            pass
    return values


def mapping(start: str, end: str) -> Show:
    def show(value: Any, p: Printer, cycle: bool) -> None:
        if cycle:
            p.text("{...}")
            return
        with p.group(len(start), start, end):
            for key in p.items(value.keys()):
                p.pretty(key)
                p.text(": ")
                p.pretty(value[key])

    return show


class Raw:
    """A text that is written as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_pretty_(self, p: Printer, cycle: bool) -> None:
        p.text(self.text)


def call(p: Printer, name: str, /, *args: object, **named: object) -> None:
    """Add `name(argument, name=argument)`, as a value that is a group of its own."""

    class Call:
        def _repr_pretty_(self, p: Printer, cycle: bool) -> None:
            with p.group(len(name) + 1, f"{name}(", ")"):
                for is_named, (key, value) in p.items(
                    [(False, ("", arg)) for arg in args] + [(True, item) for item in named.items()]
                ):
                    if is_named:
                        with p.group(len(key) + 1, f"{key}="):
                            p.pretty(value)
                    else:
                        p.pretty(value)

    p.pretty(Call())


def constructor(arguments: Callable[[Any], Iterable[object]]) -> Show:
    """Return a function that adds a value's class name and these arguments."""

    def show(value: Any, p: Printer, cycle: bool) -> None:
        given = [Raw("...")] if cycle else arguments(value)
        call(p, type(value).__name__, *given)

    return show


def show_deque(value: Any, p: Printer, cycle: bool) -> None:
    if cycle or value.maxlen is None:
        constructor(lambda value: [list(value)])(value, p, cycle)
    else:
        call(p, type(value).__name__, list(value), maxlen=value.maxlen)


def show_namespace(value: Any, p: Printer, cycle: bool) -> None:
    if cycle:
        call(p, "namespace", Raw("..."))
    else:
        call(p, "namespace", **vars(value))


def show_exception(value: Any, p: Printer, cycle: bool) -> None:
    call(p, full_name(type(value)), *getattr(value, "args", ()))


def show_class(value: Any, p: Printer, cycle: bool) -> None:
    if next(base for base in type(value).__mro__ if "__repr__" in vars(base)) is not type:
        show_repr(value, p, cycle)
        return
    p.text(full_name(value))


def full_name(kind: Any) -> str:
    name = getattr_or_none(kind, "__qualname__")
    if not isinstance(name, str):
        name = kind.__name__
    module = getattr_or_none(kind, "__module__")
    return name if module in (None, "builtins") else f"{module}.{name}"


def show_function(value: Any, p: Printer, cycle: bool) -> None:
    from inspect import signature

    name = getattr_or_none(value, "__qualname__") or value.__name__
    if value.__module__ and value.__module__ != "builtins":
        name = f"{value.__module__}.{name}"
    with suppress(ValueError):  # of a built-in function that does not say
        name += str(signature(value))
    p.text(f"<function {name}>")


def show_super(value: Any, p: Printer, cycle: bool) -> None:
    with p.group(8, "<super: ", ">"):
        p.pretty(value.__thisclass__)
        p.text(",")
        p.breakable()
        p.pretty(value.__self__)


def show_pattern(value: Any, p: Printer, cycle: bool) -> None:
    import re

    arguments = [Raw("r" + repr(value.pattern).replace("\\\\", "\\"))]
    flags = ["IGNORECASE", "LOCALE", "MULTILINE", "DOTALL", "UNICODE", "VERBOSE", "DEBUG"]
    if value.flags:
        names = [f"re.{name}" for name in flags if value.flags & getattr(re, name)]
        arguments.append(Raw("|".join(names)))
    call(p, "re.compile", *arguments)


WAYS: dict[Any, Show] = {
    tuple: sequence("(", ")"),
    list: sequence("[", "]"),
    dict: mapping("{", "}"),
    set: unordered("{", "}"),
    frozenset: unordered("frozenset({", "})"),
    super: show_super,
    type: show_class,
    types.FunctionType: show_function,
    types.BuiltinFunctionType: show_function,
    types.SimpleNamespace: show_namespace,
    types.MappingProxyType: mapping("mappingproxy({", "})"),
    BaseException: show_exception,
}
WAYS_BY_NAME: dict[tuple[Optional[str], str], Show] = {
    ("re", "Pattern"): show_pattern,
    ("os", "_Environ"): mapping("environ{", "}"),
    ("collections", "defaultdict"): constructor(lambda value: [value.default_factory, dict(value)]),
    ("collections", "OrderedDict"): constructor(lambda value: [list(value.items())][: len(value)]),
    ("collections", "deque"): show_deque,
    ("collections", "Counter"): constructor(
        lambda value: [dict(value.most_common())][: len(value)]
    ),
    ("collections", "UserList"): constructor(lambda value: [value.data]),
}
