"""`%%lyceum_image` and `%%lyceum_compose`: cells that run in containers."""

from __future__ import annotations

import os

from ..exceptions import OptionError
from ..protocol.redaction import HiddenText
from ..protocol.requests import Start, StartCompose, StartImage
from ..sessions.steps import NextCell
from ..submission.compose_request import compose_request
from ..submission.image_request import command_of, image_request
from ..submission.registry import aws_account
from ..submission.specs import ComposeSpec, ContainerSpec, ImageSpec
from .asking import ask_secret
from .cell import Cell
from .defaults import Defaults
from .options import read_line


class ContainerCell(Cell):
    """The part that images and stacks have in common: signing in to a registry."""

    spec: ContainerSpec
    request: StartImage | StartCompose

    def signed_in(self) -> Start:
        # Last of all, so that a password is asked for only when nothing else can go wrong.
        match self.spec.registry:
            case "basic":
                credentials = {"docker_password": HiddenText(_password(self.spec))}
            case "aws":
                credentials = aws_account(self.spec.aws_region)
            case _:
                return self.request
        return self.request.model_copy(update=credentials)


class ImageCell(ContainerCell):
    """A cell that runs in an image.

    Args:
        line, text: as IPython gives them; None for a line without a cell.

    Raises:
        OptionError, SyntaxError: the line or the cell is wrong.
    """

    spec: ImageSpec

    def __init__(self, line: str, text: str | None, defaults: Defaults) -> None:
        self.spec = spec = read_line(ImageSpec, line, command=text, **defaults.of_run())
        self.notes = []
        self.python = text if spec.python else None
        default = defaults.session if spec.python else ""
        self.session = default if spec.session is None else spec.session
        self.request = image_request(spec, command_of(spec))

    def join(self, cell: NextCell) -> None:
        spec = self.spec
        step = cell.step if cell.urls is None else None  # another server does not know the field
        self.request = image_request(spec, command_of(spec, cell.step, cell.urls), step)


class ComposeCell(ContainerCell):
    """A cell that is a Compose file.

    Args:
        line, text: as IPython gives them.

    Raises:
        OptionError: the line or the cell is wrong.
    """

    def __init__(self, line: str, text: str, defaults: Defaults) -> None:
        self.spec = spec = read_line(ComposeSpec, line, file=text, **defaults.of_run())
        self.notes = []
        self.request = compose_request(spec)


def _password(spec: ContainerSpec) -> str:
    """Return the password of the registry's user.

    Raises:
        OptionError: the named variable is not set, or the user cannot be asked.
    """
    name = spec.registry_password_env
    if name is None:
        return ask_secret(
            f"Password of {spec.registry_user} at the registry",
            "put it into an environment variable, and name that with --registry-password-env",
        )
    if not (password := os.environ.get(name, "")):
        raise OptionError(
            f"--registry-password-env names a variable of this process, and {name} is not set."
        )
    return password
