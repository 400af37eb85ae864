"""Python source -> the program that travels: the cell as data, after a bootstrap.

The bootstrap is the modules of `remote`. A whole program has it in front of the cell. A stub only
names it, for a server that has it loaded; `with_bootstrap` turns a stub into a whole program.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.util
import marshal
import zlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

from ..protocol.bootstrap import BOOTSTRAP_FILE, digest_in, first_line, modules_in
from ..protocol.requests import Start, StartPython
from ..remote.loader import PACKAGE

StartT = TypeVar("StartT", bound=Start)

CELL_NAME = "<cell>"

#: Modules of a cell with a session. cloudpickle's own text is among them.
_OF_SESSIONS = (
    "adopting",
    "array_reducers",
    "cloudpickle",
    "descriptions",
    "groups",
    "library_changes",
    "library_reducers",
    "packs",
    "process_state",
    "rebuilding",
    "reducers",
    "replayed",
    "restoring",
    "saving",
    "session",
    "session_stores",
    "session_urls",
    "torch_reducers",
    "used_names",
    "work_files",
)
#: Module -> the parts of a job that take it; without them it does not travel.
_ONLY_FOR = {
    "values": {"inputs", "outputs"},
    "arrays": {"inputs", "outputs"},
    "kinds": {"inputs", "outputs"},
    "refusals": {"inputs", "outputs", "files", "save", "session"},
    "tables": {"inputs", "outputs"},
    "pickles": {"pickle"},
    "files": {"files", "save"},
    **{name: {"session"} for name in _OF_SESSIONS},
}

#: Modules that nearly every cell needs, which travel compiled as well: that saves about 10 ms on a
#: machine with the same Python.
_COMPILED = frozenset(
    {
        "bootstrap",
        "compiling",
        "deflating",
        "display",
        "frames",
        "hooks",
        "likeness",
        "own_file",
        "pretty",
        "streams",
        "surroundings",
    }
)

_HEAD = """\
# A notebook cell, sent by lyceum-magic: the first string runs the cell, which is the last one.
"""
_BOOTSTRAP = """\
exec(compile({loader!r}, "<lyceum-magic>", "exec"), {{"__name__": {package!r}, "MAGIC": {magic!r},
"MODULES": {modules!r},
"JOB": """

#: Interpreters that multiprocessing starts for a cell run the stub again, with nothing loaded.
_STARTER = f"""\
import sys
if "{PACKAGE}.bootstrap" not in sys.modules:
    with open(FILE.rpartition("/")[0] + "/../{BOOTSTRAP_FILE}", encoding="utf-8") as text:
        exec(text.read(), {{}})
sys.modules["{PACKAGE}.bootstrap"].run_cell(JOB, MAIN)
"""
_STUB = f"""\
exec(compile({_STARTER!r}, "<lyceum-magic>", "exec"), {{"FILE": __file__, "MAIN": globals(),
"JOB": """

_END = "})\n"


def wrap_cell(cell: str, *, mark: str = "", **job: object) -> str:
    """Return the whole program: the bootstrap, and the cell as data.

    Args:
        cell: Python source.
        mark: the run's own word in its frames (`runs.Run.mark`).
        job: what else `remote.bootstrap.Job` holds.
    """
    return with_bootstrap(stub_of(cell, mark=mark, **job), loaded="")


def stub_of(cell: str, *, mark: str = "", **job: object) -> str:
    """Return the program for a server that has the bootstrap loaded; arguments as `wrap_cell`."""
    if "get_ipython" in cell:
        job["needs_shell"] = True
    needed = [name for name, parts in _ONLY_FOR.items() if parts & set(job)]
    inputs = job.pop("inputs", "")
    literal = repr({"mark": mark, "name": CELL_NAME, **job, "cell": cell})
    # Of megabytes in base64, which has no character that `repr` would have to find.
    values = ("'inputs': '", inputs, "', ") if inputs else ()
    return "".join([first_line(digest(), needed), _STUB, "{", *values, literal[1:], _END])


def with_bootstrap(program: str, *, loaded: str) -> str:
    """Return the program as a server can run it.

    Args:
        program: any Python; all but a stub stays as it is.
        loaded: the digest of the bootstrap that the server has loaded; empty if it has none.
    """
    if digest_in(program) != digest() or loaded == digest():
        return program
    needed = modules_in(program)
    job = program.removeprefix(first_line(digest(), needed) + _STUB).removesuffix(_END)
    return f"{_HEAD}{_bootstrap(frozenset(_ONLY_FOR) - needed)}{job}{_END}"


def for_server(request: StartT, loaded: str) -> StartT:
    """Return a start request as a server can run it; `loaded` is as for `with_bootstrap`."""
    if not isinstance(request, StartPython):
        return request
    return request.model_copy(update={"code": with_bootstrap(request.code, loaded=loaded)})


def loading_text() -> str:
    """Return a program that makes every module of the bootstrap importable, and runs no cell."""
    return f"{_bootstrap(frozenset(), is_compiled=True)}None{_END}"


@cache
def digest() -> str:
    """Return the SHA-256 of the bootstrap's files, in hexadecimal, as of the first call."""
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in _files()}
    hashes["cloudpickle"] = hashlib.sha256(_cloudpickle().encode()).hexdigest()
    return hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()


@cache
def _bootstrap(left_out: frozenset[str], *, is_compiled: bool = False) -> str:
    """Return the part of a program before its job.

    Args:
        left_out: modules that the job does not need.
        is_compiled: whether every module is there as code as well.
    """
    modules = {}
    for name, text in _texts(frozenset({"__init__", "loader", *left_out})):
        compiled = ""
        if is_compiled or name in _COMPILED:
            code = compile(text, f"<lyceum-magic {name}>", "exec", dont_inherit=True)
            compiled = _packed(marshal.dumps(code))
        modules[name] = (_packed(text.encode()), compiled)
    return _BOOTSTRAP.format(
        loader=_travelling_text(_folder().joinpath("loader.py")),
        package=PACKAGE,
        magic=importlib.util.MAGIC_NUMBER.hex(),
        modules=modules,
    )


def _texts(left_out: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield the modules that travel, and their texts."""
    for file in _files():
        name = file.name.removesuffix(".py")
        if name not in left_out:
            yield name, _travelling_text(file)
    if "cloudpickle" not in left_out:
        yield "cloudpickle", _cloudpickle()


@cache
def _cloudpickle() -> str:
    """Return the text of the installed cloudpickle, with its licence."""
    spec = importlib.util.find_spec("cloudpickle")  # not imported
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (folder,) = spec.submodule_search_locations
    return (Path(folder) / "cloudpickle.py").read_text("utf-8")


def _folder() -> Traversable:
    return resources.files("lyceum_magic.remote")


def _files() -> Iterator[Traversable]:
    return (file for file in _folder().iterdir() if file.name.endswith(".py"))


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _travelling_text(file: Traversable) -> str:
    """Return a module of `remote` without comments and docstrings."""
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.Pass())
    return ast.unparse(tree)
