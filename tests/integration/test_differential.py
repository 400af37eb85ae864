"""Each cell of `cells.py` shows in the notebook what it shows under `%%lyceum`."""

from __future__ import annotations

import re
from typing import Any

import nbformat
import pytest

from lyceum_magic.embedded.demo import throwaway_home
from tests.integration.cells import CELLS

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


def seen(outputs: list[Any]) -> list[object]:
    """The visible outputs, errors apart, as far as they must be equal.

    - A result is a display: `execute_result` needs a number that only the kernel can give.
    - Text between two displays is one text for each stream. Which stream came first is not told,
      for a kernel sends each of them when it comes to it.
    - Of rewritten lines the last state counts: the kernel here sends all of them, ours those that
      can be seen.
    """
    shown: list[object] = []
    texts: dict[str, str] = {}

    def end_texts() -> None:
        for stream in sorted(texts):
            if text := normal(last_state(texts[stream])):
                shown.append((stream, text))
        texts.clear()

    for output in outputs:
        if output.output_type == "stream":
            texts[output.name] = texts.get(output.name, "") + output.text
        elif output.output_type != "error":
            end_texts()
            shown.append((normal(output.data), normal(output.metadata)))
    end_texts()
    return shown


def raised(outputs: list[Any]) -> str | None:
    """The traceback as a reader sees it."""
    errors = [output for output in outputs if output.output_type == "error"]
    assert len(errors) <= 1
    if not errors:
        return None
    text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(errors[0].traceback))
    return str(normal(text))


def last_state(text: str) -> str:
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(line.rstrip() for line in lines)


#: Text that differs between any two executions -> the text that replaces it.
NOISE = {
    r"0x[0-9a-f]{6,}": "0x...",
    r"Cell In\[\d+\]": "Cell In[n]",
    # A syntax error in `eval`: the frame in which the kernel runs a cell.
    r"\n  File \S+/interactiveshell\.py:\d+ in run_code\n    exec\(.*\n": "",
    r"\b1 # here": "1 ",  # the magic line, which tracebacks of runs leave empty
    r"/[\w./-]{0,200}/ipykernel_\d+/(\d+|cell)\.py": "<cell>",  # the file of a cell
    r"\bT_[0-9a-f]{5}": "T_...",  # the id of a styled table of pandas
    r"\bsk-container-id-\d+": "sk-container-id-n",  # scikit-learn counts them
    r"\baltair-viz-[0-9a-f]+": "altair-viz-...",
    r"\|[█-▏ ]*\| (\d+/\d+) \[\d\d:\d\d<\S+, +\S+?(/s|it)": r"|bar| \1 [times",  # of tqdm
}


def normal(value: Any) -> Any:
    """The same in every execution, wherever in a bundle it stands."""
    if isinstance(value, dict):
        # A picture is equal as it is, or it is another one.
        return {
            key: item if key.startswith("image/") else normal(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [normal(item) for item in value]
    if not isinstance(value, str):
        return value
    for noise, name in NOISE.items():
        value = re.sub(noise, name, value)
    return value
