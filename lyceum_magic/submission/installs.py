"""The lines of a cell that install packages -> requirements, and the cell without these lines.

A run's packages are there before its program starts, so `%pip install X` counts as `-r X`.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

from ..exceptions import OptionError
from .source import ParsedCell

#: The beginnings of commands that install, in a magic or for a shell.
_INSTALLS = re.compile(
    r"(?:(?:\{sys\.executable\}|\S*python[\d.]*)\s+-m\s+)?(?:uv\s+)?pip[\d.]*\s+install(?:\s+|$)"
)
#: Magics of a notebook that have no counterpart on the machine.
_CONDA = re.compile(r"(?:conda|mamba|micromamba)\s+install(?:\s|$)")
#: Options of pip that make no difference there.
_WITHOUT_EFFECT = {
    "-I", "-U", "-q", "-qq", "-qqq", "-v", "-vv", "-vvv", "--break-system-packages",
    "--disable-pip-version-check", "--force-reinstall", "--ignore-installed", "--no-cache",
    "--no-cache-dir", "--no-color", "--no-input", "--no-warn-script-location", "--quiet",
    "--system", "--upgrade", "--user", "--verbose",
}  # fmt: skip
#: The same, each with a value.
_VALUES_WITHOUT_EFFECT = {
    "--cache-dir", "--progress-bar", "--retries", "--root-user-action", "--timeout",
    "--upgrade-strategy",
}  # fmt: skip
#: Options that a requirements file has too, those with a value last.
_OF_FILES = {"--no-index", "--pre", "--prefer-binary"}
_OF_FILES_WITH_VALUES = {
    "-c", "-e", "-f", "-i", "--constraint", "--editable", "--extra-index-url", "--find-links",
    "--index-url", "--no-binary", "--only-binary", "--trusted-host",
}  # fmt: skip


def take_installs(cell: ParsedCell) -> tuple[ParsedCell, list[str]]:
    """Take the lines that install packages out of a cell.

    Args:
        cell: its `%` and `!` lines are calls of `get_ipython()`.

    Returns:
        The cell, with everything else in its place, and the requirement lines and files that it
        named.

    Raises:
        OptionError: a line says what cannot be known or done before the cell runs.
    """
    code = cell.code
    if cell.tree is None or "get_ipython" not in code or "install" not in code:
        return cell, []
    lines = re.split(r"\r\n|\n|\r", code)  # as Python counts them
    named: list[str] = []
    # From the end, so that what is changed moves nothing that is left.
    calls = sorted(
        _commands_in(cell.tree), key=lambda found: (-found[0].lineno, -found[0].col_offset)
    )
    for call, sign, command in calls:
        if sign == "%" and _CONDA.match(command):
            raise OptionError(
                f"`%{command[:80]}`: packages come from a Python index here, before the cell runs; "
                "write `%pip install NAME`, or -r NAME in the first line."
            )
        words = _words_of(command)
        if words is None:
            continue
        at = call.lineno - cell.first_line
        line = lines[at].encode()
        before, after = line[: call.col_offset].decode(), line[call.end_col_offset :].decode()
        # A traceback shows it as it was written.
        said = f"  # {sign}{command}" if not after.strip() else ""
        lines[at] = f"{before}None{after.rstrip()}{said}"
        call.func, call.args = ast.Constant(None), []  # in the tree too it calls nothing
        named[:0] = _requirements_in(words, f"{sign}{command}")
    return replace(cell, code="\n".join(lines)), named


def _commands_in(tree: ast.AST) -> Iterator[tuple[ast.Call, str, str]]:
    """Yield each call that stands for a `%` or `!` line, with its sign and the text after it."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Call(func=ast.Name(id="get_ipython"), args=[]), attr=method
                ),
                args=[ast.Constant(value=str(first)), *more],
            ) if node.end_lineno == node.lineno:
                match method, more:
                    case "system", []:
                        yield node, "!", first
                    case "run_line_magic", [ast.Constant(value=str(line))]:
                        yield node, "%", f"{first} {line}"


def _words_of(command: str) -> list[str] | None:
    """Return the words after `pip install`; None for any other command."""
    command = command.strip()
    begin = _INSTALLS.match(command)
    if begin is None:
        return None
    if re.search(r"[{$]", command[begin.end() :]):
        raise OptionError(
            f"`{command[:80]}` names a variable, whose value is known only when the cell runs; "
            "name the package, or use -r."
        )
    if re.search(r";|&&|\|\|", re.sub(r"'[^']*'|\"[^\"]*\"", "", command)):
        return None  # it does more than install
    try:
        words = shlex.split(command[begin.end() :])
    except ValueError as exc:
        raise OptionError(f"`{command[:80]}` cannot be split into words: {exc}.") from None
    kept: list[str] = []
    for word in words:
        if word.startswith("#") or word == "|" or re.match(r"(\d|&)?>", word):
            break  # a comment, or where its output goes
        kept.append(word)
    return kept


def _requirements_in(words: list[str], command: str) -> list[str]:
    found: list[str] = []
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if word in _WITHOUT_EFFECT:
            continue
        if word in _OF_FILES:
            found.append(word)
            continue
        if option in (*_VALUES_WITHOUT_EFFECT, *_OF_FILES_WITH_VALUES, "-r", "--requirement"):
            value = value if equals else next(left, "")
            if not value:
                raise OptionError(f"`{command[:80]}`: {option} needs a value.")
            if option in ("-r", "--requirement"):
                if not os.path.isfile(os.path.expanduser(value)):
                    raise OptionError(f"`{command[:80]}`: there is no file {value}.")
                found.append(value)
            elif option in _OF_FILES_WITH_VALUES:
                found.append(f"{option} {value}")
            continue
        if word.startswith("-"):
            raise OptionError(
                f"`{command[:80]}`: the option {word} is not understood here, where the packages "
                "are installed before the cell runs; leave it out, or use -r in the first line."
            )
        found.append(word)
    return found
