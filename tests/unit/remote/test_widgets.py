"""Widgets show as HTML that follows them, and `Output` takes what is shown inside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyceum_magic.outputs.decoding import Display
from tests.unit.remote.marked import Ended, run_marked

pytest.importorskip("ipywidgets")


def displays(done: Ended) -> list[Display]:
    assert (done.stderr, done.return_code) == ("", 0)
    return [item for item in done.items if isinstance(item, Display)]


def last_of_each(done: Ended) -> list[Display]:
    """The last state of each place in the cell, in the order of the places."""
    return list({item.display_id: item for item in displays(done)}.values())


@pytest.mark.parametrize("head", ["from tqdm.notebook import tqdm", "from tqdm.auto import tqdm"])
def test_a_bar_of_tqdm_ends_at_its_end_in_its_place(tmp_path: Path, head: str) -> None:
    cell = (
        f"import warnings\nwarnings.simplefilter('ignore')\n{head}\nfor n in tqdm(range(300)): pass"
    )
    (bar,) = last_of_each(run_marked(cell, tmp_path))
    assert "width:100.0%" in bar.data["text/html"]
    assert "300/300" in bar.data["text/html"]
    assert bar.data["text/plain"].startswith("100%|##########| 300/300 [")


def test_a_bar_inside_another_does_not_add_a_place_for_each_refresh(tmp_path: Path) -> None:
    cell = (
        "from tqdm.notebook import tqdm\nimport time\n"
        "for n in tqdm(range(2), desc='outer'):\n"
        "    for m in tqdm(range(30), desc='inner', leave=False): time.sleep(0.01)"
    )
    outer, *inner = last_of_each(run_marked(cell, tmp_path))
    assert "2/2" in outer.data["text/html"]
    assert [bar.data for bar in inner] == [{"text/html": "", "text/plain": ""}] * 2


def test_a_bar_that_fails_keeps_where_it_was(tmp_path: Path) -> None:
    cell = "from tqdm.notebook import tqdm\nfor n in tqdm(range(4)):\n    if n == 2: 1 / 0"
    done = run_marked(cell, tmp_path)
    bar = [item for item in done.items if isinstance(item, Display)][-1]
    assert "2/4" in bar.data["text/html"]
    assert "#f44336" in bar.data["text/html"]


@pytest.mark.parametrize("head", ["from tqdm.notebook import tqdm", "from tqdm.auto import tqdm"])
@pytest.mark.parametrize(
    ("rest", "shown"),
    [
        # tqdm itself draws at most each tenth of a second, also in a kernel.
        ("for n in range(2): bar.update()", "0/4"),
        ("other = tqdm(total=9)\nother.update()\nbar.update(2)", "0/4"),
        ("bar.update(2)\nbar.set_description('half')", "2/4"),
        ("import atexit\nbar.update(2)\natexit.register(bar.refresh)", "2/4"),
        (
            (
                "import threading\n"
                "threading.Thread(target=lambda: (bar.update(2), bar.refresh())).start()"
            ),
            "2/4",
        ),
    ],
)
def test_a_bar_that_is_left_open_keeps_no_run_from_its_end(
    tmp_path: Path, head: str, rest: str, shown: str
) -> None:
    (bar, *_) = last_of_each(run_marked(f"{head}\nbar = tqdm(total=4)\n{rest}", tmp_path))
    assert shown in bar.data["text/html"]


def test_an_error_after_an_open_bar_is_the_cells_own(tmp_path: Path) -> None:
    cell = "from tqdm.notebook import tqdm\nbar = tqdm(total=4)\nbar.update(2)\n1 / 0"
    done = run_marked(cell, tmp_path)
    assert done.raised is not None
    assert [item for item in done.items if isinstance(item, Display)]


def test_the_last_of_many_quick_changes_is_shown_also_while_the_cell_goes_on(
    tmp_path: Path,
) -> None:
    cell = (
        "import ipywidgets, time\nbar = ipywidgets.IntProgress(max=1000)\ndisplay(bar)\n"
        "for n in range(1001): bar.value = n\n"
        "import lyceum_magic_remote.widgets as widgets\n"
        "while widgets._timer: time.sleep(0.01)\n"
        "display('later')"
    )
    shown = displays(run_marked(cell, tmp_path))
    assert shown[-1].data["text/plain"] == "'later'"
    assert "width:100.0%" in shown[-2].data["text/html"]
    assert len(shown) < 100


def test_rich_draws_its_bar_in_one_place(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    cell = "from rich.progress import track\nfor n in track(range(5)): pass\nprint('after')"
    done = run_marked(cell, tmp_path)
    bar, *_ = last_of_each(done)
    assert bar.data["text/html"].count("<pre") == 1
    assert "100%" in bar.data["text/html"]
    assert done.stdout == "after\n"


def test_an_output_takes_text_displays_and_errors(tmp_path: Path) -> None:
    cell = (
        "import ipywidgets, logging, sys\nout = ipywidgets.Output()\n"
        "handler = logging.StreamHandler(sys.stderr)\nlogging.getLogger().addHandler(handler)\n"
        "with out:\n    print('text')\n    logging.error('logged')\n"
        "    display({'text/html': '<b>x</b>'}, raw=True)\n    raise ValueError('bad')\n"
        "print([output['output_type'] for output in out.outputs], out.outputs[-1]['evalue'])\nout"
    )
    done = run_marked(cell, tmp_path)
    assert done.stdout == "['stream', 'stream', 'display_data', 'error'] bad\n"
    (shown,) = displays(done)
    html = shown.data["text/html"]
    assert html.index("text") < html.index("logged") < html.index("<b>x</b>")
    assert "ValueError: bad" in html
    assert "lyceum" not in html


def test_an_output_that_is_shown_follows_what_is_put_into_it(tmp_path: Path) -> None:
    cell = (
        "import ipywidgets\nout = ipywidgets.Output()\ndisplay(out)\n"
        "with out: print('gone')\nout.clear_output(wait=True)\n"
        "with out: print('<stays>')\nout.append_stdout('more')\n"
        "@out.capture()\ndef f(): print('captured')\nf()"
    )
    (shown,) = last_of_each(run_marked(cell, tmp_path))
    assert shown.data["text/plain"] == "<stays>\nmorecaptured"
    assert "&lt;stays&gt;" in shown.data["text/html"]
    assert "gone" not in shown.data["text/html"]


def test_what_ends_a_program_goes_through_an_output(tmp_path: Path) -> None:
    done = run_marked("import ipywidgets\nwith ipywidgets.Output(): raise SystemExit(3)", tmp_path)
    assert done.return_code == 3


def test_outputs_inside_of_captured_output(tmp_path: Path) -> None:
    cell = (
        "import ipywidgets\nfrom IPython.utils.capture import capture_output\n"
        "with ipywidgets.Output() as _:\n    with capture_output() as caught:\n"
        "        print('a')\n        display(1)\n"
        "print(repr(caught.stdout), len(caught.outputs))"
    )
    done = run_marked(cell, tmp_path)
    assert (done.stdout, displays(done)) == ("'a\\n' 1\n", [])


def test_boxes_and_what_has_a_value(tmp_path: Path) -> None:
    cell = (
        "import ipywidgets as w\n"
        "w.VBox([w.HBox([w.Label('<l>'), w.HTML('<i>h</i>')]), w.IntSlider(3, description='s'),"
        " w.Button(description='go'), w.FloatProgress(0.5, max=2.0)])"
    )
    (shown,) = displays(run_marked(cell, tmp_path))
    html = shown.data["text/html"]
    for part in ("&lt;l&gt;", "<i>h</i>", "<span>3</span>", "<button disabled", "width:25.0%"):
        assert part in html


def test_a_fork_takes_no_bar_along(tmp_path: Path) -> None:
    cell = (
        "import ipywidgets, os\nbar = ipywidgets.IntProgress(max=10)\ndisplay(bar)\n"
        "bar.value = 3\nbar.value = 4\nchild = os.fork()\n"
        "if not child:\n    bar.value = 9\n    os._exit(0)\n"
        "os.waitpid(child, 0)\nbar.value = 5"
    )
    shown = displays(run_marked(cell, tmp_path))
    assert "width:50.0%" in shown[-1].data["text/html"]
    assert not any("width:90.0%" in item.data["text/html"] for item in shown)


@pytest.mark.parametrize("after", ["", "    print('in between')\n", "bar = None\n"])
def test_a_bar_inside_an_output_goes_on_with_it(tmp_path: Path, after: str) -> None:
    cell = (
        "from tqdm.notebook import tqdm\nimport ipywidgets\n"
        "out = ipywidgets.Output()\ndisplay(out)\n"
        f"with out:\n    for n in tqdm(range(3)): pass\n{after}"
    )
    (shown,) = last_of_each(run_marked(cell, tmp_path))
    assert "width:100.0%" in shown.data["text/html"]
    assert "3/3" in shown.data["text/html"]
    assert "3/3" in shown.data["text/plain"]
