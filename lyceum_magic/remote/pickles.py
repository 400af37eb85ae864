"""Values <-> pickles, by cloudpickle; on both sides of a run.

A function of `__main__` reads the global names of the namespace in which it arrives, as if it had
been defined there. The globals that it reads travel along, for names that are missing there.
"""

from __future__ import annotations

import builtins
import functools
import io
import pickle
import pkgutil
import sys
import types
import weakref

from .refusals import IS_REMOTE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

#: The package of this module; only the cell's machine has one of that name.
OURS = __name__.rpartition(".")[0]
MAIN = "__main__"
#: Functions and classes of this package that replace others -> the ones that they replace.
STANDS_FOR = {
    "DisplayHandle": "IPython.display:DisplayHandle",
    "clear_output": "IPython.display:clear_output",
    "display": "IPython.display:display",
    "get_ipython": "IPython:get_ipython",
    "publish_display_data": "IPython.display:publish_display_data",
    "refuse_input": "builtins:input",
    "show_result": "sys:displayhook",
    "update_display": "IPython.display:update_display",
}
#: Names that came along with a function -> a call that returns the object, if it still exists.
_came_along: dict[str, Any] = {}


class HoldsTheRun(pickle.PicklingError):
    """A value holds an object that only exists in its own process, such as a stream."""


def dump(value: object, *, apart: Collection[str] = ()) -> tuple[bytes, set[str]]:
    """Pickle a value.

    Args:
        apart: names of other values that arrive with it, which functions read there.

    Returns:
        The pickle, and the modules that loading it imports.
    """
    import cloudpickle

    modules: set[str] = set()

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            of_the_process = _part_of_the_process(obj)
            if of_the_process is not None:
                return of_the_process
            module, name = _place_of(obj)
            if module == OURS or module.startswith(f"{OURS}."):
                return _as_what_it_stands_for(obj, name)
            modules.add(module)
            if isinstance(obj, functools._lru_cache_wrapper) and obj.__module__ == MAIN:
                return _as_new_cache(obj)
            reduced = super().reducer_override(obj)
            if isinstance(obj, type) and "__slots__" in vars(obj) and isinstance(reduced, tuple):
                _keep_slots(obj, reduced)
            is_own = isinstance(obj, types.FunctionType) and obj.__globals__.get("__name__") == MAIN
            if is_own and isinstance(reduced, tuple):
                carried = reduced[2][1]["__globals__"]
                for known in carried.keys() & set(apart):
                    del carried[known]
            return reduced

    file = io.BytesIO()
    Pickler(file).dump(value)
    return file.getvalue(), modules - {"", MAIN, "builtins"}


def _place_of(obj: Any) -> tuple[str, str]:
    """Return the module and name by which a pickle finds an object or, if none, its type."""
    if isinstance(obj, types.ModuleType):
        return obj.__name__, ""
    if not isinstance(obj, (type, types.FunctionType, types.BuiltinFunctionType)):
        obj = type(obj)
    return getattr(obj, "__module__", None) or "", obj.__qualname__


def _as_what_it_stands_for(obj: Any, name: str) -> Any:
    if name == "DisplayHandle" and not isinstance(obj, type):
        return type(obj), (obj.display_id,)
    if name not in STANDS_FOR or not isinstance(obj, (type, types.FunctionType)):
        raise HoldsTheRun("it holds something of the run itself")
    return _looked_up(STANDS_FOR[name])


def _part_of_the_process(obj: Any) -> Any:
    """Pickle a shell or a stream as that of the receiver."""
    if IS_REMOTE:
        shell = sys.modules.get(f"{OURS}.shell")
        own = shell and shell._shell
    else:
        ipython = sys.modules.get("IPython")
        own = ipython and ipython.get_ipython()
    if own is not None and obj is own:
        return pkgutil.resolve_name("IPython:get_ipython"), ()
    for name in ("stdout", "stderr"):
        # Not whatever the program has put there: a text in memory travels with its content.
        is_kernels = type(obj).__module__ == "ipykernel.iostream" and obj is getattr(sys, name)
        if is_kernels or obj is getattr(sys, f"__{name}__"):
            return _looked_up(f"sys:{name}")
    return None


def _keep_slots(kind: type, reduced: Any) -> None:
    """Give a class of the notebook its slots again, which cloudpickle leaves out.

    An instance would have a dict there, and could not be read again by its own class.
    """
    make, (*_, options, _tracker, _extra), (members, _others), *_ = reduced
    if make.__name__ == "_make_skeleton_class":
        options["__slots__"] = vars(kind)["__slots__"]
        for name, member in [*members.items()]:
            if isinstance(member, types.MemberDescriptorType):  # of a private name
                del members[name]


def _looked_up(place: str) -> Any:
    """Pickle an object as the one that the receiver has at a place, `module:name`."""
    return pkgutil.resolve_name, (place,)


def _as_new_cache(obj: Any) -> Any:
    """Pickle a function of the notebook with a new cache; by default it is looked up by name."""
    known = obj.cache_parameters()
    arguments = (obj.__wrapped__, known["maxsize"], known["typed"], functools._CacheInfo)
    return functools._lru_cache_wrapper, arguments, obj.__dict__


class Unpickler(pickle.Unpickler):
    """A loader of one value.

    Args:
        namespace: of `__main__`, or of what stands for it.

    Attributes:
        came_along: the names that the namespace lacked, and has now.
    """

    def __init__(self, content: bytes, namespace: dict[str, Any]) -> None:
        super().__init__(io.BytesIO(content))
        self.came_along: list[str] = []
        self._namespace = namespace

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module.partition(".")[0] != "cloudpickle":
            return found
        if name == "_make_function":
            return lambda code, scope, *more: self._make_function(found, code, scope, *more)
        if name == "_function_setstate":
            return lambda function, state: self._set_state(found, function, state)
        return found

    def _make_function(self, make: Any, code: Any, scope: dict[str, Any], *more: Any) -> Any:
        if scope.get("__name__") != MAIN:
            return make(code, scope, *more)
        return types.FunctionType(code, self._namespace, *more)

    def _set_state(self, set_state: Any, function: types.FunctionType, state: Any) -> None:
        if function.__globals__ is self._namespace:
            own = self._namespace.get("__builtins__")
            for name, value in state[1]["__globals__"].items():
                self._bring(name, value)
            state[1]["__globals__"] = {}
            set_state(function, state)
            self._namespace["__builtins__"] = own
        else:
            set_state(function, state)

    def _bring(self, name: str, value: object) -> None:
        """Bind a name that is missing, or that came along with an earlier function."""
        if getattr(builtins, name, None) is value:
            return
        if name in self._namespace:
            before = _came_along.pop(name, None)
            if before is None or before() is not self._namespace[name]:
                return
        self._namespace[name] = value
        self.came_along.append(name)
        try:
            _came_along[name] = weakref.ref(value)
        except TypeError:
            _came_along[name] = lambda: value


def load(content: bytes, namespace: dict[str, Any] | None = None) -> tuple[Any, list[str]]:
    """Return the value, and the names that came along with it.

    Args:
        namespace: in which functions of `__main__` arrive; None: that of `__main__`.
    """
    unpickler = Unpickler(content, vars(sys.modules[MAIN]) if namespace is None else namespace)
    return unpickler.load(), unpickler.came_along
