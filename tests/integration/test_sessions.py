"""`--session` in real kernels on the embedded server: variables that last from cell to cell."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.tools.embedded import end_server
from tests.tools.kernel import Cell, Kernel, running_kernel

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sessions.md"

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of the kernels of this module."""
    state = tmp_path_factory.mktemp("sessions") / "lyceum"
    yield state
    end_server(state)


def environment(state: Path, notebook: str = "") -> dict[str, str]:
    named = {"JPY_SESSION_NAME": notebook} if notebook else {}
    return {"LYCEUM_MAGIC_HOME": str(state), "HOME": str(state.parent), **named}


@pytest.fixture(scope="module")
def kernel(state: Path) -> Iterator[Kernel]:
    with running_kernel(env=environment(state)) as kernel:
        yield kernel


@pytest.fixture(scope="module")
def other(state: Path) -> Iterator[Kernel]:
    with running_kernel(env=environment(state)) as kernel:
        yield kernel


def ran(kernel: Kernel, code: str) -> Cell:
    """A cell that has ended without an error."""
    cell = kernel.run(code)
    assert cell.error is None, cell
    return cell


def plain(text: str) -> str:
    """A text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_variables_last_from_cell_to_cell_with_their_aliases(kernel: Kernel) -> None:
    cell = ran(kernel, "%%lyceum --session kept\nx = [1]\ny = x\ndef total(): return sum(x)")
    assert re.search(r"session kept · cell 1 · 3 variables · \d+ bytes", cell.summary)
    assert ran(kernel, "%%lyceum --session kept\ny.append(2)\nprint(total(), x is y)").stdout == (
        "3 True\n"
    )
    assert kernel.run("x").error is not None, "the notebook's own variables are others"


def test_a_new_kernel_goes_on_and_says_from_where(state: Path, kernel: Kernel) -> None:
    ran(kernel, "%%lyceum --session lasting\nx = 41")
    with running_kernel(env=environment(state)) as later:
        cell = ran(later, "%%lyceum --session lasting\nprint(x + 1)")
        assert re.fullmatch(
            r"\[lyceum\] session lasting continues cell 1 of today \d\d:\d\d; "
            r"`%lyceum session new` starts empty\n42\n",
            cell.stdout,
        )
        assert ran(later, "%%lyceum --session lasting\nprint(x)").stdout == "41\n"


def test_what_is_not_kept_is_said_in_one_line(kernel: Kernel) -> None:
    cell = ran(kernel, "%%lyceum --session losing\ng = (i for i in [1])\nx = 1")
    assert cell.stdout == "[lyceum] Not kept for the next cell: g (a generator)\n"
    failed = kernel.run("%%lyceum --session losing\nnext(g)")
    assert failed.error is not None
    assert "did not keep it after cell 1: a generator" in failed.error["evalue"]


def test_a_cell_that_raises_keeps_what_it_had_assigned(kernel: Kernel) -> None:
    failed = kernel.run("%%lyceum --session raising\nx = 1\n1 / 0")
    assert failed.error is not None
    assert "ZeroDivisionError" in failed.error["evalue"]
    assert failed.stdout == (
        "[lyceum] session raising keeps what the cell had assigned, as cell 1\n"
    )
    assert ran(kernel, "%%lyceum --session raising\nprint(x)").stdout == "1\n"


def test_a_cell_that_is_killed_leaves_the_state_before_it(kernel: Kernel) -> None:
    ran(kernel, "%%lyceum --session killed\nx = 1")
    failed = kernel.run("%%lyceum --session killed\nx = 2\nimport os; os.kill(os.getpid(), 9)")
    assert failed.error is not None
    assert failed.stdout == (
        "[lyceum] session killed stays at cell 1: the cell ended before it could be saved\n"
    )
    assert ran(kernel, "%%lyceum --session killed\nprint(x)").stdout == "1\n"


def test_an_interrupt_interrupts_the_cell_whose_state_is_kept(kernel: Kernel) -> None:
    cell = kernel.start(
        "%%lyceum --session interrupted\nx = 1\nprint('begun')\nimport time\n"
        "try:\n    while True: time.sleep(0.01)\nfinally:\n    x = 2"
    )
    cell.until(lambda cell: "begun" in cell.stdout)
    kernel.interrupt()
    error = cell.done().error
    assert error is not None
    assert error["evalue"].startswith("KeyboardInterrupt")
    assert "while True: time.sleep(0.01)" in plain("\n".join(error["traceback"]))
    assert "session interrupted keeps what the cell had assigned, as cell 1" in cell.stdout
    assert ran(kernel, "%%lyceum --session interrupted\nprint(x)").stdout == "2\n"


def test_a_cell_that_takes_no_interrupt_is_aborted_and_the_state_stays(kernel: Kernel) -> None:
    ran(kernel, "%%lyceum --session deaf\nx = 1")
    cell = kernel.start(
        "%%lyceum --session deaf\nimport signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "x = 2\nprint('begun')\nimport time\nwhile True: time.sleep(0.01)"
    )
    cell.until(lambda cell: "begun" in cell.stdout)
    kernel.interrupt()
    assert cell.done().error is not None
    assert "session deaf stays at cell 1" in cell.stdout
    assert ran(kernel, "%%lyceum --session deaf\nprint(x)").stdout == "1\n"


def test_of_two_kernels_in_one_session_one_is_refused_at_once(
    kernel: Kernel, other: Kernel, tmp_path: Path
) -> None:
    ran(kernel, "%%lyceum --session shared\nx = 1")
    gate = tmp_path / "gate"
    cell = kernel.start(
        "%%lyceum --session shared\nprint('begun')\nimport os, time\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)\nx = 2"
    )
    cell.until(lambda cell: "begun" in cell.stdout)
    refused = other.run("%%lyceum --session shared\nx = 3")
    gate.touch()
    assert refused.error is not None
    assert re.fullmatch(
        r"Session 'shared' is busy: run \S+ works on its branch 'main'\. Wait for its end, or stop "
        r"it\.",
        refused.error["evalue"],
    ), refused
    assert cell.done().error is None
    assert "2\n" in ran(other, "%%lyceum --session shared\nprint(x)").stdout


def test_a_copy_of_a_notebook_begins_its_own_session(state: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "work.ipynb")
    with running_kernel(env=environment(state, path)) as first:
        first.is_attended = True
        ran(first, "%%lyceum --session\nx = 1")
    with running_kernel(env=environment(state, path)) as again:
        again.is_attended = True
        assert "continues cell 1" in (cell := ran(again, "%%lyceum --session\nprint(x)")).stdout
        assert "session main · cell 2" in cell.summary
    with running_kernel(env=environment(state, str(tmp_path / "copy.ipynb"))) as copy:
        copy.is_attended = True
        cell = ran(copy, "%%lyceum --session\nprint('x' in globals())")
        assert cell.stdout == "False\n"


def test_nbclient_starts_empty_each_time(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(state, str(tmp_path / "outer.ipynb")).items():
        monkeypatch.setenv(name, value)
    cells = ["%load_ext lyceum_magic", "%%lyceum --session\nprint('x' in globals())\nx = 1",
             "%%lyceum --session\nprint(x)"]  # fmt: skip
    for _ in range(2):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        NotebookClient(notebook, timeout=120).execute()
        texts = [
            "".join(o.text for o in cell.outputs if o.output_type == "stream")
            for cell in notebook.cells
        ]
        assert texts[1:] == ["False\n", "1\n"]


def test_values_and_files_travel_with_the_cells_of_a_session(
    kernel: Kernel, tmp_path: Path
) -> None:
    ran(kernel, f"import os; os.chdir({str(tmp_path)!r})")
    (tmp_path / "data.txt").write_text("from here")
    ran(kernel, "sent = {'a': 1}")
    ran(kernel, "%%lyceum --session both --in sent --file data.txt\ntext = open('data.txt').read()")
    ran(kernel, "%%lyceum --session both --out text,sent --save made.txt\n"
                "sent['b'] = 2\nopen('made.txt', 'w').write(text)")  # fmt: skip
    assert kernel.value("text") == "'from here'"
    assert kernel.value("sent") == "{'a': 1, 'b': 2}"
    assert (tmp_path / "made.txt").read_text() == "from here"


def test_a_mistake_is_undone_by_checkout_and_cells_are_compared(kernel: Kernel) -> None:
    ran(kernel, "%%lyceum --session undone\nx = [1, 2]")
    ran(kernel, "%%lyceum --session undone\nx.clear(); y = 1")
    assert "x     list 2 → list 0" in ran(kernel, "%lyceum session diff undone:1 undone").result
    assert "y     int" in ran(kernel, "%lyceum session show undone").result
    ran(kernel, "%lyceum session checkout undone 1")
    assert ran(kernel, "%%lyceum --session undone\nprint(x)").stdout == "[1, 2]\n"
    ran(kernel, "%lyceum session branch try undone")
    ran(kernel, "%%lyceum --session undone\nx = 'other'")
    assert "undone/try" in ran(kernel, "%lyceum session").result
    ran(kernel, "%lyceum session branch main undone")
    assert ran(kernel, "%%lyceum --session undone\nprint(x)").stdout == "[1, 2]\n"
    ran(kernel, "%lyceum session new undone")
    assert ran(kernel, "%%lyceum --session undone\nprint('x' in globals())").stdout == "False\n"
    ran(kernel, "%lyceum session rm undone")
    assert "undone" not in ran(kernel, "%lyceum session").result


def test_a_session_or_a_cell_that_is_not_there_is_one_sentence(kernel: Kernel) -> None:
    ran(kernel, "%%lyceum --session short\nx = 1")
    for line, sentence in {
        "checkout nosuch 1": "There is no session nosuch; ",
        "checkout short 9": "Session short has no cell 9; `%lyceum session show short` ",
        "show short 9": "Session short has no cell 9; ",
        "show nosuch": "Session nosuch has no cell yet; ",
        "diff short:1 short:9": "Session short has no cell 9; ",
    }.items():
        error = kernel.run(f"%lyceum session {line}").error
        assert error is not None, line
        assert sentence in plain(str(error)), line


def test_a_head_that_this_machine_does_not_know_needs_the_users_consent(
    state: Path, tmp_path: Path, kernel: Kernel
) -> None:
    ran(kernel, "%%lyceum --session strange\nx = 1")
    home = tmp_path / "elsewhere"
    (sessions,) = state.glob("servers/*/sessions")
    shutil.copytree(sessions, home / sessions.relative_to(state))
    for folder in (home, home / "servers", *home.glob("servers/*")):
        folder.chmod(0o700)
    try:
        with running_kernel(env=environment(home)) as stranger:
            refused = stranger.run("%%lyceum --session strange\nprint(x)")
            assert refused.error is not None
            assert "was not written from this machine" in refused.error["evalue"]
            assert "1\n" in ran(stranger, "%%lyceum --session strange --yes\nprint(x)").stdout
            assert ran(stranger, "%%lyceum --session strange\nprint(x)").stdout == "1\n"
    finally:
        end_server(home)


def test_the_python_api_runs_reads_and_sets(kernel: Kernel) -> None:
    ran(kernel, "import lyceum_magic, numpy\nsession = lyceum_magic.Session('api')")
    ran(kernel, "run = session.run('import numpy as np\\na = np.arange(3)\\nprint(a)')")
    assert kernel.value("run.text") == r"'[0 1 2]\n'"
    assert kernel.value("[session.get('a').sum().item(), session.head.cell]") == "[3, 1]"
    assert kernel.value("session.variables['a'].shape") == "(3,)"
    ran(kernel, "session.set('b', {'k': a} if 'a' in globals() else {'k': 1})")
    assert kernel.value("session.get('b')") == "{'k': 1}"
    ran(kernel, "session.checkout(1)")
    assert kernel.value("list(session.variables)") == "['a']"


def test_offload_runs_every_cell_elsewhere_until_it_is_off(kernel: Kernel) -> None:
    ran(kernel, "here = True")
    assert "session offloaded" in ran(kernel, "%lyceum offload on --session offloaded").result
    try:
        assert ran(kernel, "there = 1\nprint('here' in globals())").stdout == "False\n"
        assert "\n2" in f"\n{ran(kernel, 'there + 1').summary}"
        failed = kernel.run("x = 1\n\n1 / 0")
        assert failed.error is not None
        assert "line 3" in plain("\n".join(failed.error["traceback"]))
        assert "offloaded" in ran(kernel, "%lyceum session").result
        ran(kernel, "%%lyceum --no-session\nassert 'there' not in globals()")
        ran(kernel, "%load_ext lyceum_magic")
        ran(kernel, "   ")
    finally:
        ran(kernel, "%lyceum offload off")
    assert kernel.value("here") == "True"
    assert kernel.run("there").error is not None


def test_the_notebooks_own_variables_are_adopted_with_what_they_share(
    state: Path, tmp_path: Path
) -> None:
    with running_kernel(env=environment(state)) as kernel:
        ran(kernel, f"import os; os.chdir({str(tmp_path)!r})")
        (tmp_path / "mine.py").write_text("class Kept:\n    def __init__(self): self.of = 'mine'\n")
        ran(
            kernel,
            "import numpy as np, sys\nsys.path.insert(0, '')\nfrom mine import Kept\n"
            "a = [np.arange(3)]\nb = a\nkept = Kept()\ng = (i for i in a)\n"
            "class Point:\n    x = 1\ndef total(): return int(a[0].sum())\np = Point()",
        )
        shown = ran(kernel, "%lyceum adopt adopted").result
        assert "session adopted begins with" in shown
        assert re.search(r"g +not adopted: a generator", shown)
        cell = ran(
            kernel,
            "%%lyceum --session adopted\na.append(1)\n"
            "print(total(), b is a, type(p) is Point, kept.of, np.pi > 3, 'g' in globals())\n"
            "print([n for n in globals() if 'lyceum' in n])",
        )
        assert cell.stdout == "3 True True mine True False\n[]\n"
        assert "cell 2" in cell.summary


def test_more_than_10_mib_is_adopted_in_pieces_after_consent(state: Path) -> None:
    with running_kernel(env=environment(state)) as kernel:
        ran(kernel, "import os\nlarge = os.urandom(20_000_000)")
        refused = kernel.run("%lyceum adopt pieces")
        assert refused.error is not None
        assert "20 MB would travel (large 20 MB" in refused.error["evalue"]
        assert "3 of 3 parts" in ran(kernel, "%lyceum adopt pieces --yes").stdout
        digest = "import hashlib; print(hashlib.sha256(large).hexdigest())"
        there = ran(kernel, f"%%lyceum --session pieces\n{digest}").stdout
        assert there == ran(kernel, digest).stdout
        assert "in-" not in ran(kernel, "%lyceum session").result


def test_the_examples_of_the_page_work(state: Path, tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    with running_kernel(env=environment(state, str(tmp_path / "page.ipynb"))) as kernel:
        kernel.is_attended = True
        first, second, script = [ran(kernel, example) for example in examples]
    assert "1 variable" in first.summary
    assert "2.214" in second.summary
    assert script.stdout == "3 ['mean', 'values']\n3\n"
