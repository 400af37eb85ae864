"""The magics class that `%load_ext lyceum_magic` registers; thin, and quick to import."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, magics_class, no_var_expand
from traitlets import Int, TraitError, TraitType, Unicode

from ..protocol.redaction import hidden_urls
from .defaults import Defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cell import Cell


class CallbackUrls(TraitType):  # type: ignore[misc]
    """URLs of which `%config` and errors do not show the secret part."""

    default_value: list[str] = []  # noqa: RUF012 - `validate` returns a new list

    def validate(self, obj: object, value: Any) -> list[str]:
        if not value:
            return []
        from ..exceptions import OptionError
        from ..submission.callback_urls import check_callback_urls

        try:
            return check_callback_urls(hidden_urls(value), here_too=True)
        except OptionError as exc:
            raise TraitError(f"c.LyceumMagics.callback_urls: {exc}") from None


#: Kind of magic -> the names of ours.
_MAGICS = {
    "cell": ("lyceum", "lyceum_image", "lyceum_compose"),
    "line": ("lyceum", "lyceum_image"),
}


@magics_class
class LyceumMagics(Magics):  # type: ignore[misc]
    """The magics of Lyceum. Configure with `%config LyceumMagics` or `c.LyceumMagics`."""

    machine = Unicode(Defaults.machine, help="The machine of a cell without -m.").tag(config=True)
    timeout_s = Int(
        Defaults.timeout_s, min=1, max=600, help="The time limit of a cell without -t."
    ).tag(config=True)
    max_cell_lines = Int(
        Defaults.max_lines,
        min=1,
        help="Lines that a cell shows before it keeps only the last ones.",
    ).tag(config=True)
    max_cell_bytes = Int(
        Defaults.max_bytes,
        min=1,
        help="Bytes that a cell shows before it keeps only the last ones.",
    ).tag(config=True)

    callback_urls = CallbackUrls(
        help="URLs that are told of the end of every run, in addition to those of --callback."
    ).tag(config=True)

    callback_base_url = Unicode(
        help="This Jupyter's public https address, such as a tunnel's: where `--callback here` and "
        "`%lyceum listen` let others reach it. If empty, LYCEUM_CALLBACK_BASE_URL names it."
    ).tag(config=True)

    session = Unicode(
        help="The session of every cell of Python: a name, or `notebook` for this notebook's own. "
        "If empty, only cells with --session have one."
    ).tag(config=True)

    def cell(self, line: str, cell: str) -> None:
        from .python_cell import PythonCell

        shell = self.shell
        self._run(
            lambda: PythonCell(line, cell, self._defaults(), shell.user_ns, shell.user_ns_hidden)
        )

    def image(self, line: str, cell: str | None = None) -> None:
        from .container_cell import ImageCell

        self._run(lambda: ImageCell(line, cell, self._defaults()))

    def compose(self, line: str, cell: str) -> None:
        from .container_cell import ComposeCell

        self._run(lambda: ComposeCell(line, cell, self._defaults()))

    def _run(self, read: Callable[[], Cell]) -> None:
        from .cell import run_cell
        from .errors import plainly

        plainly(lambda: run_cell(read(), self._defaults(), self._bind))()

    def line(self, line: str) -> object:
        from .errors import plainly
        from .line import run_line

        return plainly(run_line)(line, self._defaults(), self._bind)

    def run_ids(self) -> list[str]:
        """Return ids to offer for completion: those of the newest runs."""
        from ..runs.workspace import workspace

        return [entry.run_id[:8] for entry in workspace().history.entries(limit=20) if entry.run_id]

    def _defaults(self) -> Defaults:
        return Defaults(
            self.machine,
            self.timeout_s,
            self.max_cell_lines,
            self.max_cell_bytes,
            tuple(self.callback_urls),
            self.callback_base_url,
            self.session,
        )

    def _bind(self, name: str, value: object) -> None:
        self.shell.user_ns[name] = value


def load(shell: Any) -> None:
    """Register the magics, with their help and their completion."""
    from .completion import install

    unload(shell)  # otherwise `%config` would go on changing the first instance
    magics = LyceumMagics(shell)
    shell.register_magics(magics)  # for %config

    # Functions, because `?` asks a function's `getdoc` for its help, and a method has none.
    @no_var_expand  # type: ignore[untyped-decorator]
    def lyceum(line: str, cell: str) -> None:
        """Run this cell on Lyceum."""
        magics.cell(line, cell)

    @no_var_expand  # type: ignore[untyped-decorator]
    def lyceum_image(line: str, cell: str | None = None) -> None:
        """Run this cell in a Docker image on Lyceum."""
        magics.image(line, cell)

    @no_var_expand  # type: ignore[untyped-decorator]
    def lyceum_compose(line: str, cell: str) -> None:
        """Run this cell, a Docker Compose file, on Lyceum."""
        magics.compose(line, cell)

    @no_var_expand  # type: ignore[untyped-decorator]
    def lyceum_line(line: str) -> object:
        """Look at runs and at the server."""
        return magics.line(line)

    for magic, kind in ((lyceum, "cell"), (lyceum_image, "line_cell"), (lyceum_compose, "cell")):
        magic.getdoc = partial(_help_of_cell, magic.__name__)
        shell.register_magic_function(magic, kind, magic.__name__)
    lyceum_line.getdoc = _help_of_line
    shell.register_magic_function(lyceum_line, "line", "lyceum")
    install(shell, magics.run_ids)


def unload(shell: Any) -> None:
    """Take out of a shell what `load` has put there, if anything."""
    from .completion import remove

    manager = shell.magics_manager
    for kind, names in _MAGICS.items():
        for name in names:
            manager.magics[kind].pop(name, None)
    manager.registry.pop(LyceumMagics.__name__, None)
    shell.configurables[:] = [
        known for known in shell.configurables if type(known).__name__ != LyceumMagics.__name__
    ]
    remove(shell)
    if f"{__package__}.offload" in sys.modules:
        from .offload import switch_off

        switch_off(shell)


def _help_of_cell(name: str) -> str:
    from .options import parser_of

    return parser_of(name).format_help()


def _help_of_line() -> str:
    from .commands import line_parser

    return line_parser().format_help()
