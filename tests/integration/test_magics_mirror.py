"""The demands of ipyparallel's own tests of `%%px`, made of `%%lyceum`; each has its name there.

Left out is what has no counterpart: several engines, targets, `%autopx`, `%pxconfig`, groupings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.tools.embedded import end_server
from tests.tools.kernel import Kernel, running_kernel

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    state = tmp_path_factory.mktemp("mirror") / "lyceum"
    with running_kernel(env={"LYCEUM_MAGIC_HOME": str(state), "HOME": str(state.parent)}) as kernel:
        yield kernel
    end_server(state)


def test_px_blocking(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum\nimport sys, time\na = 10\nprint(a)\nsys.stdout.flush()")
    assert cell.stdout == "10\n"
    assert kernel.value("_run.state.is_final") == "True"


def test_px_var_expand(kernel: Kernel) -> None:
    kernel.run("x = 'client'")
    assert kernel.run("%%lyceum\nx = 'engine'\nprint(f'{x}', '$x')").stdout == "engine $x\n"


def test_cell_px_var_expand(kernel: Kernel) -> None:
    kernel.run("x, out_name = 'client', 'theoutput'")
    cell = kernel.run("%%lyceum --name {out_name}\nx = 'engine'\nprint(f'{x}')")
    assert cell.stdout == "engine\n"
    assert kernel.value("_run.name") == "'{out_name}'"  # a line is what it says, in any notebook


def test_cellpx_error_stream(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum\nprint('before')\nraise RuntimeError('oops!')")
    assert cell.stdout == "before\n"
    assert cell.error is not None
    text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(cell.error["traceback"]))
    assert (text.count("RuntimeError: oops!"), cell.stderr) == (1, "")


def test_cellpx_stream(kernel: Kernel) -> None:
    cell = kernel.run(
        "%%lyceum\nimport sys\nfrom IPython.display import HTML, Math, display\n"
        "print('stdout')\nprint('stderr', file=sys.stderr)\ndisplay(HTML('<b>HTML</b>'))\n"
        "print('stdout2')\nprint('stderr2', file=sys.stderr)\ndisplay(Math(r'\\alpha'))\n"
        "Math('42')"
    )
    assert (cell.stdout, cell.stderr) == ("stdout\nstdout2\n", "stderr\nstderr2\n")
    assert re.findall(r"<IPython\.core\.display\.(\w+) object>", cell.summary) == [
        "HTML", "Math", "Math",
    ]  # fmt: skip


def test_px_nonblocking(kernel: Kernel) -> None:
    kernel.run("%%lyceum --detach\nprint(5)")
    assert kernel.run("_run.wait(); print(_run.text)").stdout == "5\n\n"
    kernel.run("%%lyceum --detach\n1/0")
    told = kernel.run(
        "try:\n    _run.result()\nexcept Exception as error:\n    print(type(error.__cause__))"
    )
    assert told.stdout == "<class 'ZeroDivisionError'>\n"


def test_result(kernel: Kernel) -> None:
    assert "222" in kernel.run("%%lyceum\nb = 222\nb").summary
    assert "222" in kernel.run("%lyceum attach last").summary


def test_px_matplotlib(kernel: Kernel) -> None:
    cell = kernel.run(
        "%%lyceum\n%matplotlib inline\nimport numpy as np\nimport matplotlib.pyplot as plt\n"
        "plt.plot(np.random.rand(100))"
    )
    assert "matplotlib.lines" in cell.summary
    assert any(
        "image/png" in message["content"]["data"]
        for message in cell.messages
        if message["msg_type"] == "display_data"
    )


def test_cellpx_keyboard_interrupt_default(kernel: Kernel) -> None:
    cell = kernel.start(
        "%%lyceum\nprint('Entering...')\nimport time\ntime.sleep(600)\nprint('Exit')"
    )
    cell.until(lambda cell: "Entering..." in cell.stdout)
    kernel.interrupt()
    cell.done()
    assert "Exit" not in cell.stdout
    assert cell.error is not None
    assert cell.error["ename"] == "RunAborted"
