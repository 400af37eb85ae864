"""The imports of a cell -> requirement lines, without running any package."""

from __future__ import annotations

import importlib.metadata
import ipaddress
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..exceptions import OptionError
from ..protocol.redaction import without_password
from .modules import Import

#: Modules whose names are not their packages' on the index, for those not installed here. Empty:
#: a name that packages share, and whose namesake on the index is another package.
_INDEX_NAMES = {
    "azure": "",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "Crypto": "pycryptodome",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "PyMuPDF",
    "google": "",
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.cloud.bigquery": "google-cloud-bigquery",
    "google.cloud.storage": "google-cloud-storage",
    "google.genai": "google-genai",
    "google.generativeai": "google-generativeai",
    "google.oauth2": "google-auth",
    "google.protobuf": "protobuf",
    "googleapiclient": "google-api-python-client",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
#: Names that many packages share -> of how many names their own names on the index are made.
_NAMESPACES = {
    "azure": 2,
    **dict.fromkeys(
        [f"azure.{name}" for name in ("ai", "communication", "data", "iot", "keyvault", "mgmt",
                                      "monitor", "search", "storage")], 3
    ),
    "backports": 2,
    "google.cloud": 3,
    "jaraco": 2,
    "ruamel": 2,
    "sphinxcontrib": 2,
    "zope": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Requirements:
    """The packages to install on the machine.

    Attributes:
        lines: of a requirements file.
        notes: sentences about packages that cannot be asked for.
        guesses: probable names on the index of packages that are not installed here. They are not
            asked for: the cell may write such a module itself, and anybody may have taken its name
            on the index.
    """

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)


def read_named(named: Iterable[str]) -> list[str]:
    """Return the requirement lines that the user named.

    Args:
        named: requirement lines, or paths of requirements files.

    Raises:
        OptionError: a file that is not there, or a line that is no requirement.
    """
    return [line for item in named for line in _lines_of(item)]


def names_in(lines: Iterable[str]) -> set[str]:
    """Return the packages that requirement lines name, as canonical names."""
    parsed = map(_parsed, lines)
    return {canonicalize_name(requirement.name) for requirement in parsed if requirement}


def is_namespace(module: str) -> bool:
    """Return whether many packages bring parts of this module, and none has its name."""
    return module in _NAMESPACES or _INDEX_NAMES.get(module) == ""


def requirements_of(imports: Iterable[Import], named: Sequence[str] = ()) -> Requirements:
    """Return the requirements for the imports of a cell.

    Args:
        imports: those that no local module serves, see `modules.find_needs`.
        named: lines that the user named, see `read_named`.

    Returns:
        The named lines as they are, then the others in alphabetical order, pinned to the version
        installed here; a package that the user named is not added again, and one that is not
        installed here is only guessed.
    """
    taken = names_in(named)
    lines: set[str] = set()
    notes: set[str] = set()
    guesses: set[str] = set()
    for item in imports:
        installed = _distributions(item)
        for name in installed:
            if canonicalize_name(name) not in taken:
                line, note = _line_for(name)
                lines |= {line} if line else set()
                notes |= {note} if note else set()
        if not installed and not item.is_optional:
            guess = _name_on_index(item)
            if guess and canonicalize_name(guess) not in taken:
                guesses.add(guess)
    return Requirements(
        [*named, *sorted(lines, key=str.lower)], sorted(notes), sorted(guesses, key=str.lower)
    )


# --- what the user named ---------------------------------------------------------------------


def _lines_of(item: str) -> list[str]:
    # Not Path's own methods: they raise for a home or a name that no file can have.
    path = Path(os.path.expanduser(item))
    if os.path.isfile(path):
        return list(_lines_in(path, ()))
    if item.endswith((".txt", ".in")):
        shown = without_password(item)
        raise OptionError(f"-r: there is no file {shown}; name a file that exists, or a package.")
    _check(item, "")
    return [item]


def _lines_in(path: Path, around: tuple[Path, ...]) -> Iterator[str]:
    """Yield the lines of a requirements file and of those that it includes.

    Args:
        around: the files that include this one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise OptionError(f"-r: the requirements file {path} cannot be read: {exc}.") from exc
    for line in map(str.strip, text.replace("\\\n", " ").split("\n")):
        if included := re.fullmatch(r"(?:-r|--requirement)[\s=]*(\S+)", line):
            file = path.parent / included[1]
            if not file.is_file() or file in around:
                shown = without_password(included[1])
                raise OptionError(f"-r: {path} includes {shown}, which is no file beside it.")
            yield from _lines_in(file, (*around, path))
        elif line and not line.startswith("#"):
            _check(line, f" in {path}")
            yield line


def _check(line: str, where: str) -> None:
    """Check that a line of requirements can be installed on another machine.

    Raises:
        OptionError: the line says nothing that can be installed elsewhere.
    """
    shown = repr(without_password(line)[:80])
    if re.match(r"(-e|--editable|-c|--constraint)\b", line):
        raise OptionError(f"-r: {shown}{where} means a file of this machine; name packages.")
    try:
        _parsed(line)
    except InvalidRequirement as exc:
        why = without_password(str(exc).partition("\n")[0]).rstrip(".")
        advice = "`name @ URL`" if "://" in line else "'numpy>=2', or name a file that exists"
        raise OptionError(
            f"-r: {shown}{where} is no requirement ({why}); write {advice}."
        ) from None


@lru_cache(maxsize=1024)
def _parsed(line: str) -> Requirement | None:
    """Return a line as a requirement; None for an option, which the server judges."""
    if line.startswith("-"):
        return None
    return Requirement(re.sub(r"(^|\s)(#|--).*", "", line).strip())


# --- what is installed -----------------------------------------------------------------------


def _distributions(item: Import) -> list[str]:
    """Return the installed packages that an import takes something from."""
    providers = _providers(tuple(sys.path), _mtimes(tuple(sys.path))).get(item.top, [])
    if len(providers) < 2 and _INDEX_NAMES.get(item.top) != "":
        return providers
    # Parts of a namespace, or several packages that bring the same: only the files can tell.
    owners = {name: _modules_of(name) for name in providers}
    wanted = [f"{item.module}.{name}" for name in item.names] or [item.module]
    chosen = {_owner(part, owners) for part in wanted}
    return sorted(name for name in chosen if name is not None)


def _owner(module: str, owners: Mapping[str, frozenset[str]]) -> str | None:
    """Return the package whose file an import of `module` reads, or that of its parent."""
    while module:
        having = [name for name, modules in owners.items() if module in modules]
        if having:
            guess = canonicalize_name(_INDEX_NAMES.get(module, module))
            return min(having, key=lambda name: (canonicalize_name(name) != guess, name))
        module = module.rpartition(".")[0]
    return None


@lru_cache(maxsize=1)
def _providers(path: tuple[str, ...], _changed: tuple[float, ...]) -> dict[str, list[str]]:
    """Return top-level name -> the packages that bring it.

    It is built again when a folder on the path changes.
    """
    _modules_of.cache_clear()
    _line_for.cache_clear()
    found = importlib.metadata.packages_distributions()
    return {name: list(dict.fromkeys(packages)) for name, packages in found.items()}


def _mtimes(path: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(os.stat(entry).st_mtime if os.path.isdir(entry) else 0.0 for entry in path)


@lru_cache(maxsize=256)
def _modules_of(distribution: str) -> frozenset[str]:
    """Return the modules that a package brought, dotted."""
    return frozenset(_modules_in(map(str, importlib.metadata.files(distribution) or ())))


def _modules_in(files: Iterable[str]) -> Iterator[str]:
    for file in files:
        stem, _, suffix = file.partition(".")
        if suffix == "py" or suffix.endswith(("so", "pyd")):
            yield stem.removesuffix("/__init__").replace("/", ".")


@lru_cache(maxsize=1024)
def _line_for(name: str) -> tuple[str, str]:
    """Return the line that asks for the version installed here, or a note why there is none."""
    package = importlib.metadata.distribution(name)
    source = _direct_url(package)
    if source is None:
        return f"{name}=={_public(package.version)}", ""
    if (url := _public_url(source)) is not None:
        return f"{name} @ {url}", ""
    return "", (
        f"{name} was installed from {_kind_of(source)}, so no other machine can install it, and it "
        "is not sent; name with -r what to install in its place"
    )


def _public(version: str) -> str:
    """Return a version as an index has it, without a local tag such as `+cu121`."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def _direct_url(package: importlib.metadata.Distribution) -> dict[str, Any] | None:
    """Return the source of a package that was not installed from an index (PEP 610)."""
    if (package.read_text("INSTALLER") or "").strip() == "conda":
        return None  # its packages name the folder in which they were built
    try:
        source = json.loads(package.read_text("direct_url.json") or "null")
    except ValueError:
        return None
    return source if isinstance(source, dict) and isinstance(source.get("url"), str) else None


def _public_url(source: Mapping[str, Any]) -> str | None:
    """Return the URL for a requirement line, if it is public."""
    parts = urlsplit(source["url"])
    if parts.scheme != "https" or "@" in parts.netloc or not _is_public(parts.hostname or ""):
        return None
    url, vcs = source["url"], source.get("vcs_info")
    if isinstance(vcs, dict):
        url = f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', 'HEAD')}"
    folder = source.get("subdirectory")
    return f"{url}#subdirectory={folder}" if folder else str(url)


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".local", ".internal", ".lan", ".localhost"))


def _kind_of(source: Mapping[str, Any]) -> str:
    if not source["url"].startswith("file:"):
        return "an address that is not public"
    return "a folder of this machine" if "dir_info" in source else "a file of this machine"


# --- what is not -----------------------------------------------------------------------------


def _name_on_index(item: Import) -> str:
    """Return the probable name of a package that is not installed here; empty if unknown."""
    for module in [f"{item.module}.{name}" for name in item.names] + [item.module]:
        if found := _name_in_namespace(module):
            return found
        while module:
            if module in _INDEX_NAMES:
                if _INDEX_NAMES[module]:
                    return _INDEX_NAMES[module]
                break
            module = module.rpartition(".")[0]
    return "" if item.top in _NAMESPACES else _INDEX_NAMES.get(item.top, item.top)


def _name_in_namespace(module: str) -> str:
    """Return the name of a package in a namespace, such as `azure-storage-blob`."""
    parts = module.split(".")
    around = [".".join(parts[:length]) for length in (2, 1)]
    count = next((_NAMESPACES[name] for name in around if name in _NAMESPACES), 0)
    if not 0 < count <= len(parts):
        return ""
    return re.sub(r"_v\d\w*$", "", "-".join(parts[:count])).replace("_", "-")
