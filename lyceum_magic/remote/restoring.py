"""A manifest and its packs -> names of the namespace, as far as the cell may use them."""

from __future__ import annotations

import gc
import importlib
import sys

from . import rebuilding
from .packs import Broken
from .refusals import missing, said
from .saving import needed
from .used_names import EVERYTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .packs import PackReader

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Restored:
    """The names that a cell has got from its session.

    Args:
        manifest: of the last cell; empty in a new session.

    Attributes:
        values: name -> the object that was restored under it.
        failed: name -> why it could not be restored here.
        left: groups that were not restored.
        modules: name -> module, of those that were not imported.
    """

    def __init__(
        self, manifest: dict[str, Any], reader: PackReader, namespace: dict[str, Any]
    ) -> None:
        self.values: dict[str, Any] = {}
        self.failed: dict[str, str] = {}
        self.left: list[dict[str, Any]] = list(manifest.get("groups", []))
        self.modules: dict[str, str] = dict(manifest.get("modules", {}))
        self._reader = reader
        self._namespace = namespace

    def wanted(self, names: set[str]) -> list[dict[str, Any]]:
        """Return the groups that a cell with these names needs, in their order."""
        return list(needed(self.left, names))

    def restore(self, names: set[str], entries: Iterable[dict[str, Any]]) -> None:
        """Restore groups, and the modules that are used."""
        entries = list(entries)
        names = {*names, *(name for entry in entries for name in (*entry["names"], *entry["uses"]))}
        for name in [*self.modules]:
            if name in names or EVERYTHING in names:
                self._import(name)
        found = self.load(entries)
        self._namespace.update(found)

    def load(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Load groups, and return their names; each fails alone."""
        rebuilding.bind(self._namespace, self.values)
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            for entry in entries:
                self._load(entry)
        finally:
            if was_enabled:
                gc.enable()
        loaded = [entry for entry in entries if entry["names"][0] in self.values]
        self.left = [entry for entry in self.left if not any(entry is one for one in loaded)]
        return {name: self.values[name] for entry in loaded for name in entry["names"]}

    def _load(self, entry: dict[str, Any]) -> None:
        problem = ""
        if entry["has_code"] and entry["python"] != PYTHON:
            problem = f"it holds code of Python {entry['python']}, and this is Python {PYTHON}"
        else:
            try:
                content = self._reader.read(entry["pickle"])
                buffers = [self._reader.map(blob) for blob in entry["buffers"]]
                self.values.update(rebuilding.load(content, buffers))
            except ModuleNotFoundError as exc:
                problem = missing(str(exc.name))
            except (Broken, rebuilding.NotRestored) as exc:
                problem = str(exc)
            except Exception as exc:  # noqa: BLE001 - of a class's own, or another version's
                problem = f"it cannot be restored here ({said(exc)})"
        if problem:
            self.failed.update(dict.fromkeys(entry["names"], problem))

    def _import(self, name: str) -> None:
        module = self.modules.pop(name)
        try:
            self.values[name] = self._namespace[name] = importlib.import_module(module)
        except ImportError as exc:
            self.modules[name] = module
            problem = missing(str(exc.name)) if isinstance(exc, ModuleNotFoundError) else said(exc)
            self.failed[name] = problem
