"""An image's entry point: whether it runs what it is given, or takes it for its own arguments.

`docker run IMAGE sh -c SCRIPT` gives the words to the image's entry point. One that prepares the
container and then execs its arguments (`exec "$@"`) runs the script; `python3` or `echo` do not.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Sequence
from posixpath import basename, join, normpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker.models.containers import Container

#: Programs that run the command in their arguments, once they have taken their own options.
_WRAPPERS = frozenset({
    "catatonit", "chpst", "docker-init", "dumb-init", "env", "gosu", "ionice", "nice",
    "nohup", "numactl", "runuser", "setpriv", "stdbuf", "su-exec", "sudo", "time", "tini",
    "tini-static", "with-contenv",
})  # fmt: skip
#: Those of them that take a user's name before the command.
_TAKE_USER = frozenset({"chpst", "gosu", "su-exec"})
#: Programs that do so with `run` as their first argument.
_RUNNERS = frozenset({"conda", "hatch", "mamba", "micromamba", "pdm", "pipenv", "pixi", "poetry",
                      "uv"})  # fmt: skip
_SHELLS = frozenset({"ash", "bash", "dash", "ksh", "sh", "zsh"})
#: The entry point of s6-overlay, which starts services and then runs its arguments.
_S6_INIT = "/init"

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: A longer one is no script that a person wrote.
_MAX_SCRIPT_BYTES = 1 << 20
#: How many links a program may be away.
_MAX_LINKS = 8

_ARGUMENTS = r"""["']?\$(?:[@*]|\{[@*]\})["']?"""
_OPTIONS = r"(?:-[ugnp]\s+\S+\s+|-\S*\s+|\w+=\S*\s+)*"
_WRAPPED = (
    rf"(?:(?:\S*/)?(?:(?:{'|'.join(sorted(_WRAPPERS - _TAKE_USER))})\s+{_OPTIONS}"
    rf"|(?:{'|'.join(sorted(_TAKE_USER))})\s+{_OPTIONS}\S+\s+))*"
)
#: In a script: a command that is all of the script's arguments.
_RUNS_ARGUMENTS = re.compile(
    rf"^[^#\n]*?(?:^|[;&|]|\b(?:then|else|do|exec)\b)\s*(?:exec\s+)?{_WRAPPED}{_ARGUMENTS}(?:\s|;|$)",
    re.MULTILINE,
)
#: The same by way of an array, as Jupyter's images do.
_ARRAY = re.compile(rf"\b(\w+)=\(\s*(?:\S+\s+)*?{_ARGUMENTS}\s*\)")
#: Entry points in other languages.
_EXECS = re.compile(r"\bos\.exec\w+\(.*\bargv\b|\bexec\s*\(?\s*@ARGV\b|^\s*exec\b.*\bARGV\b", re.M)


def hands_over(entry_point: Sequence[str], read_script: Callable[[str], str | None]) -> bool:
    """Return whether an entry point runs the command that it gets as its last arguments.

    Args:
        entry_point: its words.
        read_script: gives the text of a program that is a script; None of any other.
    """
    words = list(entry_point)
    while words and basename(words[0]) in _WRAPPERS:
        words = _after_options(words)
    if not words:
        return True
    program, *arguments = words
    if basename(program) in _RUNNERS:
        return arguments[:1] == ["run"]
    if basename(program) in _SHELLS:
        options = [word for word in arguments if word.startswith("-")]
        others = [word for word in arguments if not word.startswith("-")]
        if not others:
            return False  # it takes the first word of the command for a script, or its file
        if any("c" in option.lstrip("-") for option in options):
            return _runs_arguments(others[0])
        program = others[0]
    if program == _S6_INIT:
        return True
    script = read_script(program)
    return script is not None and _runs_arguments(script)


def _after_options(words: list[str]) -> list[str]:
    wrapper, *rest = words
    if "--" in rest:
        return rest[rest.index("--") + 1 :]
    while rest and (rest[0].startswith("-") or "=" in rest[0]):
        rest = rest[1:]
    return rest[1:] if basename(wrapper) in _TAKE_USER else rest


def _runs_arguments(script: str) -> bool:
    if _RUNS_ARGUMENTS.search(script) or _EXECS.search(script) or "s6-" in script:
        return True
    return any(
        re.search(rf'"\$\{{{re.escape(array)}\[@\]\}}"', script) for array in _ARRAY.findall(script)
    )


def read_script(container: Container, program: str) -> str | None:
    """Return the text of a script in a created container; None for any other program."""
    config = container.attrs["Config"]
    if "/" in program:
        return _text_of(container, join(config.get("WorkingDir") or "/", program))
    variables = dict(each.partition("=")[::2] for each in config.get("Env") or ())
    for folder in (variables.get("PATH") or _PATH).split(":"):
        if (text := _text_of(container, join("/", folder, program))) is not None:
            return text or None
    return None


def _text_of(container: Container, path: str) -> str | None:
    """Return the text of a file that begins as scripts do; "" for other files, None if there is
    none.
    """
    from docker.errors import NotFound

    for _ in range(_MAX_LINKS):
        try:
            chunks, facts = container.get_archive(normpath(path))
        except NotFound:
            return None
        assert facts is not None  # the engine always says what it sends
        if facts["linkTarget"]:
            path = facts["linkTarget"]
            continue
        if not 0 < facts["size"] <= _MAX_SCRIPT_BYTES:
            break
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            file = archive.extractfile(archive.getmembers()[0])
            content = file.read() if file is not None else b""
        return content.decode("utf-8", "replace") if content.startswith(b"#!") else ""
    return ""
