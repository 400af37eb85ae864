"""The cell's imports -> requirement lines, without running anything of the user's."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.metadata
import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ..exceptions import OptionError

#: Packages whose import name is not their name on the index, for those not installed here.
_INDEX_NAMES = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "Crypto": "pycryptodome",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "PyMuPDF",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}


def requirements_of(code: str, named: Iterable[str] = (), *, detect: bool = True) -> list[str]:
    """The requirement lines to send.

    Args:
        code: the cell; a cell that cannot be parsed here contributes nothing.
        named: what the user named: requirement lines, or paths of requirements files.
        detect: whether to add what the cell imports.

    Returns:
        The named lines as they are, then the detected ones in alphabetical order, pinned to the
        version installed here; a package that the user named is not added again.
    """
    lines = [line for item in named for line in _lines_of(item)]
    if not detect:
        return lines
    taken = {_distribution_key(line) for line in lines}
    found = {_requirement(name) for name in imported_names(code)}
    detected = sorted(
        (line for line in found if line and _distribution_key(line) not in taken), key=str.lower
    )
    return lines + detected


def imported_names(code: str) -> set[str]:
    """Top-level names that the code imports, anywhere in it, standard library left out."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"__main__"}


def _lines_of(item: str) -> list[str]:
    # Not Path's own methods: they raise for a home or a name that no file can have.
    path = Path(os.path.expanduser(item))
    if os.path.isfile(path):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise OptionError(f"-r: the requirements file {item} cannot be read: {exc}.") from exc
        lines = (line.strip() for line in text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]
    if item.endswith((".txt", ".in")):
        raise OptionError(f"-r: there is no file {item}; name a file that exists, or a package.")
    return [item]


def _requirement(name: str) -> str | None:
    """`name==version` for an installed package, a bare name for an unknown one, None for a local
    module."""
    installed = _installed(tuple(sys.path), _mtimes(tuple(sys.path)))
    if distribution := installed.get(name):
        return distribution
    if _is_local(name):
        return None
    return _INDEX_NAMES.get(name, name)


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...], _changed: tuple[float, ...]) -> dict[str, str]:
    """Import name -> `distribution==version`; built anew when a folder on the path changes."""
    found: dict[str, str] = {}
    for name, distributions in importlib.metadata.packages_distributions().items():
        version = importlib.metadata.version(distributions[0])
        found[name] = f"{distributions[0]}=={version}"
    return found


def _mtimes(path: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(os.stat(entry).st_mtime if os.path.isdir(entry) else 0.0 for entry in path)


def _is_local(name: str) -> bool:
    """Whether a module of this name lies on the path outside the installed packages."""
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    local = [entry or os.getcwd() for entry in sys.path if entry not in installed]
    return importlib.machinery.PathFinder.find_spec(name, local) is not None


def _distribution_key(line: str) -> str:
    """The package a requirement line names, in the form in which names are compared."""
    name = re.split(r"[^\w.-]", line.strip(), maxsplit=1, flags=re.ASCII)[0]
    return re.sub(r"[-_.]+", "-", name).lower()
