"""The imports of a cell -> the local modules that it needs, and its imports from elsewhere.

All of it is read, nothing is imported: finding a submodule in Python's own way would run its
package.
"""

from __future__ import annotations

import ast
import codecs
import contextlib
import importlib.machinery
import io
import os
import re
import site
import sys
import sysconfig
import tokenize
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType

from packaging.utils import canonicalize_name

from ..exceptions import OptionError

#: Maximum bytes of source that travel: more is a whole project, and belongs into a package.
MAX_MODULE_BYTES = 8 * 1024 * 1024
#: A package with more source than this travels only as far as its imports can be read.
MAX_WHOLE_BYTES = 2 * 1024 * 1024

_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)
#: PEP 263: the beginning of a file's encoding cookie, up to the name.
_COOKIE = re.compile(r"^([ \t\f]*#.*?coding[:=][ \t]*)[-\w.]+")
_CATCHING_IMPORTS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


class Origin(Enum):
    """The places in which an import can find a module."""

    STANDARD = "the interpreter"
    INSTALLED = "an installed package"
    LOCAL = "the user's own files"
    UNKNOWN = "nowhere"


@dataclass(frozen=True)
class Import:
    """The names in one import.

    Attributes:
        module: dotted, absolute; as it is written where `level` says that it is relative.
        names: the names taken from it; `*` for all.
        is_optional: the program may do without it: it expects that it is missing, or may not come
            to the import.
        level: the dots before it.
    """

    module: str
    names: tuple[str, ...] = ()
    is_optional: bool = False
    level: int = 0

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Needs:
    """The modules that a cell needs.

    Attributes:
        files: path below an import root, with `/` -> source; the cell's own modules.
        imports: what the cell and those modules import from anywhere else but the standard
            library.
    """

    files: dict[str, str] = field(default_factory=dict)
    imports: frozenset[Import] = frozenset()


def find_needs(imports: Iterable[Import], *, apart_from: Collection[str] = ()) -> Needs:
    """Find the local modules that imports lead to, directly or not, and what else these import.

    Args:
        imports: those of a cell.
        apart_from: top-level names to be looked for elsewhere, whether they are local or not.

    Raises:
        OptionError: a module that is needed cannot travel: it is compiled, or no text, or all
            modules together are too large.
    """
    search = _Search(apart_from)
    search.follow([*imports])
    search.check_size()
    return Needs(search.files, frozenset(search.outside))


def imports_of(tree: ast.AST | None) -> tuple[Import, ...]:
    """Return the imports anywhere in a source, except those for type checkers.

    Args:
        tree: None for a source that this Python cannot parse, of which nothing is known.
    """
    return () if tree is None else tuple(_imports_in(tree))


@lru_cache(maxsize=1024)  # a project's modules, of which few change between two runs
def _imports_of_file(file: str, changed_ns: int, size: int) -> tuple[Import, ...]:
    try:
        return imports_of(ast.parse(_read(file)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def _imports_in(tree: ast.AST) -> Iterator[Import]:
    left = [(tree, False)]  # no recursion: a long sum is a deep tree
    while left:
        node, is_optional = left.pop()
        children: Iterable[ast.AST] = ast.iter_child_nodes(node)
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(alias.name, (), is_optional)
            case ast.ImportFrom():
                names = tuple(alias.name for alias in node.names)
                yield Import(node.module or "", names, is_optional, node.level)
            case ast.If() if _is_type_checking(node.test):
                children = node.orelse
            case ast.If() if not _is_main(node.test):
                is_optional = True  # it may never come to it
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                is_optional = True
            case ast.Try() | ast.TryStar():
                is_optional = is_optional or any(map(_catches_imports, node.handlers))
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)):
                if called in ("import_module", "__import__"):
                    yield from _imports_by_call(node)
        left += [(child, is_optional) for child in children]


def _imports_by_call(call: ast.Call) -> Iterator[Import]:
    # Optional, since it may be any function of this name.
    match call.args:
        case [ast.Constant(value=str(name)), *_] if all(map(str.isidentifier, _parts(name))):
            module = name.lstrip(".")
            yield Import(module, (), True, len(name) - len(module))


def _parts(name: str) -> list[str]:
    return name.lstrip(".").split(".")


def _is_type_checking(test: ast.expr) -> bool:
    match test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
    return False


def _is_main(test: ast.expr) -> bool:
    match test:
        case ast.Compare(
            left=ast.Name(id="__name__"), comparators=[ast.Constant(value="__main__")]
        ):
            return True
    return False


def _catches_imports(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None
        or (isinstance(kind, ast.Name) and kind.id in _CATCHING_IMPORTS)
        or (isinstance(kind, ast.Attribute) and kind.attr in _CATCHING_IMPORTS)
        for kind in caught
    )


# --- following imports -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Module:
    """A module that was found: its file, the folders of its submodules, or both.

    A package without a file is a namespace.
    """

    origin: Origin
    file: str | None = None
    folders: tuple[str, ...] = ()
    is_package: bool = False


#: A module-level `__getattr__`, or an import of what an expression says.
_IMPORTS_BY_NAME = re.compile(
    r"""^def\ __getattr__\( | \b(?:import_module|__import__)\(\s*(?!['"\s])""", re.M | re.X
)


class _Search:
    """A search that follows imports from file to file, each once."""

    def __init__(self, apart_from: Collection[str]) -> None:
        self.files: dict[str, str] = {}
        self.outside: set[Import] = set()
        self._apart_from = {canonicalize_name(name) for name in apart_from}
        self._left: list[tuple[Sequence[Import], str]] = []
        self._paths: dict[str, str] = {}  # where the files lie here
        self._found: dict[str, _Module | None] = {}
        self._names_in: dict[str, frozenset[str]] = {}
        self._whole: dict[str, bool] = {}  # packages of which all travels -> whether it is taken

    def follow(self, imports: Sequence[Import]) -> None:
        """Take all modules that the imports of a cell lead to."""
        self._left.append((imports, ""))
        self._follow_all()
        while waiting := [name for name, is_taken in self._whole.items() if not is_taken]:
            for name in waiting:
                self._take_whole(name)
            self._follow_all()

    def _follow_all(self) -> None:
        while self._left:
            items, package = self._left.pop()
            for item in items:
                absolute = item if not item.level else _resolve(item, package)
                if absolute is not None and absolute.module != "__main__":
                    self._follow_one(absolute)

    def _follow_one(self, item: Import) -> None:
        top = None if canonicalize_name(item.top) in self._apart_from else self._find(item.top)
        if top is None or top.origin is Origin.INSTALLED:
            self.outside.add(item)
            return
        if top.origin is Origin.STANDARD:
            return
        is_local = self._take(item.module, is_optional=item.is_optional)
        module = self._find(item.module)
        names = item.names
        if "*" in names and module is not None and module.file is not None:
            names = _names_for_star(module.file)
        for name in names:
            part = f"{item.module}.{name}"
            if self._find(part) is not None:
                is_local = self._take(part, is_optional=item.is_optional) and is_local
            elif _is_namespace(module):
                is_local = False
        if not is_local and _is_namespace(top):
            self.outside.add(item)  # another part of the namespace may be installed, or missing

    def _take(self, name: str, *, is_optional: bool) -> bool:
        """Take a module and the packages around it; return whether all are the user's own."""
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            part = ".".join(parts[:end])
            module = self._find(part)
            if module is None or module.origin is not Origin.LOCAL:
                return False
            if module.file is not None:
                self._take_file(part, module, is_optional=is_optional)
        return True

    def _take_file(self, name: str, module: _Module, *, is_optional: bool) -> None:
        assert module.file is not None
        path = name.replace(".", "/") + ("/__init__.py" if module.is_package else ".py")
        if path in self.files:
            return
        if not module.file.endswith(".py"):
            if is_optional:
                return
            raise OptionError(
                f"The cell imports {name}, which is {module.file}: only source can travel; build "
                "a wheel that -r can name, or guard the import with `except ImportError`."
            )
        raw = _read(module.file)
        status = os.stat(module.file)
        imports = _imports_of_file(module.file, status.st_mtime_ns, status.st_size)
        self.files[path] = _decode(raw, module.file)
        self._paths[path] = module.file
        package = name if module.is_package else name.rpartition(".")[0]
        if is_optional:
            imports = tuple(replace(item, is_optional=True) for item in imports)
        self._left.append((imports, package))
        if package and _IMPORTS_BY_NAME.search(self.files[path]):
            self._whole.setdefault(name.partition(".")[0], False)

    def _take_whole(self, package: str) -> None:
        """Take all modules of a package that imports some by computed names."""
        self._whole[package] = True
        top = self._find(package)
        sources = [
            path for folder in (top.folders if top else ()) for path in Path(folder).rglob("*.py")
        ]
        if sum(path.stat().st_size for path in sources) > MAX_WHOLE_BYTES:
            return  # the modules that were found by name must suffice
        left = [package]
        while left:
            name = left.pop()
            module = self._find(name)
            for folder in module.folders if module is not None else ():
                for entry in sorted(os.listdir(folder)):
                    part = f"{name}.{entry.removesuffix('.py')}"
                    if entry == "__pycache__" or not entry.removesuffix(".py").isidentifier():
                        continue
                    found = self._find(part)
                    if found is None or found.origin is not Origin.LOCAL:
                        continue
                    if found.file is not None:
                        self._take_file(part, found, is_optional=True)
                    if found.is_package:
                        left.append(part)

    def check_size(self) -> None:
        """Check the size of all modules.

        Raises:
            OptionError: they are too large; it names the biggest files.
        """
        sizes = {path: len(text.encode()) for path, text in self.files.items()}
        if sum(sizes.values()) <= MAX_MODULE_BYTES:
            return
        biggest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
        named = ", ".join(f"{self._paths[path]} ({sizes[path]:,} bytes)" for path in biggest)
        raise OptionError(
            f"The local modules that the cell imports may have {MAX_MODULE_BYTES:,} bytes, and "
            f"have {sum(sizes.values()):,}; the biggest are {named}. Make a package of them."
        )

    # Finding.

    def _find(self, name: str) -> _Module | None:
        if name not in self._found:
            self._found[name] = self._look_for(name)
        return self._found[name]

    def _look_for(self, name: str) -> _Module | None:
        package, _, tail = name.rpartition(".")
        if package:
            parent = self._find(package)
            found = None if parent is None else self._on_path(tail, parent.folders)
            return found or self._in_editable_install(name)
        if name in sys.builtin_module_names or importlib.machinery.FrozenImporter.find_spec(name):
            return _Module(Origin.STANDARD)
        # A module that is imported already keeps its file, even if the path has changed since.
        if (file := _file_of_imported(name)) is not None:
            folder, base = os.path.split(file)
            if base.startswith("__init__."):
                folder, base = os.path.split(folder)
            if (found := self._at(folder, base.partition(".")[0])) is not None:
                return found
        found = self._on_path(name, _import_folders())
        found = found or self._in_editable_install(name)
        if found is None and (name in sys.modules or name in sys.stdlib_module_names):
            return _Module(Origin.STANDARD)  # made by a program, or for another system
        return found

    def _in_editable_install(self, name: str) -> _Module | None:
        places = _editable_places()
        if name in places:
            folder, base = os.path.split(places[name])
            return self._at(folder, base.removesuffix(".py"))
        if any(place.startswith(f"{name}.") for place in places):
            return _Module(Origin.LOCAL, is_package=True)
        return None

    def _on_path(self, name: str, folders: Sequence[str]) -> _Module | None:
        """Find a module as the import system does: the first file, else all folders of the name."""
        parts: list[_Module] = []
        for folder in folders:
            found = self._at(folder, name)
            if found is not None and found.file is not None:
                return found
            if found is not None:
                parts.append(found)
        if not parts:
            return None
        origins = {part.origin for part in parts}
        return _Module(
            Origin.LOCAL if Origin.LOCAL in origins else parts[0].origin,
            folders=tuple(folder for part in parts for folder in part.folders),
            is_package=True,
        )

    def _at(self, folder: str, name: str) -> _Module | None:
        # By listing, not by asking for a name: some file systems do not tell `A` from `a`.
        names = self._list(folder)
        inner = os.path.join(folder, name)
        is_folder = name in names and os.path.isdir(inner)
        origin = _origin_of(folder)
        if is_folder:
            for suffix in (*_EXTENSIONS, ".py", ".pyc"):
                if f"__init__{suffix}" in self._list(inner):
                    file = os.path.join(inner, f"__init__{suffix}")
                    return _Module(origin, file, (inner,), is_package=True)
        for suffix in (*_EXTENSIONS, ".py", ".pyc"):
            if f"{name}{suffix}" in names and os.path.isfile(inner + suffix):
                return _Module(origin, inner + suffix)
        return _Module(origin, None, (inner,), is_package=True) if is_folder else None

    def _list(self, folder: str) -> frozenset[str]:
        if folder not in self._names_in:
            try:
                names = os.listdir(folder)
            except OSError:  # the path may name what is no folder, or not there
                names = []
            self._names_in[folder] = frozenset(names)
        return self._names_in[folder]


def _resolve(item: Import, package: str) -> Import | None:
    """Return a relative import as an absolute one; None where it leaves its top-level package."""
    parts = package.split(".") if package else []
    if item.level > len(parts):
        return None
    base = parts[: len(parts) - item.level + 1]
    module = ".".join([*base, item.module] if item.module else base)
    return Import(module, item.names, item.is_optional)


def _is_namespace(module: _Module | None) -> bool:
    return module is not None and module.is_package and module.file is None


def _names_for_star(file: str) -> tuple[str, ...]:
    """Return the names in a literal `__all__`."""
    try:
        tree = ast.parse(_read(file))
    except (SyntaxError, ValueError):
        return ()
    return tuple(
        str(item.value)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
        and any(
            isinstance(target, ast.Name) and target.id == "__all__"
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
        and isinstance(node.value, ast.List | ast.Tuple)
        for item in node.value.elts
        if isinstance(item, ast.Constant)
    )


# --- where things lie ------------------------------------------------------------------------


def _origin_of(folder: str) -> Origin:
    """Return the origin of the modules in a folder of the import path."""
    standard, installed = _known_folders()
    real = os.path.realpath(folder)
    # Packages lie inside of the standard library's folder, so they come first.
    if {"site-packages", "dist-packages"} & set(real.split(os.sep)) or real.startswith(installed):
        return Origin.INSTALLED
    if f"{real}{os.sep}".startswith(standard):
        return Origin.STANDARD
    return Origin.LOCAL


@cache
def _known_folders() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the standard library's folders, and those of installed packages."""

    def real(folders: Sequence[str]) -> tuple[str, ...]:
        return tuple(os.path.realpath(folder) + os.sep for folder in folders)

    standard = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    installed = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    return real(standard), real([*installed, *site.getsitepackages()])


def _editable_places() -> dict[str, str]:
    """Return the file or folder of each module whose editable install is no folder on the path.

    setuptools makes a finder for each of them, with a table.
    """
    places: dict[str, str] = {}
    for finder in sys.meta_path:
        home = getattr(finder, "__module__", "")
        if home.startswith("__editable__") and home in sys.modules:
            table = vars(sys.modules[home]).get("MAPPING", {})
            places.update((str(name), str(place)) for name, place in table.items())
    return places


def _import_folders() -> list[str]:
    """Return the folders of the import path, without the current one if that was deleted."""
    folders = []
    for entry in sys.path:
        with contextlib.suppress(OSError):
            folders.append(os.path.abspath(entry))
    return folders


def _file_of_imported(name: str) -> str | None:
    """Return the file of a module that is imported already; None if it has none."""
    module = sys.modules.get(name)
    # The module's own dictionary: asking the module may run its `__getattr__`.
    file = vars(module).get("__file__") if type(module) is ModuleType else None
    return os.path.abspath(file) if isinstance(file, str) and os.path.isfile(file) else None


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as exc:
        raise OptionError(
            f"The cell needs the module {file}, which cannot be read: {exc.strerror}."
        ) from exc


def _decode(raw: bytes, file: str) -> str:
    """Return a module's text, whose encoding cookie names UTF-8, in which it travels."""
    try:
        encoding, first = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
    except (SyntaxError, UnicodeDecodeError) as exc:
        raise OptionError(
            f"The cell needs the module {file}, which is no text that Python can read: {exc}."
        ) from exc
    if codecs.lookup(encoding.removesuffix("-sig")).name == "utf-8":
        return text
    lines = text.split("\n")
    lines[: len(first)] = [_COOKIE.sub(r"\1utf-8", line) for line in lines[: len(first)]]
    return "\n".join(lines)
