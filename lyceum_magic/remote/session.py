"""A session's last snapshot -> the namespace of a cell; what the cell leaves -> the next snapshot.

A snapshot is a manifest, in JSON, and a pack of blobs; see `session_stores` and `packs`. A save
that fails leaves no snapshot, and the session as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import signal
import sys
import time

from . import compiling, frames, packs, rebuilding
from .library_changes import changes_of
from .packs import Broken, Mapped, PackReader, PackWriter, TooMuch
from .process_state import LibraryStates, Surface
from .replayed import MAX_LINES, future_flags, lines_of
from .restoring import PYTHON, Restored
from .saving import Saved, SaveTimeout, is_kept, pickle_namespace
from .session_stores import open_store
from .used_names import EVERYTHING, used_names
from .work_files import WorkFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

VERSION = 1
LIMITS = {"state_bytes": 5 << 30, "pickle_bytes": 256_000_000, "save_s": 60}
#: Lost names that are remembered, for the hint of a NameError.
_MAX_MISSING = 200


class SessionError(RuntimeError):
    """The session cannot be continued; one sentence."""

    __module__ = "lyceum_magic"  # tracebacks of a run name it


def begin(job: dict[str, Any], source: str, namespace: dict[str, Any], extra: Any = ()) -> Session:
    """Restore what a cell may use of its session.

    Args:
        job: `Job.session`.
        source: of the cell.
        namespace: of the cell.
        extra: names that are used beside those in the source, as those of `--out`.

    Raises:
        SessionError: the last cell is not there, or not as it was saved.
    """
    session = Session(job, namespace)
    try:
        session.restore(source, set(extra))
    except (Broken, KeyError, OSError, ValueError) as exc:
        problem = str(exc)
        if isinstance(exc, OSError):
            problem = f"its files cannot be read ({exc.strerror or type(exc).__name__})"
        elif not isinstance(exc, Broken):
            problem = "its last cell is not as it was saved"
        session.report(error=f"{problem}.")
        raise SessionError(
            f"Session {job['title']!r} cannot be continued: {problem}. Go back to an earlier "
            "cell with `%lyceum session checkout`."
        ) from None
    return session


class Session:
    """The session of one cell; see `begin`."""

    def __init__(self, job: dict[str, Any], namespace: dict[str, Any]) -> None:
        self._job = job
        self._limits = {**LIMITS, **job.get("limits", {})}
        self._namespace = namespace
        self._is_at_start = set(namespace)
        self._manifest: dict[str, Any] = {}
        self._mapped = Mapped()
        self._lines: list[dict[str, Any]] = []
        self._lost_late: dict[str, str] = {}
        self.future_flags = 0
        secrets = set(os.environ.get("LYCEUM_SECRET_NAMES", "").split(",")) - {""}
        self._store: Any = None
        with contextlib.suppress(Broken):
            self._store = open_store(job)
        secrets.add("LYCEUM_SECRET_NAMES")
        self._surface = Surface(os.getcwd(), secrets)
        self._files = WorkFiles(os.getcwd())
        self._states = LibraryStates({})

    # --- the beginning

    def restore(self, source: str, extra: set[str]) -> None:
        if self._store is None:
            raise Broken("this machine keeps no sessions")
        self._source = source
        parent = self._job["parent"]
        if parent is not None:
            self._manifest = self._read_manifest(parent)
        manifest = self._manifest
        path_of, is_checked = self._store.path_of, self._store.is_checked
        self._reader = PackReader(path_of, is_checked, self._mapped)
        self._restored = Restored(manifest, self._reader, self._namespace)
        self._lines = list(manifest.get("imports", []))
        self.future_flags = future_flags([line["source"] for line in self._lines])
        names = self._names_in(source) | extra
        entries = self._restored.wanted(names)
        self._store.prepare(self._blobs_of(entries))
        state = manifest.get("state", {})
        self._put_state(state)
        files = manifest.get("files", {})
        self._files.restore(files, manifest.get("folders", []), self._reader)
        self._surface.put_folder(state)
        self._restored.restore(names, entries)
        self._replay(names, entries)
        self._states.put()
        self._namespace["__getattr__"] = self._late_name

    def _late_name(self, name: str) -> Any:
        """Restore a name of `__main__` that code asks for by its text, as `pickle.load` does."""
        entries = self._restored.wanted({name}) if is_kept(name) else []
        if name in self._restored.failed or not entries:
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        self._store.prepare(self._blobs_of(entries))
        self._restored.restore({name}, entries)
        return self._namespace[name]

    def _read_manifest(self, parent: dict[str, str]) -> dict[str, Any]:
        content = self._store.manifest(parent["id"])
        if hashlib.sha256(content).hexdigest() != parent["sha256"]:
            raise Broken("its last cell is not as it was saved")
        manifest: dict[str, Any] = json.loads(content)
        if manifest["version"] != VERSION:
            raise Broken("its last cell was saved by another version of lyceum-magic")
        return manifest

    def _blobs_of(self, entries: list[dict[str, Any]]) -> list[Any]:
        blobs = [blob for entry in entries for blob in (entry["pickle"], *entry["buffers"])]
        blobs += [entry[:4] for entry in self._manifest.get("files", {}).values()]
        blobs += self._manifest.get("state", {}).get("blobs", [])
        return blobs

    def _names_in(self, source: str) -> set[str]:
        try:
            codes = compiling.compile_cell(source, "<cell>", is_shown=False)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return set()  # the cell will not run either
        return used_names(codes)

    def _put_state(self, state: dict[str, Any]) -> None:
        if not state:
            return
        libraries, filters = (self._reader.read(blob) for blob in state["blobs"])
        self._surface.put(state, filters)
        self._states = LibraryStates(pickle.loads(libraries))

    def _replay(self, names: set[str], entries: list[dict[str, Any]]) -> None:
        """Repeat lines of earlier cells, for what they do beside binding names."""
        tops = {top for line in lines_of(self._source) for top in line.tops} | names
        tops.update(top for entry in entries for top in entry["packages"])
        scope = dict(self._namespace)
        for line in self._lines:
            if not (tops & {*line["tops"], *line["names"]} or EVERYTHING in names):
                continue
            try:
                exec(compile(line["source"], "<cell>", "exec", dont_inherit=True), scope)
            except Exception as exc:  # noqa: BLE001 - a package of another machine
                for name in {*line["names"]} - self._namespace.keys():
                    self._restored.failed.setdefault(name, f"{line['source']} failed here: {exc}")

    # --- while the cell runs

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Turn SIGTERM into KeyboardInterrupt, and tell of names that were not kept."""
        self._pid = os.getpid()
        signal.signal(signal.SIGTERM, self._interrupt)
        try:
            yield
        except NameError as exc:
            self._explain(exc)
            raise
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until `end` has saved

    def _interrupt(self, number: int, frame: Any) -> None:
        if os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        frames.send_at_once("interrupted", {"key": self._job["key"]})
        raise KeyboardInterrupt

    def _explain(self, error: NameError) -> None:
        name = getattr(error, "name", None)
        if not isinstance(name, str) or not error.args:
            return
        title = self._job["title"]
        if name in self._restored.failed:
            hint = f"session {title!r} could not restore it here: {self._restored.failed[name]}"
        elif name in self._manifest.get("missing", {}):
            cell, reason = self._manifest["missing"][name]
            hint = f"session {title!r} did not keep it after cell {cell}: {reason}"
        else:
            return
        error.args = (f"{error.args[0]} ({hint})", *error.args[1:])

    # --- the end

    def end(self, namespace: dict[str, Any]) -> None:
        """Save the namespace; tell by a frame whether that worked."""
        snapshot = self._job["id"]
        try:
            with self._limited():
                content, lost = self._save(namespace)
                self._store.publish(snapshot, content)
        except BaseException as exc:  # noqa: BLE001 - the cell's own end counts
            self._clean()
            self.report(error=self._problem(exc))
            return
        self.report(sha256=hashlib.sha256(content).hexdigest(), lost=lost)

    def report(
        self, *, sha256: str = "", lost: dict[str, str] | None = None, error: str = ""
    ) -> None:
        head = {key: self._job[key] for key in ("key", "title", "branch", "cell", "id")}
        saved = self._manifest if sha256 else {}
        frames.send(
            "session",
            {
                "variables": len(saved.get("variables", {})),
                "bytes": sum(saved.get("packs", {}).values()),
                "lost": sorted((lost or {}).items()),
                "error": error,
            },
            exact={**head, "sha256": sha256},
        )

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Ignore signals that would end the save, and end it by its time limit."""

        def stop(number: int, frame: Any) -> None:
            raise SaveTimeout

        self._deadline = time.monotonic() + self._limits["save_s"]
        before = {
            number: signal.signal(number, signal.SIG_IGN)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, self._limits["save_s"])
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            before[signal.SIGTERM] = signal.SIG_DFL
            for number, handler in before.items():
                signal.signal(number, handler)

    def _problem(self, exc: BaseException) -> str:
        if isinstance(exc, SaveTimeout):
            return f"saving took more than {self._limits['save_s']} s."
        if isinstance(exc, OSError):
            return f"it could not be written ({exc.strerror or type(exc).__name__})."
        if isinstance(exc, MemoryError):
            return "saving took more memory than there is."
        if isinstance(exc, (Broken, TooMuch)):
            return f"{exc}."
        return f"it could not be saved ({type(exc).__name__}: {str(exc)[:200]})."

    def _clean(self) -> None:
        with contextlib.suppress(Exception):
            self._writer.discard()
        with contextlib.suppress(Exception):
            self._store.clean(self._job["id"])

    def _save(self, namespace: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        values = self._values(namespace)
        state = self._surface.take()
        filters, libraries = self._surface.take_filters(), self._states.take()
        saved = pickle_namespace(namespace, values, self._limits["pickle_bytes"], self._deadline)
        draft = self._store.draft_of(self._job["id"])
        known = [blob for entry in self._manifest.get("groups", []) for blob in self._all(entry)]
        max_bytes = self._limits["state_bytes"]
        self._writer = PackWriter(draft, self._job["id"], known, max_bytes)
        groups = [self._entry(part) for part in saved.parts]
        saved.lost.update({**self._lost_late, **changes_of(self._source, namespace)})
        carried = self._carried(namespace, saved)
        states = [self._writer.add(pickle.dumps(libraries, 5)), self._writer.add(filters)]
        files, folders = self._files.save(self._writer, saved.lost)
        self._writer.close()
        manifest = {
            "version": VERSION,
            **{key: self._job[key] for key in ("key", "title", "branch", "cell", "id", "parent")},
            "saved_at": time.time(),
            "python": PYTHON,
            "platform": sys.platform,
            "packages": self._packages(groups),
            "imports": self._imports(namespace),
            "modules": {**self._kept_modules(namespace), **saved.imports},
            "groups": [*carried, *groups],
            "variables": {**self._carried_variables(carried), **saved.variables},
            "lost": saved.lost,
            "missing": self._missing(namespace, saved),
            "state": {**state, "blobs": states},
            "files": files,
            "folders": folders,
        }
        self._count(manifest)
        self._manifest = manifest
        return json.dumps(manifest, sort_keys=True).encode(), saved.lost

    @staticmethod
    def _all(entry: dict[str, Any]) -> list[Any]:
        return [entry["pickle"], *entry["buffers"]]

    def _count(self, manifest: dict[str, Any]) -> None:
        """Put the bytes of each pack that are used into the manifest."""
        blobs = [blob for entry in manifest["groups"] for blob in self._all(entry)]
        blobs += [entry[:4] for entry in manifest["files"].values()]
        manifest["packs"] = packs.packs_of([*blobs, *manifest["state"]["blobs"]])
        total = sum(manifest["packs"].values())
        if total > self._limits["state_bytes"]:
            raise TooMuch(
                f"the state has {total:,} bytes, more than the {self._limits['state_bytes']:,} of "
                "the limit; delete what is not needed any more"
            )

    def _values(self, namespace: dict[str, Any]) -> dict[str, Any]:
        """Return what is to be pickled, with groups whose definitions the cell has replaced."""
        restored = self._restored
        values = {
            name: value
            for name, value in namespace.items()
            if is_kept(name) and name not in self._is_at_start
        }
        while True:
            stale = [entry for entry in restored.left if self._is_stale(entry, namespace, values)]
            if not stale:
                return values
            self._store.prepare(self._blobs_of(stale))
            names = {name for entry in stale for name in entry["names"]}
            late = restored.load(restored.wanted(names))
            values.update({n: v for n, v in late.items() if n not in namespace})
            for name in names - late.keys() - namespace.keys():
                self._lost_late[name] = restored.failed.get(name, "it cannot be restored")
            restored.left = [
                entry for entry in restored.left if not any(entry is one for one in stale)
            ]

    def _is_stale(
        self, entry: dict[str, Any], namespace: dict[str, Any], values: dict[str, Any]
    ) -> bool:
        """Return whether a group that was not restored cannot be passed on as it is."""
        restored = self._restored
        if any(name in namespace for name in entry["names"]):
            return True
        for need in entry["needs"]:
            if need in restored.values:
                if namespace.get(need, values.get(need)) is not restored.values[need]:
                    return True
            elif need in namespace:
                return True
        return False

    def _entry(self, part: Any) -> dict[str, Any]:
        content = self._writer.add(part.content)
        buffers = [self._writer.add_buffer(buffer, self._mapped) for buffer in part.buffers]
        return {
            "names": part.names,
            "needs": sorted(part.needs),
            "uses": sorted(part.uses),
            "pickle": content,
            "buffers": buffers,
            "packages": sorted(part.packages - {"", "builtins", rebuilding.PACKAGE}),
            "has_code": part.has_code,
            "has_cuda": part.has_cuda,
            "python": PYTHON,
        }

    def _carried(self, namespace: dict[str, Any], saved: Saved) -> list[dict[str, Any]]:
        """Return the groups that are passed on, but none that needs what is lost now."""
        known = {name for part in saved.parts for name in part.names}
        known.update(name for entry in self._restored.left for name in entry["names"])
        carried = []
        for entry in self._restored.left:
            lost = [name for name in entry["needs"] if name not in known]
            if lost:
                known.difference_update(entry["names"])
                problem = f"it needs {lost[0]}, which cannot be kept"
                saved.lost.update(dict.fromkeys(entry["names"], problem))
            else:
                carried.append(entry)
        return carried

    def _carried_variables(self, carried: list[dict[str, Any]]) -> dict[str, Any]:
        before = self._manifest.get("variables", {})
        names = {name for entry in carried for name in entry["names"]}
        return {name: before[name] for name in before.keys() & names}

    def _kept_modules(self, namespace: dict[str, Any]) -> dict[str, str]:
        return {n: m for n, m in self._restored.modules.items() if n not in namespace}

    def _missing(self, namespace: dict[str, Any], saved: Saved) -> dict[str, Any]:
        known = {*saved.variables, *saved.imports, *namespace}
        before = self._manifest.get("missing", {})
        found = {name: entry for name, entry in before.items() if name not in known}
        found.update({name: [self._job["cell"], why] for name, why in saved.lost.items()})
        return dict([*found.items()][-_MAX_MISSING:])

    def _imports(self, namespace: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the lines to repeat: those of earlier cells, then those of this one."""
        lines = {line["source"]: line for line in self._lines}
        for line in lines_of(self._source):
            is_import = line.source.startswith(("import ", "from "))
            if is_import and not line.tops & (sys.modules.keys() | {""}):
                continue  # the cell did not get that far
            tops = set(line.tops)
            for top in line.tops:
                module = getattr(namespace.get(top), "__module__", None)
                if isinstance(module, str):
                    tops.add(module.partition(".")[0])
            entry = {
                "source": line.source,
                "names": sorted(line.names),
                "tops": sorted(tops),
            }
            lines.pop(line.source, None)
            lines[line.source] = entry
        return [*lines.values()][-MAX_LINES:]

    def _packages(self, groups: list[dict[str, Any]]) -> dict[str, str]:
        found = dict(self._manifest.get("packages", {}))
        for top in {top for entry in groups for top in entry["packages"]}:
            version = getattr(sys.modules.get(top), "__version__", None)
            if isinstance(version, str):
                found[top] = version
        return found
