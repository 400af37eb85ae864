"""`lyceum-magic demo`: a notebook in; the notebook with its results, and as an HTML page, out.

It runs in a real kernel of this interpreter and on the embedded server, in a temporary home folder:
the user's login is not used, nothing costs money, and nothing is left on the machine.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..exceptions import LyceumError
from . import local_server

_CELL_LIMIT_S = 300
#: Maximum of lines that are printed of one cell; the page has them all.
_MAX_LINES = 16


def run_demo(notebook: Path, output_dir: Path) -> bool:
    """Execute a notebook, print the output of each cell, and write `.ipynb` and `.html`.

    Args:
        notebook: the file, which is not changed.
        output_dir: the folder for the results, which get the notebook's name.

    Returns:
        Whether every cell ran as it should: a cell tagged `raises-exception` may fail.

    Raises:
        LyceumError: the notebook does not exist, or the packages that execute it are not installed.
    """
    try:
        import nbformat
        from nbclient.exceptions import CellExecutionError
    except ImportError as exc:
        raise LyceumError(f"The demo needs {exc.name}: pip install 'lyceum-magic[demo]'.") from None
    if not notebook.is_file():
        raise LyceumError(
            f"There is no notebook {notebook}; the quickstart is notebooks/quickstart.ipynb in the "
            "source of lyceum-magic."
        )
    content = nbformat.read(notebook, as_version=4)
    failure: CellExecutionError | None = None
    with throwaway_home() as environment:
        try:
            asyncio.run(_execute(content, environment, notebook.parent))
        except CellExecutionError as exc:
            failure = exc
    output_dir.mkdir(parents=True, exist_ok=True)
    executed = output_dir / notebook.name
    nbformat.write(content, executed)
    page = executed.with_suffix(".html")
    page.write_text(_to_html(content), encoding="utf-8")
    if failure is not None:
        print(f"The notebook stopped: {failure.ename}: {failure.evalue}")
    print(f"The executed notebook: {executed}\nThe same as a page:    {page.absolute().as_uri()}")
    return failure is None


@contextmanager
def throwaway_home() -> Iterator[dict[str, str]]:
    """Yield an environment in which processes neither see nor change anything of the user's.

    Their runs go to embedded servers of their own, which end with the context.
    """
    home = Path(tempfile.mkdtemp(prefix="lyceum-magic-demo-"))
    state = home / "lyceum-magic"
    kept = {name: text for name, text in os.environ.items() if not name.startswith("LYCEUM_")}
    try:
        yield {**kept, "HOME": str(home), "LYCEUM_MAGIC_HOME": str(state)}
    finally:
        # After an interrupt, a run may still be alive. Then its server needs the folder, until the
        # run's time limit ends the run, and idleness the server.
        if all(local_server.end(folder) for folder in (state / "servers").glob("*")):
            shutil.rmtree(home, ignore_errors=True)


async def _execute(content: Any, environment: dict[str, str], folder: Path) -> None:
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    kernel = AsyncKernelManager(
        kernel_name="python3",
        # Without folders to look in, `python3` is this interpreter, not one that another
        # environment has registered under that name.
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
        # Sockets in the temporary home, so that outputs do not pass through a port.
        transport="ipc",
        connection_file=str(Path(environment["HOME"]) / "kernel.json"),
    )
    client = NotebookClient(
        content,
        km=kernel,
        timeout=_CELL_LIMIT_S,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
        on_cell_executed=_print_cell,
    )
    try:
        await client.async_execute(env=environment)
    finally:
        await kernel.shutdown_kernel()


def _print_cell(cell: Any, cell_index: int, execute_reply: dict[str, Any]) -> None:
    """Print a cell's first line and its output. nbclient passes the arguments by these names."""
    print(f"[{cell.execution_count}] {cell.source.splitlines()[0]}")
    lines = _text_of(cell.outputs).splitlines()
    if len(lines) > _MAX_LINES:
        half = _MAX_LINES // 2
        lines[half:-half] = [f"... {len(lines) - 2 * half} lines ..."]
    print(textwrap.indent("\n".join(lines), "    "), end="\n\n" if lines else "\n", flush=True)


def _text_of(outputs: Iterable[Any]) -> str:
    """Return outputs as a terminal shows them in the end: rewritten lines in their last state."""
    text = ""
    for output in outputs:
        if output.output_type == "stream":
            text += output.text  # a stream may be cut into pieces anywhere
        elif output.output_type == "error":
            text += f"{output.ename}: {output.evalue}\n"
        elif plain := output.data.get("text/plain"):
            text += f"{plain}\n"
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _to_html(content: Any) -> str:
    from nbconvert import HTMLExporter

    exporter = HTMLExporter()
    # The page must not load anything from other hosts; it has no formulas and no live widgets.
    for name in ("require_js_url", "mathjax_url", "mermaid_js_url", "mermaid_layout_elk_js_url"):
        setattr(exporter, name, "")
    html, _ = exporter.from_notebook_node(content)
    return str(html)
