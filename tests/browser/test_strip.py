"""The strip and the text in a real JupyterLab, for each kernel of the matrix."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from lyceum_magic import display
from lyceum_magic.protocol.money import dollars
from tests.tools.jupyterlab import JupyterLab, Notebook, open_notebook
from tests.tools.waiting import eventually

from .conftest import SCREENSHOTS

SETUP = """\
from dataclasses import replace
from fake_run import *
def running():
    yield Progress(State.RUNNING)
    yield Output("\\x1b[32mepoch 1\\x1b[0m\\r\\x1b[32mepoch 2\\x1b[0m\\n")
    yield Output("a warning\\n", "stderr")
"""
TO_THE_END = """\
def story():
    yield Progress(State.STARTING, "installing torch")
    wait_for("started")
    yield from running()
    wait_for("ended")
    yield Output("loss 0.1\\n")
    yield Finished(State.COMPLETED, 0)
run_cell(story, replace(FACTS, note="no GPU on this machine: runs on the CPU"))
"""
#: One cell for each row of the screenshots.
SHOWN = [
    "show(state=State.PENDING, detail='2 runs ahead', elapsed_s=3)",
    """\
show(state=State.STARTING, detail="installing torch", elapsed_s=14,
     note="no GPU on this machine: runs on the CPU")""",
    "show(state=State.RUNNING, elapsed_s=200, price_per_hour=2.99, timeout_s=600, is_local=False)",
    """\
show(state=State.PENDING, waited_s=None, price_per_hour=2.99, timeout_s=600, is_local=False,
     note="from here on this notebook spends money: $2.99 an hour")""",
    "show(state=State.COMPLETED, elapsed_s=1.2)",
    "show(state=State.COMPLETED, price_per_hour=2.99, billed=0.1234, is_local=False)",
    """\
show(state=State.FAILED, elapsed_s=75, return_code=1,
     detail="ValueError: shapes (3,4) and (3,) not aligned")""",
    "show(state=State.SYSTEM_FAILURE, elapsed_s=75, detail='the machine was lost')",
    "show(state=State.ABORTED, elapsed_s=4000, is_detached=True)",
]
FOREVER = """\
def story():
    yield from running()
    wait_for("never")
run_cell(story)
"""


@pytest.fixture
def open_cells(
    jupyterlab: JupyterLab, chromium: Browser, request: pytest.FixtureRequest
) -> Iterator[object]:
    """Open a notebook of these cells, the setup run; its page must be clean at the end."""
    notebooks: list[Notebook] = []

    def open_(*cells: str, kernel: str = "ipykernel-newest") -> Notebook:
        for gate in ("started", "ended"):
            (jupyterlab.root / gate).unlink(missing_ok=True)
        name = re.sub(r"\W+", "-", request.node.name) + ".ipynb"
        jupyterlab.write_notebook(name, [SETUP, *cells], kernel=kernel)
        notebook = open_notebook(chromium, jupyterlab, name)
        notebooks.append(notebook)
        notebook.run(0)
        notebook.expect_done(0)
        return notebook

    yield open_
    for notebook in notebooks:
        notebook.close()
        assert notebook.errors == []
        assert notebook.foreign_requests == []
    jupyterlab.shut_down_kernels()


def test_a_run_is_shown_while_its_cell_blocks_and_its_summary_stays(
    open_cells, jupyterlab, chromium
):
    notebook = open_cells(TO_THE_END)
    output = notebook.output(1)
    strip = output.locator(".lyceum-strip")
    notebook.run(1)
    expect(strip.get_by_role("status")).to_contain_text("starting")
    expect(strip).to_contain_text("installing torch · no GPU on this machine")
    (jupyterlab.root / "started").touch()
    expect(strip).to_contain_text("running")
    expect(strip).to_contain_text("LOCAL")
    expect(output).to_contain_text("epoch 2")
    expect(output).to_contain_text("a warning")
    expect(strip.locator(".lyceum-time").first).to_have_text(re.compile(r"^([2-9]|\d\d+) s$"))
    # The row stands above what was shown before it.
    expect(output.locator(".jp-OutputArea-child").first.locator(".lyceum-strip")).to_be_visible()

    (jupyterlab.root / "ended").touch()
    notebook.expect_done(1)
    expect(strip).to_have_count(0)
    expect(output).to_contain_text("✓ completed")
    expect(output).to_contain_text("loss 0.1")
    notebook.save()
    notebook.close()
    saved = jupyterlab.read_notebook(notebook.name)
    assert set(saved.cells[1].outputs[0].data) == {"text/html", "text/plain"}
    assert "widgets" not in saved.metadata

    jupyterlab.shut_down_kernels()
    reopened = open_notebook(chromium, jupyterlab, notebook.name)
    expect(reopened.output(1)).to_contain_text("✓ completed LOCAL gpu.a100 · ")
    expect(reopened.output(1)).not_to_contain_text("model not found")
    reopened.close()


def test_stop_ends_a_cell_that_blocks(open_cells):
    notebook = open_cells(FOREVER)
    notebook.run(1)
    stop = notebook.output(1).get_by_role("button", name="Stop run train resnet")
    with notebook.page.expect_response(re.compile(r"/api/kernels/[0-9a-f-]+/interrupt")) as answer:
        stop.click()
    assert answer.value.status == 204
    notebook.expect_done(1)
    expect(notebook.output(1)).to_contain_text("■ aborted")
    expect(notebook.output(1)).to_contain_text("interrupted")


#: A cell that another person wrote; it says how it ended. It goes on printing, because the
#: server may subscribe to the output of a restarted kernel only after the cell has begun.
OTHERS_CELL = """\
import pathlib, time
try:
    while not pathlib.Path("ended").exists():
        print("other", flush=True)
        time.sleep(0.05)
    print("undisturbed")
except KeyboardInterrupt:
    print("disturbed")
"""


def restart_in_the_page(notebook, jupyterlab):
    notebook.page.get_by_role("menuitem", name="Kernel", exact=True).click()
    notebook.page.get_by_role("menuitem", name=re.compile("^Restart Kernel…")).click()
    accept_dialog(notebook)


def restart_elsewhere(notebook, jupyterlab):
    jupyterlab.restart_kernel()


def kill_the_kernel(notebook, jupyterlab):
    os.kill(int((jupyterlab.root / "pid").read_text()), signal.SIGKILL)
    accept_dialog(notebook)


def accept_dialog(notebook):
    """Lab asks before it restarts a kernel, and says when one has died."""
    notebook.page.locator(".jp-Dialog .jp-mod-accept").click()


@pytest.mark.parametrize(
    ("restart", "is_detached"),
    [
        (restart_in_the_page, False),
        (kill_the_kernel, False),
        (restart_elsewhere, True),
    ],
)
def test_a_strip_of_an_earlier_kernel_interrupts_no_other_cell(
    open_cells, jupyterlab, restart, is_detached
):
    notebook = open_cells(
        "import os; open('pid', 'w').write(str(os.getpid()));\n"
        + (
            "strip = Strip(lambda: None)\n"
            "strip.open(replace(FACTS, state=State.RUNNING, is_detached=True)); strip.publish()"
            if is_detached
            else FOREVER
        ),
        OTHERS_CELL,
    )
    old_pid = jupyterlab.root / "pid"
    old_pid.unlink(missing_ok=True)
    notebook.run(1)
    stop = notebook.output(1).locator(".lyceum-stop")
    expect(stop).to_have_text("Stop")
    interrupts: list[str] = []
    notebook.page.on(
        "request", lambda r: interrupts.append(r.url) if "/interrupt" in r.url else None
    )
    restart(notebook, jupyterlab)
    other = notebook.output(2)

    eventually(lambda: jupyterlab.kernel_state() == "idle", "the kernel is back")
    expect(notebook.page.locator("#jp-main-statusbar")).to_contain_text(re.compile(r"\| Idle"))
    notebook.run(2)
    expect(other).to_contain_text("other")
    stop.click()
    expect(notebook.output(1)).to_contain_text("%lyceum abort 3f2a9c1e ends the run")
    expect(stop).to_be_enabled()
    (jupyterlab.root / "ended").touch()
    expect(other).to_contain_text("undisturbed")
    assert interrupts == []
    # Lab had let go of the comms that the first kernel closed, or that ours still had.
    notebook.errors[:] = [error for error in notebook.errors if "omm" not in error]


def test_stop_of_a_detached_run_is_a_message_and_interrupts_nothing(open_cells):
    notebook = open_cells(
        "stopped = threading.Event()\n"
        "strip = Strip(stopped.set)\n"
        "detached = replace(FACTS, state=State.RUNNING, is_detached=True)\n"
        "strip.open(detached); strip.publish()",
        "stopped.wait(30); strip.close(replace(detached, state=State.ABORTED)); print('later')",
    )
    notebook.run(1)
    notebook.expect_done(1)
    interrupts: list[str] = []
    notebook.page.on(
        "request", lambda r: interrupts.append(r.url) if "/interrupt" in r.url else None
    )
    stop = notebook.output(1).locator(".lyceum-stop")
    stop.click()
    expect(stop).to_have_text("Stopping…")
    expect(stop).to_be_disabled()
    notebook.run(2)
    notebook.expect_done(2)
    # The summary lands under the cell the run belongs to, not under the one that runs.
    expect(notebook.output(1)).to_contain_text("■ aborted")
    expect(notebook.output(2)).to_have_text("later")
    assert interrupts == []


def test_without_a_kernel_to_interrupt_stop_is_a_message(open_cells):
    notebook = open_cells(
        "stopped = threading.Event()\n"
        "strip = Strip(stopped.set)\n"
        "strip._face._kernel_id = None\n"
        "strip.open(replace(FACTS, state=State.RUNNING)); strip.publish()",
        "print(stopped.wait(30))",
    )
    notebook.run(1)
    notebook.output(1).locator(".lyceum-stop").click()
    notebook.run(2)
    expect(notebook.output(2)).to_have_text("True")


def test_a_short_run_shows_its_summary_alone(open_cells):
    notebook = open_cells("run_cell(lambda: iter([Output('hi\\n'), Finished(State.COMPLETED, 0)]))")
    notebook.page.evaluate(
        """() => {
            window.stripsSeen = 0;
            new MutationObserver(() => {
                window.stripsSeen += document.querySelectorAll(".lyceum-strip").length;
            }).observe(document.body, { childList: true, subtree: true });
        }"""
    )
    notebook.run(1)
    notebook.expect_done(1)
    expect(notebook.output(1)).to_contain_text("✓ completed")
    assert notebook.page.evaluate("window.stripsSeen") == 0


def test_the_price_is_counted_on_while_the_cell_is_silent(open_cells):
    notebook = open_cells(
        "strip = Strip(lambda: None)\n"
        "priced = replace(FACTS, price_per_hour=3600.0, timeout_s=600)\n"
        "facts = replace(priced, state=State.PENDING, waited_s=None)\n"
        "strip.open(facts); strip.publish()",
        "strip.update(replace(priced, state=State.RUNNING, elapsed_s=12.0, waited_s=10.0))",
        "strip.close(replace(facts, state=State.COMPLETED, billed=7.5))",
    )
    notebook.run(1)
    cost = notebook.output(1).locator(".lyceum-time").nth(1)
    expect(cost).to_have_text("at most $600.00")
    notebook.run(2)
    # A dollar a second.
    expect(cost).to_have_text(re.compile(r"^\$2\.\d\d$"))
    expect(cost).to_have_text(re.compile(r"^\$4\.\d\d$"))
    expect(cost).to_have_attribute("title", "at most $600.00")
    notebook.run(3)
    expect(notebook.output(1)).to_contain_text("billed $7.50")


def test_the_page_words_sums_as_the_kernel_does(open_cells):
    amounts = [0, 0.00003, 0.0003, 0.0091, 0.0096, 0.02, 1.5, 1234.5]
    notebook = open_cells("print(1)")
    source = (Path(display.__file__).parent / "strip.js").read_text("utf-8")
    begin = source.index("function dollars")
    function = source[begin : source.index("\n}\n", begin) + 3]
    shown = notebook.page.evaluate(f"{{ {function}; {amounts}.map(dollars) }}")
    assert shown == [dollars(amount) for amount in amounts]


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_screenshots_of_each_state(open_cells, jupyterlab, theme):
    """Nothing is compared: the pictures are for people to look at."""
    jupyterlab.set_theme(theme)
    notebook = open_cells(*SHOWN)
    for index in range(1, len(SHOWN) + 1):
        notebook.run(index)
        notebook.expect_done(index)
    expect(notebook.page.locator(".lyceum-strip")).to_have_count(4)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    notebook.page.keyboard.press("Control+b")  # the file browser takes room
    for width in (1100, 560):
        notebook.page.set_viewport_size({"width": width, "height": 1100})
        notebook.cell(0).scroll_into_view_if_needed()
        path = SCREENSHOTS / f"states-{theme.split()[-1].lower()}-{width}.png"
        notebook.page.screenshot(path=path)
