"""`%%lyceum_image` and `%%lyceum_compose`: cells that run in containers."""

from __future__ import annotations

import os

from ..exceptions import OptionError
from ..protocol.requests import Start, StartCompose, StartImage
from ..submission.compose_request import compose_request
from ..submission.image_request import (
    image_request,
    python_command,
    shell_command,
    words_command,
)
from ..submission.registry import RegistryFields, aws_account, basic_account
from ..submission.source import BELOW_MAGIC_LINE, code_of
from ..submission.start import Choices
from .asking import ask_secret
from .cell import Cell, choices_of
from .defaults import Defaults
from .options import (
    ComposeOptions,
    ImageOptions,
    RegistryOptions,
    parse_compose_line,
    parse_image_line,
)


class ContainerCell(Cell):
    """What images and stacks have in common: whoever signs in to a registry does so last."""

    options: ComposeOptions
    request: StartImage | StartCompose

    def signed_in(self) -> Start:
        registry = self.options.registry
        if registry is None:
            return self.request
        return self.request.model_copy(update=account_fields(registry))


class ImageCell(ContainerCell):
    """A cell that runs in an image.

    Args:
        line, text: as IPython gives them; None for a line without a cell.

    Raises:
        OptionError, SyntaxError: the line or the cell is wrong.
    """

    def __init__(self, line: str, text: str | None, defaults: Defaults) -> None:
        self.options = options = parse_image_line(line)
        self.notes = []
        choices = choices_of(options, defaults)
        if options.python and text is not None:
            self.python = code_of(text, check=options.check)
        is_script = text is not None and options.words is None
        self.request = image_request(
            options.image,
            self._command(options, text, choices),
            choices,
            entry_point=options.entry_point or ("auto" if is_script else None),
            init=options.init,
            env=options.env,
            user=options.user,
            s3=options.s3,
            s3_path=options.s3_path,
            graceful_timeout_s=options.graceful_timeout_s,
            registry=announced_fields(options.registry),
        )

    def _command(
        self, options: ImageOptions, text: str | None, choices: Choices
    ) -> list[str] | None:
        """What runs in the image; None for its own command."""
        if options.words and text is not None:
            raise OptionError(
                "--cmd takes the rest of the line or the cell, not both: put it all into the cell, "
                "or use `%lyceum_image` without a cell."
            )
        if self.python is not None:
            return python_command(self.python, choices)
        if options.words is not None:
            return options.words or words_command(text or "")
        if options.python:
            raise OptionError("--python needs a cell: write the Python code below the magic line.")
        return None if text is None else shell_command(text)


class ComposeCell(ContainerCell):
    """A cell that is a Compose file.

    Args:
        line, text: as IPython gives them.

    Raises:
        OptionError: the line or the cell is wrong.
    """

    def __init__(self, line: str, text: str, defaults: Defaults) -> None:
        self.options = options = parse_compose_line(line)
        self.notes = []
        self.request = compose_request(
            text,
            choices_of(options, defaults),
            first_line=BELOW_MAGIC_LINE,
            s3=options.s3,
            graceful_timeout_s=options.graceful_timeout_s,
            registry=announced_fields(options.registry),
        )


def announced_fields(registry: RegistryOptions | None) -> RegistryFields:
    """What `--dry-run` may know of a registry's account: nobody is asked, no key is read."""
    if registry is None:
        return {}
    fields = {
        "docker_registry_credential_type": registry.kind,
        "docker_username": registry.user or None,
    }
    return {**fields, "aws_region": registry.region} if registry.region else fields


def account_fields(registry: RegistryOptions) -> RegistryFields:
    """All that the request says of a registry's account.

    Raises:
        OptionError: there is no such variable, or nobody can be asked.
    """
    if registry.kind == "aws":
        return aws_account(registry.region)
    name = registry.password_env
    if name is None:
        password = ask_secret(
            f"Password of {registry.user} at the registry",
            "put it into an environment variable, and name that with --registry-password-env",
        )
    elif not (password := os.environ.get(name, "")):
        raise OptionError(
            f"--registry-password-env names a variable of this process, and {name} is not set."
        )
    return basic_account(registry.user, password)
