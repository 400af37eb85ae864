"""The spec of a Compose stack -> the start request that travels."""

from __future__ import annotations

from pathlib import Path

from ..exceptions import OptionError
from ..protocol.requests import StartCompose
from .specs import ComposeSpec
from .start import build_start


def compose_request(spec: ComposeSpec, **credentials: object) -> StartCompose:
    """Return the request that runs a stack; the text of its file travels as it is.

    Args:
        credentials: fields that sign in to the registry, by the wire's names.

    Raises:
        OptionError: the file cannot be read or is none, or a value that the wire does not take.
    """
    file_name, text = "compose.yaml", spec.file
    if isinstance(text, Path):
        file_name = text.name
        try:
            text = text.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            why = getattr(exc, "strerror", None) or "it is not UTF-8"
            raise OptionError(f"{file_name} cannot be read: {why}.") from None
    if not isinstance(text, str):
        raise OptionError(
            f"A Compose file is text, or the Path of a file, not a {type(text).__name__}."
        )
    if not text.strip():
        raise OptionError(
            "The Compose file is empty: write `services:` and what belongs to it below the magic "
            "line."
        )
    if "\n" not in text and text.endswith((".yml", ".yaml")):
        raise OptionError(
            f"A Compose file's text is expected, and {text!r} looks like its path: pass "
            "pathlib.Path(...) to have it read."
        )
    return build_start(
        StartCompose,
        spec,
        compose_file_code="\n" * (spec.first_line - 1) + text,
        file_name=file_name,
        **credentials,
    )
