"""A Compose file and what was chosen for it -> the start request that travels."""

from __future__ import annotations

from ..exceptions import OptionError
from ..protocol.requests import StartCompose
from .registry import RegistryFields
from .start import Choices, build_start


def compose_request(
    file: str,
    choices: Choices,
    *,
    file_name: str = "compose.yaml",
    s3: bool = False,
    first_line: int = 1,
    graceful_timeout_s: int | None = None,
    registry: RegistryFields | None = None,
) -> StartCompose:
    """The request that runs a stack; see `lyceum_magic.submit_compose` for the arguments.

    Args:
        file: the text of a Compose file, which travels as it is.
        first_line: the number of its first line in complaints.

    Raises:
        OptionError: a value that the wire does not take, in one sentence.
    """
    if not isinstance(file, str):
        raise OptionError(
            f"A Compose file is text, or the Path of a file, not a {type(file).__name__}."
        )
    if not file.strip():
        raise OptionError(
            "The Compose file is empty: write `services:` and what belongs to it below the magic "
            "line."
        )
    if "\n" not in file and file.endswith((".yml", ".yaml")):
        raise OptionError(
            f"A Compose file's text is expected, and {file!r} looks like its path: pass "
            "pathlib.Path(...) to have it read."
        )
    return build_start(
        StartCompose,
        choices,
        compose_file_code="\n" * (first_line - 1) + file,
        file_name=file_name,
        enable_s3_mount=s3,
        graceful_timeout=graceful_timeout_s,
        **(registry or {}),
    )
