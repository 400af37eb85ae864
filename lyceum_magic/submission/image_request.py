"""The spec of an image -> the start request that travels."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from ..exceptions import OptionError
from ..protocol.requests import SessionStep, StartImage
from .session_job import session_job
from .source import parse_cell
from .specs import ImageSpec
from .start import build_start
from .wrapping import wrap_cell

#: Maximum bytes of an argument on Linux, which counts the zero byte at its end too.
MAX_ARGUMENT_BYTES = 128 * 1024 - 1
#: Maximum bytes of a command. Linux takes a quarter of the stack for all arguments and variables:
#: 2 MiB, unless the image's engine was told otherwise. Half of that leaves room.
MAX_COMMAND_BYTES = 1 << 20

#: Code that joins its arguments to one program and runs it. If it can, it writes the program to a
#: file first, because the workers of `multiprocessing` begin by reading that file.
_STARTER = """\
def __lyceum():
    import os, sys, tempfile
    program = "".join(sys.argv[1:])
    name = "cell.py"
    try:
        path = os.path.join(tempfile.mkdtemp(prefix="lyceum-"), name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(program)
        globals()["__file__"] = name = path
    except OSError:
        pass
    sys.argv[:] = [name]
    return compile(program, name, "exec")
exec(globals().pop("__lyceum")())
"""


def image_request(
    spec: ImageSpec,
    command: Sequence[str] | None,
    step: SessionStep | None = None,
    **credentials: object,
) -> StartImage:
    """Return the request that runs an image.

    Args:
        command: the command's words; None is the image's own command.
        step: its place in a session; see `command_of`.
        credentials: fields that sign in to the registry, by the wire's names.

    Raises:
        OptionError: a value that the wire does not take, in one sentence.
    """
    image = spec.image
    if not isinstance(image, str) or not image or re.search(r"\s", image) or image[0] == "-":
        raise OptionError(f"An image is named as in python:3.12-slim, not {image!r:.80}.")
    if command is not None:
        check_command(command)
    if spec.entry_point == "skip" and not command:
        raise OptionError(
            "The image's own command runs with its entry point: leave `skip` out, or give a "
            "command."
        )
    path = spec.s3_path
    if not path.startswith("/") or ".." in path.split("/") or path.strip("/") == "":
        raise OptionError(f"The storage is mounted at a path such as /mnt/s3, not {path!r}.")
    return build_start(
        StartImage,
        spec,
        docker_run_cmd=None if command is None else list(command),
        docker_run_env=env_lines(spec.env or {}) or None,
        docker_entrypoint=spec.entry_point,
        session=step,
        **credentials,
    )


def command_of(
    spec: ImageSpec,
    step: SessionStep | None = None,
    urls: Mapping[str, object] | None = None,
) -> Sequence[str] | None:
    """Return the command that a spec means; None for the image's own.

    Args:
        step: the place in a session of a cell of Python.
        urls: presigned URLs of the session's state, where the server keeps none.

    Raises:
        OptionError: the cell and the line do not fit together, or one of them is wrong.
        SyntaxError: the cell is Python, and it cannot be compiled.
    """
    command = spec.command
    if not (command is None or isinstance(command, str)):
        return command
    if spec.words and command is not None:
        raise OptionError(
            "--cmd takes the rest of the line or the cell, not both: put it all into the cell, or "
            "use `%lyceum_image` without a cell."
        )
    if spec.python and command is None:
        raise OptionError("--python needs a cell: write the Python code below the magic line.")
    if spec.words is not None:
        return spec.words or words_command(command or "")
    if command is None:
        return None
    if spec.python:
        return python_command(spec, step, urls)
    return shell_command(command, spec.first_line)


def shell_command(script: str, first_line: int) -> list[str]:
    """Return the command that runs a script in the image's shell.

    The script's last command decides how the run ends.

    Args:
        first_line: the number of the script's first line in the shell's complaints.

    Raises:
        OptionError: there is no script, or it is too long for an argument.
    """
    if not script.strip():
        raise OptionError(
            "The cell is empty: write the shell script to run in the image below the magic line."
        )
    return ["sh", "-c", "\n" * (first_line - 1) + script]


def python_command(
    spec: ImageSpec,
    step: SessionStep | None = None,
    urls: Mapping[str, object] | None = None,
) -> list[str]:
    """Return the command that runs Python code in the image's `python3` as if it had run here.

    Args:
        step, urls: as for `command_of`.

    Raises:
        OptionError, SyntaxError: as `parse_cell` does.
    """
    cell = parse_cell(str(spec.command), check=spec.check, first_line=spec.first_line)
    job: dict[str, object] = {"first_line": spec.first_line}
    if step is not None:
        job["session"] = session_job(step, urls)
    program = wrap_cell(cell.code, mark=spec.mark, **job)
    return ["python3", "-c", _STARTER, *_pieces(program)]


def words_command(words: str) -> list[str]:
    """Return the words of a text by shell rules; nothing is substituted.

    Raises:
        OptionError: there are none, or a quote is not closed.
    """
    try:
        command = shlex.split(words.replace("\\\n", ""), comments=False)
    except ValueError as exc:
        raise OptionError(f"The command cannot be split into words: {exc}.") from None
    if not command:
        raise OptionError("The cell is empty: write the command's words below the magic line.")
    return command


def env_lines(env: Mapping[str, str]) -> str:
    """Return variables as the wire carries them: `KEY=value` lines.

    Raises:
        OptionError: a name or a value that no such line can carry.
    """
    for name, value in env.items():
        if not isinstance(name, str) or not re.fullmatch(r"[^=\s\0]+", name):
            raise OptionError(f"A variable is named as in BATCH_SIZE, not {name!r:.80}.")
        if not isinstance(value, str) or re.search(r"[\r\n\0]", value):
            raise OptionError(f"The value of the variable {name} takes a text of one line.")
    return "\n".join(f"{name}={value}" for name, value in env.items())


def check_command(command: Sequence[str]) -> None:
    """Check that a container engine can start a command.

    Raises:
        OptionError: it cannot.
    """
    if isinstance(command, str) or not all(isinstance(word, str) for word in command):
        raise OptionError("A command is a list of texts, such as ['python', '-V'].")
    sizes = [len(word.encode("utf-8", "surrogatepass")) for word in command]
    if any("\0" in word for word in command):
        raise OptionError("The command holds a zero byte, which no argument can carry.")
    if max(sizes, default=0) > MAX_ARGUMENT_BYTES or sum(sizes) > MAX_COMMAND_BYTES:
        raise OptionError(
            f"The command has {sum(sizes):,} bytes; an argument may have {MAX_ARGUMENT_BYTES:,}, "
            f"and all of them {MAX_COMMAND_BYTES:,} together: put it into the image, or into the "
            "account's storage, which is mounted there."
        )


def _pieces(text: str) -> list[str]:
    """Return a text in parts, each short enough for an argument whatever its characters."""
    size = MAX_ARGUMENT_BYTES // 4
    return [text[at : at + size] for at in range(0, len(text), size)]
