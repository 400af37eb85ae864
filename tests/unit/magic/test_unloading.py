"""`%unload_ext` takes out what `%load_ext` has put in; `%reload_ext` leaves one of everything."""

from __future__ import annotations

from tests.tools.programs import run_program

SHELL = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()

def ours():
    magics = shell.magics_manager.magics
    found = [f"{kind} {name}" for kind in ("line", "cell") for name in magics[kind]]
    return [name for name in found if "lyceum" in name], len([
        known for known in shell.configurables if type(known).__name__ == "LyceumMagics"
    ]), len([known for known in shell.Completer.custom_matchers if hasattr(known, "is_lyceum")])

def run(*arguments):
    shell.run_line_magic(*arguments)
"""
EVERYTHING = (
    "(['line lyceum_image', 'line lyceum', 'cell lyceum', 'cell lyceum_image', "
    "'cell lyceum_compose'], 1, 1)\n"
)


def test_unloading_leaves_nothing() -> None:
    code = """
run("load_ext", "lyceum_magic")
print(ours())
run("unload_ext", "lyceum_magic")
print(ours())
run("load_ext", "lyceum_magic")
print(ours())
shell.history_manager.end_session()
"""
    assert run_program(SHELL + code) == f"{EVERYTHING}([], 0, 0)\n{EVERYTHING}"


def test_reloading_leaves_one_of_each_which_obeys_its_configuration() -> None:
    code = """
run("load_ext", "lyceum_magic")
run("reload_ext", "lyceum_magic")
print(ours())
run("config", "LyceumMagics.machine = 'gpu.a100'")
shell.run_cell_magic("lyceum", "--dry-run --local", "1")
shell.history_manager.end_session()
"""
    printed = run_program(SHELL + code)
    assert printed.startswith(EVERYTHING)
    assert "gpu.a100" in printed


def test_runs_go_on_after_unloading() -> None:
    code = """
run("load_ext", "lyceum_magic")
shell.run_cell_magic("lyceum", "--detach --no-auto-requirements", "print(1)")
run("unload_ext", "lyceum_magic")
print(repr(shell.user_ns["_run"].result().text))
shell.history_manager.end_session()
"""
    assert run_program(SHELL + code).endswith("'1\\n'\n")
