"""The import arrows of the package: they go one way, and what must be light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lyceum_magic"

#: Room -> the rooms it may import. A room is a module or a package; a module that has a row of its
#: own is not part of its package's room. "" is `lyceum_magic/__init__.py`.
ARROWS = {
    # The notebook side, from the top.
    "": "api client exceptions magic runs sessions",
    "cli": "embedded.demo embedded.keys exceptions folders magic notebooks protocol server.log "
    "server.serve server.settings server.state_folder",
    "testing": "protocol runs runs.workspace server.stores",
    "notebooks": "disks display exceptions magic outputs protocol runs sessions",
    "embedded.demo": "embedded exceptions",
    "embedded.keys": "client config display exceptions protocol runs.workspace",
    "magic": "client config display embedded exceptions folders journal outputs protocol runs "
    "runs.accounts runs.workspace sessions submission submission.wrapping",
    "sessions.cloud": "client exceptions journal protocol",
    "sessions": "client display exceptions journal protocol remote runs runs.accounts "
    "runs.workspace submission submission.wrapping",
    "api": "config exceptions journal protocol runs runs.accounts runs.workspace submission "
    "submission.wrapping",
    "runs.workspace": "client exceptions inbox journal protocol runs runs.accounts",
    "runs.accounts": "client config embedded exceptions journal protocol runs",
    "inbox": "callbacks config exceptions folders own_files protocol runs",
    "server_extension": "jupyter",
    "jupyter": "folders inbox",
    "callbacks": "exceptions protocol",
    "embedded": "config disks exceptions folders own_files protocol variables",
    "submission": "exceptions protocol remote submission.wrapping",
    "submission.wrapping": "protocol remote",
    "remote": "",
    "display": "outputs protocol trail",
    "runs": "client exceptions folders journal outputs protocol sessions.cloud trail",
    "journal": "disks exceptions own_files protocol",
    "client": "config exceptions protocol trail",
    "outputs": "exceptions protocol remote",
    # The embedded server, from the top.
    "server": "",
    "server.serve": "disks exceptions server.descriptors server.lifetime server.moving "
    "server.peers server.settings server.state_folder",
    "server.lifetime": "server.app server.connections server.peers server.settings "
    "server.state_folder server.tasks",
    "server.app": "server.account server.context server.guard server.outbox server.retention "
    "server.routes server.runners server.service server.sessions server.settings "
    "server.state_folder server.storage server.stores server.stores.base server.stream_secrets "
    "server.tasks server.vault",
    "server.routes": "exceptions protocol server.account server.machines server.metrics "
    "server.outbox server.output server.output.event_stream server.run server.runners "
    "server.service server.sessions server.settings server.storage server.stores.base "
    "server.stream_secrets",
    "server.account": "config exceptions protocol server.stores.base server.vault",
    "server.guard": "protocol server.settings",
    "server.output": "protocol remote server.regular_files trail",
    "server.output.event_stream": "protocol server.output server.run server.service trail",
    "server.service": "disks exceptions protocol server.context server.machines server.metrics "
    "server.outbox server.output server.run server.run_folders server.runners server.sessions "
    "server.stores.base server.tasks trail",
    "server.sessions": "disks exceptions own_files protocol server.tasks server.troubles",
    "server.outbox": "exceptions protocol server.bell server.context server.settings "
    "server.stores.base server.tasks trail",
    "server.context": "server.bell server.troubles",
    "server.machines": "exceptions protocol server.gpus server.runners",
    "server.run": "protocol server.bell server.machines server.runners server.stores.base",
    "server.runners": "disks exceptions own_files protocol server.descriptors server.gpus "
    "server.output server.regular_files server.run_folders server.sessions server.tasks "
    "submission.wrapping trail variables",
    "server.stores": "disks exceptions own_files protocol server.stores.base server.vault",
    "server.stores.base": "exceptions protocol",
    "server.storage": "config exceptions",
    "server.metrics": "server.regular_files server.runners",
    "server.gpus": "",
    "server.retention": "server.run_folders server.stores.base",
    "server.state_folder": "config disks exceptions own_files protocol",
    "server.moving": "exceptions own_files protocol server.run_folders server.runners "
    "server.state_folder server.stores",
    "server.stream_secrets": "server.vault",
    "server.settings": "config",
    "server.bell": "",
    "server.connections": "",
    "server.descriptors": "",
    "server.regular_files": "",
    "server.run_folders": "disks exceptions",
    "server.tasks": "",
    "server.log": "",
    "server.peers": "",
    "server.troubles": "exceptions",
    "server.vault": "disks exceptions own_files",
    # What both sides stand on.
    "config": "exceptions own_files protocol",
    "own_files": "folders",
    "folders": "exceptions",
    "variables": "trail",
    "trail": "",
    "disks": "",
    "protocol": "",
    "exceptions": "",
}
ALLOWED = {room: frozenset(rooms.split()) for room, rooms in ARROWS.items()}
#: Both sides stand on these; the server loads ahead of need what cells would bring along.
COMMON = {
    "config", "disks", "exceptions", "folders", "own_files", "protocol", "remote",
    "submission.wrapping", "trail", "variables",
}  # fmt: skip


def module_name(path: Path) -> str:
    """`client/api.py` -> `client.api`; the package's own `__init__.py` -> ``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(module: str) -> Iterator[str]:
    """The package's modules that a module imports: at its top, lazily, or for types alone."""
    path = MODULES[module]
    package = [PACKAGE.name, *module.split(".")] if module else [PACKAGE.name]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from a import b` imports the module a.b where there is one. The version is a
            # constant beside the public names, and depends on none of them.
            names = [f"{origin}.{alias.name}" for alias in node.names]
            names = [name for name in names if name != f"{PACKAGE.name}.__version__"]
        else:
            continue
        for name in names:
            yield from module_of(name)


def module_of(dotted: str) -> list[str]:
    """The module of this package in which a dotted name lies; none for another package's name."""
    first, *rest = dotted.split(".")
    if first != PACKAGE.name:
        return []
    while rest and ".".join(rest) not in MODULES:
        rest.pop()
    return [".".join(rest)]


def room_of(module: str) -> str | None:
    """The room with the longest name that holds the module; None if no room does."""
    rooms = [room for room in ALLOWED if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len, default=None)


IMPORTS = {module: sorted(set(imports(module)) - {module}) for module in MODULES}
CROSSINGS = {
    (module, imported)
    for module, targets in IMPORTS.items()
    for imported in targets
    if room_of(module) != room_of(imported)
}


def test_every_module_is_in_a_room():
    assert [module for module in MODULES if room_of(module) is None] == []


def test_imports_follow_the_arrows():
    strays = sorted(
        f"{module or PACKAGE.name} imports {imported or PACKAGE.name}"
        for module, imported in CROSSINGS
        if room_of(imported) not in ALLOWED[room_of(module)]
    )
    assert strays == []


def test_every_arrow_of_the_table_is_used():
    drawn = {(room, target) for room, targets in ALLOWED.items() for target in targets}
    used = {(room_of(module), room_of(imported)) for module, imported in CROSSINGS}
    assert drawn - used == set()


def test_notebook_side_and_server_meet_in_what_both_stand_on():
    for room, targets in ALLOWED.items():
        servers = {target for target in targets if target.startswith("server")}
        if room.partition(".")[0] == "server":
            assert targets - servers <= COMMON, room
        elif room not in ("cli", "testing"):  # the one starts the server, the other lends its store
            assert servers == set(), room


def test_no_module_imports_itself_by_a_detour():
    try:
        order = list(TopologicalSorter(IMPORTS).static_order())
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))
    assert set(order) == set(MODULES)


def test_loading_the_extension_imports_nothing_heavy():
    heavy = ["anyio", "anywidget", "fastapi", "httpx", "ipywidgets", "pydantic", "sqlite3"]
    program = f"""
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
for name in {heavy}:
    sys.modules.pop(name, None)  # IPython's own history is in SQLite
shell.run_line_magic("load_ext", "lyceum_magic")
assert "lyceum" in shell.magics_manager.magics["cell"]
print(*(name for name in {heavy} if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("", "", 0)
