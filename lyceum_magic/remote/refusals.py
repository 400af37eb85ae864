"""Limits and errors of values that travel, and the words for them: for `values` and others."""

from __future__ import annotations

#: Maximum bytes of all values that travel with a cell, and of those that come back; of files too.
MAX_BYTES = 10 * 1024 * 1024
#: True on the cell's machine, where the package of this module is at the top level.
IS_REMOTE = __name__.count(".") == 1
#: The package of these modules on the run's machine: its present and its earlier name.
_OURS = ("lyceum_magic_remote", "lyceum_magic_there")


class PackError(ValueError):
    """A value cannot travel; the message is one sentence."""


class TooLarge(PackError):
    """A value takes more bytes than are left."""


class UnpackError(ValueError):
    """The bytes are no packed value, or one that cannot be made here; one sentence."""

    __module__ = "lyceum_magic"  # tracebacks of a run name it


def said(exc: BaseException) -> str:
    """Return an exception in a few words of one line."""
    text = " ".join(str(exc).split())[:200]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def where() -> str:
    return "where the cell runs" if IS_REMOTE else "here"


def unknown(module: str) -> str:
    """Return the reason why a pickle that needs a module cannot be loaded without it."""
    package = module.partition(".")[0]
    if IS_REMOTE or package in _OURS:
        return missing(package)
    # An index may have another package of the name that the cell made up.
    return (
        f"{package} is not installed here: if the cell made it, bring its file home with --save; "
        f"if not, pip install {package}"
    )


def missing(package: str) -> str:
    if package.partition(".")[0] in _OURS:  # pickled by an earlier version
        return "it holds something of the run itself"
    if package == "cloudpickle" and not IS_REMOTE:
        package = "'lyceum-magic[pickle]'"
        return f"cloudpickle is not installed here: pip install {package}"
    cure = f"add -r {package}" if IS_REMOTE else f"pip install {package}"
    return f"{package} is not installed {where()}: {cure}"
