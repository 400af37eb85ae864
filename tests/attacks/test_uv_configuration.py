"""Settings of uv that another user leaves in a folder around ours, to choose what is installed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyceum_magic.server.runners.base import Refusal
from lyceum_magic.server.runners.process.requirements import Installer
from tests.attacks.stranger import Stranger
from tests.tools.wheels import write_wheel

pytestmark = pytest.mark.anyio

NAME = "lyceum-wanted"
PROJECT = '[project]\nname = "around"\nversion = "0"\n'
SETTINGS = "no-index = true\nfind-links = [{folder}]\n"

#: Files in the folder above: file -> content, in which SETTINGS choose the index.
AROUND = {
    "uv.toml": {"uv.toml": SETTINGS},
    "a project's settings": {"pyproject.toml": f"{PROJECT}[tool.uv]\n{SETTINGS}"},
    "settings without a project": {"pyproject.toml": f"[tool.uv]\n{SETTINGS}"},
    "a project beside uv.toml": {"pyproject.toml": PROJECT, "uv.toml": SETTINGS},
    "a workspace that claims every folder": {
        "pyproject.toml": f'{PROJECT}[tool.uv]\n{SETTINGS}[tool.uv.workspace]\nmembers = ["**"]\n'
    },
}


@pytest.fixture
def theirs(stranger: Stranger, common_folder: Path) -> Iterator[Path]:
    """A folder of the stranger's, with a wheel in it; ours is a folder below it."""
    folder = stranger.home / "around"
    stranger.run("import os, sys; os.mkdir(sys.argv[1]); os.chmod(sys.argv[1], 0o777)", str(folder))
    write_wheel(folder / "wheels", NAME.replace("-", "_"), "raise SystemExit('theirs')")
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def write(stranger: Stranger, folder: Path, files: dict[str, str]) -> None:
    """Let the stranger write files."""
    wheels = json.dumps(str(folder / "wheels"))
    texts = {str(folder / name): text.format(folder=wheels) for name, text in files.items()}
    code = """
        import json, pathlib, sys
        for path, text in json.loads(sys.argv[1]).items():
            pathlib.Path(path).write_text(text)
        """
    stranger.run(code, json.dumps(texts))


@pytest.fixture(autouse=True)
def an_index_without_it(own_machine: Path, tmp_path: Path) -> None:
    """The user's own settings name an index, which does not have the package."""
    index = tmp_path / "index"
    index.mkdir()
    settings = Path(os.environ["HOME"]) / ".config" / "uv" / "uv.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'no-index = true\nfind-links = ["{index}"]\n')


@pytest.mark.parametrize("around", AROUND)
async def test_settings_around_the_state_folder_do_not_count(
    stranger: Stranger, theirs: Path, around: str
) -> None:
    write(stranger, theirs, AROUND[around])
    with pytest.raises(Refusal, match="lyceum-wanted was not found"):
        await Installer(theirs / "ours" / "requirements").install((NAME,))


async def test_a_broken_file_around_the_state_folder_breaks_nothing(
    stranger: Stranger, theirs: Path, tmp_path: Path
) -> None:
    write(stranger, theirs, {"uv.toml": "this [is", "pyproject.toml": "neither [this"})
    write_wheel(tmp_path / "index", NAME.replace("-", "_"), "ours = True")
    folder = await Installer(theirs / "ours" / "requirements").install((NAME,))
    assert (folder / "lyceum_wanted.py").read_text() == "ours = True"


@pytest.mark.parametrize("variable", ["HOME", "XDG_CONFIG_HOME"])
async def test_the_users_own_settings_count(
    stranger: Stranger, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    write(stranger, theirs, AROUND["a project's settings"])
    write_wheel(tmp_path / "index", NAME.replace("-", "_"), "ours = True")
    if variable == "XDG_CONFIG_HOME":
        (Path(os.environ["HOME"]) / ".config").rename(tmp_path / "configuration")
        monkeypatch.setenv(variable, str(tmp_path / "configuration"))
    folder = await Installer(theirs / "ours" / "requirements").install((NAME,))
    assert (folder / "lyceum_wanted.py").read_text() == "ours = True"


async def test_our_own_options_count(stranger: Stranger, theirs: Path, tmp_path: Path) -> None:
    write(stranger, theirs, AROUND["uv.toml"])
    wheels = tmp_path / "wheels of ours"
    write_wheel(wheels, NAME.replace("-", "_"), "ours = True")
    installer = Installer(theirs / "ours" / "requirements", find_links=str(wheels))
    folder = await installer.install((NAME,))
    assert (folder / "lyceum_wanted.py").read_text() == "ours = True"
