"""The magics class that `%load_ext lyceum_magic` registers; thin, and quick to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, magics_class, no_var_expand
from traitlets import Int, Unicode

if TYPE_CHECKING:
    from .cell import Defaults


@magics_class
class LyceumMagics(Magics):  # type: ignore[misc]
    """`%%lyceum` and `%lyceum`. Configure with `%config LyceumMagics` or `c.LyceumMagics`."""

    machine = Unicode("cpu", help="The machine of a cell without -m.").tag(config=True)
    timeout_s = Int(600, min=1, max=600, help="The time limit of a cell without -t.").tag(
        config=True
    )
    max_cell_lines = Int(
        10_000, min=1, help="Lines that a cell shows before it keeps only the last ones."
    ).tag(config=True)
    max_cell_bytes = Int(
        1_200_000, min=1, help="Bytes that a cell shows before it keeps only the last ones."
    ).tag(config=True)

    def cell(self, line: str, cell: str) -> None:
        from .cell import run_cell
        from .errors import plainly

        plainly(run_cell)(line, cell, self._defaults(), self._bind, self.shell.user_ns)

    def line(self, line: str) -> object:
        from .errors import plainly
        from .line import run_line

        return plainly(run_line)(line, self._defaults(), self._bind)

    def run_ids(self) -> list[str]:
        """Ids to offer for completion: the newest runs."""
        from ..session import session

        return [entry.run_id[:8] for entry in session().entries(limit=20) if entry.run_id]

    def _defaults(self) -> Defaults:
        from .cell import Defaults

        return Defaults(self.machine, self.timeout_s, self.max_cell_lines, self.max_cell_bytes)

    def _bind(self, name: str, value: object) -> None:
        self.shell.user_ns[name] = value


def load(shell: Any) -> None:
    """Registers the magics, with their help and their completion."""
    from .completion import install
    from .options import cell_parser, line_parser

    magics = LyceumMagics(shell)
    shell.register_magics(magics)  # for %config

    # As functions, since `?` shows a function's docstring, and a method's cannot be made here.
    @no_var_expand  # type: ignore[untyped-decorator]
    def lyceum_cell(line: str, cell: str) -> None:
        magics.cell(line, cell)

    @no_var_expand  # type: ignore[untyped-decorator]
    def lyceum_line(line: str) -> object:
        return magics.line(line)

    lyceum_cell.__doc__ = cell_parser().format_help()
    lyceum_line.__doc__ = line_parser().format_help()
    shell.register_magic_function(lyceum_cell, "cell", "lyceum")
    shell.register_magic_function(lyceum_line, "line", "lyceum")
    install(shell, magics.run_ids)
