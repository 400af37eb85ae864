"""Each cell of `cells.py` shows in the notebook what it shows under `%%lyceum`."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest

from lyceum_magic.embedded.demo import throwaway_home
from tests.integration.cells import CELLS
from tests.tools.outputs import raised, seen

#: All cells together, each of them twice.
LIMIT_S = 1200

#: They undo what cells before them set in the kernel, so they run whatever is selected.
RESTORING = {"figures that stay open", "figures that close again"}

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(LIMIT_S + 60)]


@pytest.fixture(scope="module")
def executed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Cell id -> the executed cell: `here-...` and `there-...` for each name that is selected."""
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient

    folder = tmp_path_factory.mktemp("differential")
    cells = [nbformat.v4.new_code_cell("%load_ext lyceum_magic")]
    tests = (item for item in request.session.items if item.path == request.path)
    selected = RESTORING | {item.callspec.params["name"] for item in tests}  # type: ignore[attr-defined]
    for number, (name, source) in enumerate(CELLS.items()):
        if name not in selected:
            continue
        # Line 1 is the magic line there, so it is a remark here.
        for place, first in (("here", "# here"), ("there", "%%lyceum")):
            cell = nbformat.v4.new_code_cell(f"{first}\n{source}")
            cell.id = f"{place}-{number}"
            cells.append(cell)
    with throwaway_home() as variables:
        variables["IPYTHONDIR"] = str(folder / "ipython")
        manager = KernelManager(connection_file=str(folder / "kernel.json"))
        client = NotebookClient(
            nbformat.v4.new_notebook(cells=cells),
            km=manager,
            timeout=LIMIT_S,
            allow_errors=True,
            resources={"metadata": {"path": str(folder)}},
        )
        # Not its own manager, so it would leave kernel and sockets to later tests.
        notebook = client.execute(env=variables, cleanup_kc=True)
    nbformat.write(notebook, folder / "executed.ipynb")
    return {cell.id: cell for cell in notebook.cells}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_shows_there_what_it_shows_here(executed: dict[str, Any], name: str) -> None:
    number = list(CELLS).index(name)
    here, there = (executed[f"{place}-{number}"].outputs for place in ("here", "there"))
    assert without_strip(there) != there, "this cell has not run there"
    assert seen(without_strip(there)) == seen(here)
    assert raised(there) == raised(here)


def without_strip(outputs: list[Any]) -> list[Any]:
    """The outputs of the cell itself: all but the one display of its run."""
    return [
        output
        for output in outputs
        if not output.get("data", {}).get("text/plain", "").startswith("lyceum ")
    ]
