"""State of a process outside the namespace <-> a part of a snapshot: generators, options, filters.

Only what has a getter and a setter is kept. The state of a library that a cell does not import is
passed on as it came.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


# --- libraries: each getter returns None for the state of a new process


def _take_printing(numpy: Any) -> Any:
    options = numpy.get_printoptions()
    return {key: value for key, value in options.items() if key != "override_repr"}


def _take_figures(matplotlib: Any) -> Any:
    default = matplotlib.rcParamsDefault
    return {
        key: value
        for key, value in dict.items(matplotlib.rcParams)
        if key not in ("backend", "interactive", "backend_fallback")
        and dict.get(default, key) != value
    }


def _put_figures(matplotlib: Any, changed: Any) -> None:
    for key, value in changed.items():
        dict.__setitem__(matplotlib.rcParams, key, value)


def _take_options(pandas: Any) -> Any:
    import pandas._config.config as config  # the names of all options are in no public list

    changed = {}
    for key, option in config._registered_options.items():
        value = pandas.get_option(key)
        if value is not option.defval and value != option.defval:
            changed[key] = value
    return changed or None


def _put_options(pandas: Any, changed: Any) -> None:
    for key, value in changed.items():
        pandas.set_option(key, value)


def _take_torch(torch: Any) -> Any:
    state = {
        "cpu": torch.random.get_rng_state().numpy().tobytes(),
        "grad": torch.is_grad_enabled(),
        "dtype": str(torch.get_default_dtype()).rpartition(".")[2],
    }
    if torch.cuda.is_initialized():
        state["cuda"] = [one.numpy().tobytes() for one in torch.cuda.get_rng_state_all()]
    return state


def _put_torch(torch: Any, state: Any) -> None:
    def tensor(content: bytes) -> Any:
        return torch.frombuffer(bytearray(content), dtype=torch.uint8)

    torch.random.set_rng_state(tensor(state["cpu"]))
    torch.set_grad_enabled(state["grad"])
    torch.set_default_dtype(getattr(torch, state["dtype"]))
    if "cuda" in state and torch.cuda.is_available():
        count = torch.cuda.device_count()
        torch.cuda.set_rng_state_all([tensor(one) for one in state["cuda"]][:count])


def _take_levels(logging: Any) -> Any:
    loggers = logging.root.manager.loggerDict.items()
    levels = {
        name: logger.level
        for name, logger in loggers
        if isinstance(logger, logging.Logger) and logger.level
    }
    return {"": logging.root.level, **levels}, logging.root.manager.disable


def _put_levels(logging: Any, state: Any) -> None:
    levels, disabled = state
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
    logging.disable(disabled)


def _take_registries(altair: Any) -> Any:
    state = {}
    for name in ("data_transformers", "renderers"):
        registry = getattr(altair, name)
        state[name] = (registry.active, dict(registry.options))
    return state


def _put_registries(altair: Any, state: Any) -> None:
    for name, (active, options) in state.items():
        if active:
            getattr(altair, name).enable(active, **options)


def _take_plotly(plotly_io: Any) -> Any:
    return plotly_io.templates.default


def _put_plotly(plotly_io: Any, template: Any) -> None:
    plotly_io.templates.default = template


def _calls(get: str, put: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return (
        lambda module: getattr(module, get)(),
        lambda module, state: getattr(module, put)(state),
    )


#: Name of a state -> its module, getter and setter.
_STATES: dict[str, tuple[str, Callable[..., Any], Callable[..., Any]]] = {
    "random": ("random", *_calls("getstate", "setstate")),
    "numpy.random": (
        "numpy.random",
        lambda module: module.get_state(legacy=False),
        lambda module, state: module.set_state(state),
    ),
    "numpy printing": (
        "numpy",
        _take_printing,
        lambda module, state: module.set_printoptions(**state),
    ),
    "numpy errors": (
        "numpy",
        lambda module: module.geterr(),
        lambda module, state: module.seterr(**state),
    ),
    "matplotlib": ("matplotlib", _take_figures, _put_figures),
    "pandas": ("pandas", _take_options, _put_options),
    "torch": ("torch", _take_torch, _put_torch),
    "logging": ("logging", _take_levels, _put_levels),
    "decimal": ("decimal", *_calls("getcontext", "setcontext")),
    "sklearn": (
        "sklearn",
        lambda module: module.get_config(),
        lambda module, state: module.set_config(**state),
    ),
    "polars": (
        "polars",
        lambda module: module.Config.save(),
        lambda module, state: module.Config.load(state),
    ),
    "plotly": ("plotly.io", _take_plotly, _put_plotly),
    "altair": ("altair", _take_registries, _put_registries),
    "xarray": (
        "xarray",
        lambda module: dict(module.get_options()),
        lambda module, state: module.set_options(**state),
    ),
}


class LibraryStates:
    """States of libraries; each is put in place when its library is imported.

    Args:
        states: name of a state -> its pickle.
    """

    def __init__(self, states: dict[str, bytes]) -> None:
        self._waiting = dict(states)
        self._busy: set[str] = set()
        self._fresh: dict[str, bytes] = {}
        self.modules = {_STATES[name][0] for name in states if name in _STATES}

    def put(self) -> None:
        """Put what is known of the imported libraries, and watch for the others."""
        for module in [*self.modules]:
            if module in sys.modules:
                self._put_module(module)
        if self.modules:
            sys.meta_path.insert(0, self)

    def take(self) -> dict[str, bytes]:
        """Return the states of now, and those that still wait."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        found = dict(self._waiting)
        for name, (module, get, _) in _STATES.items():
            if module in sys.modules and name not in self._waiting:
                try:
                    state = get(sys.modules[module])
                    if state is not None:
                        found[name] = pickle.dumps(state, 5)
                except Exception:  # noqa: BLE001 - of another version, or with the cell's lambdas
                    continue
        return found

    def _put_module(self, module: str) -> None:
        self.modules.discard(module)
        for name, (owner, _, put) in _STATES.items():
            if owner == module and name in self._waiting:
                content = self._waiting.pop(name)
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        put(sys.modules[module], pickle.loads(content))
                except Exception:  # noqa: BLE001 - of another version
                    continue

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find a module whose state waits, with a loader that puts the state; see `hooks`."""
        if name not in self.modules or name in self._busy:
            return None
        self._busy.add(name)
        try:
            for finder in sys.meta_path:
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec = find and find(name, path, target)
                if spec is not None:
                    if hasattr(spec.loader, "exec_module"):
                        spec.loader = _PuttingLoader(spec.loader, self._put_module)
                    return spec
        finally:
            self._busy.discard(name)
        return None


class _PuttingLoader:
    """A stand-in for a module's loader, which is restored before the module runs."""

    def __init__(self, own: Any, put: Callable[[str], None]) -> None:
        self._own = own
        self._put = put

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: Any) -> Any:
        return self._own.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self._own
        self._own.exec_module(module)
        self._put(module.__name__)


class Surface:
    """The environment, import path, folder and filters of a process, as they were at its start.

    Args:
        home: the folder of the run.
        secrets: names of variables that are never kept.
    """

    def __init__(self, home: str, secrets: set[str]) -> None:
        self._home = home
        self._secrets = secrets
        self._environment = dict(os.environ)
        self._path = list(sys.path)
        self._filters = list(warnings.filters)
        self._recursion = sys.getrecursionlimit()

    def take(self) -> dict[str, Any]:
        """Return what differs from the start."""
        values = {self._environment.get(name, "") for name in self._secrets} - {""}
        environment: dict[str, str | None] = {}
        for name in {*os.environ, *self._environment} - self._secrets:
            value = os.environ.get(name)
            changed = value != self._environment.get(name)
            if changed and not (value and any(secret in value for secret in values)):
                environment[name] = value
        found: dict[str, Any] = {"environment": environment}
        added = [entry for entry in sys.path if entry not in self._path]
        first = [entry for entry in sys.path if entry in self._path][:1]
        before = sys.path.index(first[0]) if first else 0
        found["path"] = [
            [self._kept_path(entry) for entry in added if sys.path.index(entry) < before],
            [self._kept_path(entry) for entry in added if sys.path.index(entry) >= before],
        ]
        folder = os.getcwd()
        if folder != self._home:
            found["folder"] = self._kept_path(folder)
        if sys.getrecursionlimit() != self._recursion:
            found["recursion"] = sys.getrecursionlimit()
        return found

    def take_filters(self) -> bytes:
        if list(warnings.filters) == self._filters:
            return b""
        try:
            return pickle.dumps(list(warnings.filters), 5)
        except Exception:  # noqa: BLE001 - a category of the cell's own
            kept = [entry for entry in warnings.filters if entry[2].__module__ != "__main__"]
            return pickle.dumps(kept, 5)

    def put(self, state: dict[str, Any], filters: bytes) -> None:
        for name, value in state.get("environment", {}).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        before, after = state.get("path", [[], []])
        sys.path[:0] = [self._real_path(entry) for entry in before]
        sys.path += [self._real_path(entry) for entry in after]
        if "recursion" in state:
            sys.setrecursionlimit(state["recursion"])
        if filters:
            try:
                warnings.filters[:] = pickle.loads(filters)  # type: ignore[index]
            except Exception:  # noqa: BLE001 - a category's library is not here
                return
            changed = getattr(warnings, "_filters_mutated", None) or getattr(
                warnings, "_filters_mutated_lock_held", None
            )
            if changed is not None:
                changed()

    def put_folder(self, state: dict[str, Any]) -> None:
        """Go to the folder of the last cell, which its files have made."""
        folder = state.get("folder")
        if folder is not None:
            try:
                os.chdir(self._real_path(folder))
            except OSError:
                return

    def _kept_path(self, path: str) -> list[str]:
        """Return a path as below the run's folder, or as it is; the folder differs in each run."""
        if path == self._home or path.startswith(os.path.join(self._home, "")):
            return ["home", os.path.relpath(path, self._home)]
        return ["", path]

    def _real_path(self, kept: list[str]) -> str:
        where, path = kept
        return os.path.normpath(os.path.join(self._home, path)) if where == "home" else path
