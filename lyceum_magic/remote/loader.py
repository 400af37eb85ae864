"""Importable modules from the texts that travelled; then the cell is run.

`submission.wrapping` sends this file's text, with MODULES and JOB in its namespace.
"""

from __future__ import annotations

import builtins
import sys
import types

PACKAGE = "lyceum_magic_remote"

#: The builtins of this package's modules, which do not change when the cell replaces its own.
__builtins__ = dict(vars(builtins))  # type: ignore[assignment]

_given = globals().get
#: Module -> its source, and its code for the sender's Python or nothing; packed in base64.
MODULES: dict[str, tuple[str, str]] = _given("MODULES", {})
#: The magic number of that code.
MAGIC: str = _given("MAGIC", "")
#: See `bootstrap.Job`; None runs no cell.
JOB: dict[str, object] | None = _given("JOB")


class Modules:
    """The finder and loader of the package's modules."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        if name != PACKAGE and name.rpartition(".")[2] not in MODULES:
            return None
        if name.partition(".")[0] != PACKAGE:
            return None
        spec_type = type(sys.__spec__)  # importlib.machinery costs an import
        return spec_type(name, Modules, is_package=name == PACKAGE)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: object) -> None:
        return None

    @staticmethod
    def exec_module(module: types.ModuleType) -> None:
        if module.__name__ != PACKAGE:
            vars(module)["__builtins__"] = __builtins__
            exec(code_of(module.__name__.rpartition(".")[2]), vars(module))


def code_of(name: str) -> types.CodeType:
    import zlib
    from binascii import a2b_base64

    source, compiled = MODULES[name]
    if compiled and sys.modules["_frozen_importlib_external"].MAGIC_NUMBER.hex() == MAGIC:
        import marshal

        code: types.CodeType = marshal.loads(zlib.decompress(a2b_base64(compiled)))
        return code
    text = zlib.decompress(a2b_base64(source))
    return compile(text, f"<lyceum-magic {name}>", "exec", dont_inherit=True)


if __name__ == PACKAGE:  # it travels; here, it is imported as any module
    sys.meta_path.insert(0, Modules)  # type: ignore[arg-type]
    from lyceum_magic_remote.bootstrap import run_cell  # type: ignore[import-not-found]

    if JOB is not None:
        # The namespace is the sender's, and nothing here keeps it: what the cell leaves in it has
        # to go before the streams do.
        run_cell(JOB, sys._getframe(1).f_globals)
