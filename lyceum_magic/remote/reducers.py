"""Values of a session <-> pickles; functions and classes are bound to the session's namespace.

A function or class that a name of the namespace holds is pickled under that name once, and by that
name everywhere else. One that no name holds travels with what refers to it.
"""

from __future__ import annotations

import copyreg
import enum
import pickle
import sys
import types
import typing

from .rebuilding import (
    MAIN,
    PACKAGES,
    by_name,
    cloudpickle,
    fill_cell,
    fill_function,
    fill_instance,
    looked_up,
    make_cell,
    make_class,
    make_function,
    make_instance,
)
from .used_names import names_of_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Smaller buffers stay in the pickle. In bytes.
MIN_BUFFER = 1 << 16
#: Names in the globals of a generated function, above which only those that it uses are kept.
_MAX_SCOPE = 50
#: Objects of which a process has one, with the state of their library.
_SINGLETONS = (
    ("altair", "data_transformers"),
    ("altair", "renderers"),
    ("matplotlib", "colormaps"),
    ("matplotlib", "rcParams"),
    ("matplotlib", "rcParamsDefault"),
    ("numpy.random.mtrand", "_rand"),
    ("os", "environ"),
    ("os", "environb"),
    ("pandas", "options"),
    ("plotly.io", "renderers"),
    ("plotly.io", "templates"),
    ("random", "_inst"),
    ("sys", "argv"),
    ("sys", "modules"),
    ("sys", "path"),
    ("torch", "default_generator"),
    ("warnings", "filters"),
)
#: Methods that a class may have for the program, and that are not called to restore an object.
_IN_THE_WAY = frozenset({"__new__", "__getattr__", "__getattribute__", "__setattr__"})
#: The flag of classes that a program has defined, not the interpreter.
_HEAP_TYPE = 1 << 9


class Refused(pickle.PicklingError):
    """An object that cannot be kept.

    Args:
        what: names the object in a few words, as "an open file".
    """

    def __init__(self, what: str, obj: object) -> None:
        super().__init__(what)
        self.what = what
        self.obj = obj


class Surroundings:
    """The facts that all pickles of one save share.

    Args:
        namespace: of the cell.
        values: the names that are saved, and their values.
        by_type: exact type -> its reducer; see `library_reducers`.
        by_base: base class, and the reducer of what derives from it.
    """

    def __init__(
        self,
        namespace: dict[str, Any],
        values: dict[str, Any],
        by_type: dict[type, Callable[..., Any]],
        by_base: list[tuple[type, Callable[..., Any]]],
    ) -> None:
        self.namespace = namespace
        self.values = values
        self.name_of = {
            id(value): name for name, value in values.items() if _is_definition(value, namespace)
        }
        self.by_type = by_type
        self.by_base = by_base
        self.importable: dict[str, bool] = {}
        self.singletons = {
            id(value): (module, name)
            for module, name in _SINGLETONS
            if (value := getattr(sys.modules.get(module), name, None)) is not None
        }
        self._marks: dict[type, dict[int, str]] = {}
        self.specials: dict[type, set[str]] = {}
        #: (address, end) of memory that several arrays share, in order.
        self.regions: list[tuple[int, int]] = []
        self.deadline = float("inf")
        self.opened: list[tuple[dict[str, Any], Any]] = []
        for value in values.values():
            if type(value) is dict:
                self.scope(value)  # now: a dict must not change while it is pickled

    def is_importable(self, module: str) -> bool:
        """Return whether another process can import a module by its name."""
        if module not in self.importable:
            self.importable[module] = _is_importable(module)
        return self.importable[module]

    def place_of(self, obj: Any) -> tuple[str, str] | None:
        """Return module and name of an object that is the only one of its library, else None.

        Such are the generator of `random`, and the marks by which a library knows a missing value.
        """
        found = self.singletons.get(id(obj))
        kind = type(obj)
        if found is not None or not kind.__flags__ & _HEAP_TYPE or getattr(obj, "__dict__", None):
            return found
        module = kind.__module__
        if kind not in self._marks:
            known = {} if module == MAIN else vars(sys.modules.get(module, object))
            self._marks[kind] = {
                id(value): name for name, value in [*known.items()] if type(value) is kind
            }
        name = self._marks[kind].get(id(obj))
        return (module, name) if name is not None else None

    def scope(self, scope: dict[str, Any]) -> dict[str, Any]:
        """Return the globals of a function of no module, without builtins until `close`."""
        if "__builtins__" in scope:
            self.opened.append((scope, scope.pop("__builtins__")))
        return scope

    def close(self) -> None:
        for scope, its_builtins in self.opened:
            scope["__builtins__"] = its_builtins
        self.opened.clear()


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A pickler of some names.

    Args:
        file: takes the pickle.
        around: what all pickles of a save share.
        names: the names whose values are pickled.

    Attributes:
        buffers: what is kept beside the pickle.
        needs: names of functions and classes that are to be restored before.
        uses: global names of functions in it; see `used_names`.
        packages: the top packages that loading it imports.
        ranges: memory of arrays in it: (address, end, whether it can be shared as bytes).
    """

    def __init__(self, file: Any, around: Surroundings, names: Any) -> None:
        self.buffers: list[memoryview] = []
        self.needs: set[str] = set()
        self.uses: set[str] = set()
        self.packages: set[str] = set()
        self.ranges: list[tuple[int, int, bool]] = []
        self.has_code = self.has_cuda = False
        self.around = around
        self._roots = {
            id(around.values[name])
            for name in names
            if around.name_of.get(id(around.values[name])) == name
        }
        self._claimed: set[int] = set()
        self._alive: list[Any] = []  # what was claimed by its address
        super().__init__(file, protocol=5, buffer_callback=self._keep)

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < MIN_BUFFER:
            return True
        self.buffers.append(view)
        return False

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if issubclass(kind, type):
            return self._class(obj)
        if kind is types.FunctionType:
            return self._function(obj)
        around = self.around
        place = around.place_of(obj)
        if place is not None:
            return looked_up, place
        reduce = around.by_type.get(kind)
        if reduce is None:
            for base, reducer in around.by_base:
                if isinstance(obj, base):
                    reduce = reducer
                    break
        if reduce is not None:
            reduced = reduce(self, obj)
            if reduced is not None:
                return reduced
        if kind.__module__ == MAIN and reduce is None and not isinstance(obj, enum.Enum):
            return self._instance(obj, kind)
        return NotImplemented

    def _instance(self, obj: Any, kind: type) -> Any:
        """Reduce an object so that none of its class's own methods is called to restore it.

        A `__new__` with arguments of its own would fail, and a `__getattr__` before there is
        anything to get.
        """
        special = self.around.specials.get(kind)
        if special is None:
            special = self.around.specials[kind] = _own_methods(kind)
        if not special & _IN_THE_WAY or special & {"__reduce__", "__reduce_ex__"}:
            return NotImplemented
        reduced: Any = object.__reduce_ex__(obj, 5)
        make, given, *rest = reduced
        if make is copyreg.__newobj__ and "__new__" in special:  # type: ignore[attr-defined]
            base = next(base for base in kind.__mro__ if base.__module__ != MAIN)
            if not special & {"__getnewargs__", "__getnewargs_ex__"}:
                make, given = make_instance, (base, kind, *given[1:])
        state, items, pairs = [*rest, None, None, None][:3]
        if state is None or "__setstate__" in special:
            return make, given, state, items, pairs
        return make, given, state, items, pairs, fill_instance

    # --- classes and functions

    def _named(self, obj: Any) -> Any:
        name = self.around.name_of.get(id(obj))
        if name is None or id(obj) in self._roots:
            return None
        self.needs.add(name)
        return by_name, (name,)

    def _class(self, obj: type) -> Any:
        named = self._named(obj)
        if named is not None:
            return named
        module = obj.__module__ if isinstance(obj.__module__, str) else ""
        if module != MAIN:
            self.packages.add(module.partition(".")[0])
            if obj.__module__ == "builtins" or self._is_found(obj, module):
                return cloudpickle._class_reduce(obj)
        reduced = cloudpickle._dynamic_class_reduce(obj)
        self.has_code = True
        make, given, (members, more), *rest = reduced
        members = {
            name: member
            for name, member in members.items()
            if name not in ("__weakref__", "__annotations_cache__")
        }
        if "__slots__" in members:
            # Of private names too, which are mangled.
            members = {
                name: member
                for name, member in members.items()
                if not isinstance(member, types.MemberDescriptorType)
            }
        if make is cloudpickle._make_skeleton_class:
            kind, name, bases, options, tracker, _ = given
            if kind is type and typing.NamedTuple in bases:
                bases = obj.__bases__  # the other makes a class of its own kind
            if "__slots__" in members:
                options["__slots__"] = members["__slots__"]
            options["__qualname__"] = obj.__qualname__
            make, given = make_class, (kind, name, bases, options, tracker)
        return (make, given, (members, more), *rest)

    def _is_found(self, obj: Any, module: str) -> bool:
        """Return whether another process finds this very object by its module and name."""
        try:
            found = sys.modules[module]
            for part in obj.__qualname__.split("."):
                found = getattr(found, part)
        except (AttributeError, KeyError):
            # Some are found elsewhere, under their own name.
            return cloudpickle._lookup_module_and_qualname(obj) is not None
        return found is obj and self.around.is_importable(module)

    def _function(self, obj: types.FunctionType) -> Any:
        named = self._named(obj)
        if named is not None:
            return named
        module = obj.__module__ or ""
        scope = obj.__globals__
        if scope is not self.around.namespace:
            self.packages.add(module.partition(".")[0])
            if module != MAIN and self._is_found(obj, module):
                return NotImplemented
        self.has_code = True
        self.uses |= names_of_function(obj.__code__)
        cells = obj.__closure__ or ()
        contents = []
        for cell in cells:
            if id(cell) not in self._claimed:
                self._claimed.add(id(cell))
                self._alive.append(cell)
                try:
                    contents.append((cell, cell.cell_contents))
                except ValueError:  # it is empty
                    continue
        where: Any = None
        if scope is not self.around.namespace:
            name = scope.get("__name__")
            known = sys.modules.get(name) if isinstance(name, str) else None
            if known is not None and vars(known) is scope and self.around.is_importable(str(name)):
                where = name
            elif len(scope) <= _MAX_SCOPE or any(
                scope is value for value in self.around.values.values()
            ):
                where = self.around.scope(scope)
            else:  # of a generated function, as sympy makes them
                used = names_of_function(obj.__code__)
                where = {key: value for key, value in scope.items() if key in used}
                self._alive.append(where)
        state = (
            contents,
            obj.__dict__ or None,
            obj.__qualname__,
            obj.__module__,
            obj.__doc__,
            _annotations(obj),
            obj.__defaults__,
            obj.__kwdefaults__,
        )
        given = (obj.__code__, obj.__name__, obj.__closure__, where)
        return make_function, given, state, None, None, fill_function

    def cell(self, cell: types.CellType) -> Any:
        """Reduce a cell of a closure; its content goes with the first function that has it."""
        if id(cell) in self._claimed:
            return make_cell, ()
        self._claimed.add(id(cell))
        self._alive.append(cell)
        try:
            content = (cell.cell_contents,)
        except ValueError:
            return make_cell, ()
        return make_cell, (), content, None, None, fill_cell


def _own_methods(kind: type) -> set[str]:
    """Return the names that the session's own classes define, of a class and those above it."""
    return {name for base in kind.__mro__ if base.__module__ == MAIN for name in vars(base)}


def _is_definition(value: Any, namespace: dict[str, Any]) -> bool:
    if isinstance(value, type):
        return value.__module__ == MAIN
    return type(value) is types.FunctionType and value.__globals__ is namespace


def _annotations(function: Any) -> Any:
    """Return a function's annotations; from Python 3.14 on, what would compute them."""
    if hasattr(types.FunctionType, "__annotate__"):
        compute = function.__annotate__
        return ("__annotate__", compute) if compute is not None else None
    return ("__annotations__", function.__annotations__) if function.__annotations__ else None


def _is_importable(module: str) -> bool:
    if module in sys.builtin_module_names or module.startswith(PACKAGES):
        return True
    known = sys.modules.get(module)
    spec = getattr(known, "__spec__", None)
    if known is None or spec is None:
        return False
    top = module.partition(".")[0]
    if top != module:
        return _is_importable(top)
    origin = spec.origin or ""
    if not origin.startswith("/") or origin.startswith((sys.prefix, sys.base_prefix)):
        return True
    # One that a program has loaded from a file of its choice.
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and find(module, None) is not None:
            return True
    return False
