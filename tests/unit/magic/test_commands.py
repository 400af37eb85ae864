"""`%lyceum`: its subcommands have a module each, a row in the table, and help of their own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path
from pkgutil import iter_modules

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.folders import journal_folder
from lyceum_magic.journal.journal import Entry, Journal
from lyceum_magic.magic import commands
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.line import run_line


def shown(line: str) -> str:
    return repr(run_line(line, Defaults(), lambda name, value: None))


def test_each_subcommand_has_a_module_and_each_module_a_row() -> None:
    modules = [module.name for module in iter_modules(commands.__path__)]
    assert sorted(commands.SUBCOMMANDS) == sorted(modules)


@pytest.mark.parametrize("name", commands.SUBCOMMANDS)
def test_a_subcommand_has_its_own_help(name: str) -> None:
    said = shown(f"{name} --help")
    assert said.startswith(f"usage: %lyceum {name}")
    assert commands.SUBCOMMANDS[name] in " ".join(said.split())
    assert commands.subcommand(name).__doc__.startswith(f"`%lyceum {name}")


@pytest.mark.parametrize("line", ["", "--help", "-h"])
def test_the_help_lists_all_subcommands(line: str) -> None:
    said = " ".join(shown(line).split())
    assert all(f"{name} {text}" in said for name, text in commands.SUBCOMMANDS.items())


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ("list --help", "usage: %lyceum list [--all] [--limit N]"),
        ("-h list", "usage: %lyceum list [--all] [--limit N]"),
        ("callbacks -h", "usage: %lyceum callbacks ACTION"),
        ("callbacks test --help", "usage: %lyceum callbacks test URL"),
        ("storage get a --help", "usage: %lyceum storage get [--yes] KEY [PATH]"),
    ],
)
def test_help_is_that_of_the_last_subcommand_or_action(line: str, usage: str) -> None:
    assert shown(line).startswith(usage)


def test_an_unknown_subcommand_is_one_sentence_with_all_names() -> None:
    with pytest.raises(OptionError) as caught:
        shown("lists")
    said = str(caught.value)
    assert said.startswith("%lyceum: argument SUBCOMMAND: invalid choice: 'lists' (choose from ")
    assert all(name in said for name in commands.SUBCOMMANDS)
    assert said.endswith("; see `%lyceum?` for the options.")
    assert "\n" not in said


@pytest.mark.parametrize("name", commands.SUBCOMMANDS)
def test_each_subcommand_takes_the_call(name: str) -> None:
    """Nothing else checks it: a module stands in for the protocol."""
    assert list(signature(commands.subcommand(name).run).parameters) == ["call"]


PROGRAM = """
import sys
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.line import run_line
run_line({line!r}, Defaults(), lambda name, value: None)
ours = "lyceum_magic.magic.commands."
print(*sorted(name.removeprefix(ours) for name in sys.modules if name.startswith(ours)))
"""


@pytest.mark.parametrize(
    ("line", "modules"), [("", ""), ("--help", ""), ("list --help", "list"), ("list", "list")]
)
def test_only_the_subcommand_that_is_used_is_imported(line: str, modules: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(line=line)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (modules, "")


LIST = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "lyceum_magic")
before = set(sys.modules)
print(shell.run_line_magic("lyceum", "list --all"))
heavy = {"fastapi", "httpcore", "httpx", "ipywidgets", "nbformat", "pydantic", "pydantic_core"}
print(*sorted(heavy & (set(sys.modules) - before)), file=sys.stderr, end="")
"""


def test_a_list_of_ended_runs_imports_neither_client_nor_widgets() -> None:
    journal = Journal(journal_folder())
    journal.write(
        Entry(
            tag="t", run_id="0a1b2c3d", base_url="http://127.0.0.1:1", is_embedded=False,
            server_folder="", streaming_url=None, machine="cpu", name="the-run", timeout_s=60,
            created_at=time.time() - 10, ended_at=time.time(), state="completed", process="other",
        )
    )  # fmt: skip
    journal.close()
    done = subprocess.run([sys.executable, "-c", LIST], capture_output=True, text=True, check=False)
    assert "the-run" in done.stdout
    assert done.stderr == ""


def test_the_readme_lists_every_subcommand() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    _, _, rest = readme.partition("`%lyceum` has the subcommands ")
    listed, _, _ = rest.partition(";")
    assert sorted(re.findall(r"`([\w-]+)`", listed)) == sorted(commands.SUBCOMMANDS)
