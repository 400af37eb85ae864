"""Local modules in real runs on the embedded server: they are found there as they are here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.embedded import end_server
from tests.tools.kernel import Kernel, running_kernel

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook's folder."""
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Kernel]:
    state = tmp_path_factory.mktemp("shared") / "lyceum"
    env = {"LYCEUM_MAGIC_HOME": str(state), "HOME": str(state.parent)}
    with running_kernel(env=env) as kernel:
        kernel.run(f"import os; os.chdir({str(folder)!r})")
        yield kernel
    end_server(state)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_packages_relative_imports_and_namespaces_work_there(kernel: Kernel, folder: Path) -> None:
    write(
        folder,
        {
            "tools_here/__init__.py": "from .base import greet\nNAME = __name__\n",
            "tools_here/base.py": "from . import words\ndef greet(): return words.HELLO\n",
            "tools_here/words.py": "HELLO = 'grüß dich'\n",
            "tools_here/deep/__init__.py": "",
            "tools_here/deep/leaf.py": "from ..words import HELLO\nfrom space_here import part\n",
            "space_here/part.py": "import alone_here\nPART = alone_here.__file__\n",
            "alone_here.py": "",
        },
    )
    cell = kernel.run(
        "%%lyceum\n"
        "import os, tools_here, tools_here.deep.leaf as leaf\n"
        "print(tools_here.greet(), tools_here.NAME, leaf.HELLO)\n"
        "print(os.path.dirname(leaf.part.PART) == os.getcwd())\n"
        f"print(os.getcwd().startswith({str(folder)!r}))"
    )
    assert cell.error is None, cell
    assert cell.stdout == "grüß dich tools_here grüß dich\nTrue\nFalse\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_find_them_too(kernel: Kernel, folder: Path, method: str) -> None:
    write(folder, {"squares_here/__init__.py": "", "squares_here/f.py": "def f(x): return x * x\n"})
    cell = kernel.run(
        "%%lyceum\n"
        "import multiprocessing\n"
        "from squares_here.f import f\n"
        "def g(x): return f(x) + 1\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context({method!r}).Pool(2) as pool:\n"
        "        print(pool.map(f, range(4)), pool.map(g, range(4)))"
    )
    assert cell.error is None, cell
    assert cell.stdout == "[0, 1, 4, 9] [1, 2, 5, 10]\n"


def test_a_module_shadows_there_what_it_shadows_here(kernel: Kernel, folder: Path) -> None:
    write(folder, {"zipapp.py": "MINE = True\n", "nest_asyncio2.py": "MINE = True\n"})
    # IPython looks into the notebook's folder before installed packages, and after the library.
    code = "import zipapp, nest_asyncio2\nprint(hasattr(zipapp, 'MINE'), nest_asyncio2.MINE)"
    cell = kernel.run(f"%%lyceum\n{code}")
    assert cell.error is None, cell
    assert cell.stdout == kernel.run(code).stdout == "False True\n"


def test_a_traceback_names_the_module_and_its_line(kernel: Kernel, folder: Path) -> None:
    write(folder, {"fails_here.py": "def fail():\n    x = 1\n    raise KeyError('canary')\n"})
    cell = kernel.run("%%lyceum\nimport fails_here\nfails_here.fail()")
    assert cell.error is not None, cell
    shown = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(cell.error["traceback"]))
    # The user's own file, which an editor opens by a click.
    path = re.escape(str(folder / "fails_here.py"))
    assert re.search(rf"File {path}:3, in fail\(\)", shown), shown
    assert "----> 3     raise KeyError('canary')" in shown


def test_a_traceback_through_a_module_that_changed_meanwhile_shows_what_ran(
    kernel: Kernel, folder: Path
) -> None:
    write(folder, {"moving_here.py": "def fail():\n    raise KeyError('ran')\n"})
    cell = kernel.run(
        "%%lyceum\nimport moving_here, pathlib\n"
        f"pathlib.Path({str(folder / 'moving_here.py')!r}).write_text('# ' + 'another\\n' * 9)\n"
        "moving_here.fail()"
    )
    assert cell.error is not None, cell
    shown = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(cell.error["traceback"]))
    assert re.search(r"File <lyceum>moving_here.py:2, in fail\(\)", shown), shown
    assert "----> 2     raise KeyError('ran')" in shown
    assert "# another" not in shown.partition("File <lyceum>")[2]


def test_a_change_on_disk_travels_with_the_next_run(kernel: Kernel, folder: Path) -> None:
    for value in (1, 2):
        write(folder, {"changing_here.py": f"VALUE = {value}\n"})
        cell = kernel.run("%%lyceum\nimport changing_here\nprint(changing_here.VALUE)")
        assert cell.stdout == f"{value}\n", cell


def test_a_module_that_cannot_travel_starts_nothing(kernel: Kernel, folder: Path) -> None:
    (folder / "binary_here.py").write_bytes(b"x = '\xff'\n")
    before = kernel.value("len(__import__('lyceum_magic').runs())")
    cell = kernel.run("%%lyceum\nimport binary_here")
    assert "is no text that Python can read" in f"{cell.error}{cell.stderr}", cell
    assert kernel.value("len(__import__('lyceum_magic').runs())") == before


@pytest.mark.parametrize(
    "cell",
    [
        "open('utils.py', 'w').write('VALUE = 7')\nfrom utils import VALUE\nprint(VALUE)",
        "from pathlib import Path\nPath('conf.py').write_text('V = 7')\nimport conf\nprint(conf.V)",
        "!mkdir -p pack && echo VALUE = 7 > pack/__init__.py\nimport pack\nprint(pack.VALUE)",
    ],
)
def test_a_module_that_the_cell_writes_is_imported_and_never_asked_for(
    kernel: Kernel, cell: str
) -> None:
    ran = kernel.run(f"%%lyceum\n{cell}")
    assert ran.error is None, ran
    assert ran.stdout == "7\n"
    shown = kernel.run(f"%%lyceum --dry-run\n{cell}").stdout
    assert not {"utils", "conf", "pack"} & set(re.findall(r"^ +(\w+)$", shown, re.M)), shown


@pytest.mark.parametrize("line", ["%pip install -q humanize", "!pip install humanize | tail -1"])
def test_a_line_that_installs_counts_as_a_requirement(kernel: Kernel, line: str) -> None:
    shown = kernel.run(f"%%lyceum --dry-run\n{line}\nimport humanize").stdout
    assert re.search(r"^requirements +humanize$", shown, re.M), shown
    cell = kernel.run("%%lyceum\n!pip install numpy\nimport numpy\nprint(numpy.__name__)\n1 / 0")
    assert cell.stdout == "numpy\n"
    assert cell.error is not None
    assert "!pip install numpy" in "\n".join(cell.error["traceback"])
