"""A strip comes when it is due, goes with a summary, and needs neither widgets nor a notebook."""

from __future__ import annotations

import contextvars
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from lyceum_magic.display import faces
from lyceum_magic.display.faces import NotebookFace, PlainFace, TerminalFace, choose_face
from lyceum_magic.display.strip import Strip
from lyceum_magic.display.summary import RunFacts
from lyceum_magic.protocol.states import State

RUNNING = RunFacts("3f2a9c1e-0000", State.RUNNING, "cpu")
COMPLETED = replace(RUNNING, state=State.COMPLETED, elapsed_s=1.2)
WIDGET = "application/vnd.jupyter.widget-view+json"


class RecordingFace:
    def __init__(self):
        self.calls = []
        self.can_interrupt = False

    def beat(self):
        self.calls.append("beat")

    def reserve(self):
        self.calls.append("reserve")

    def show(self, facts):
        self.calls.append(("show", facts))

    def update(self, facts):
        self.calls.append(("update", facts))

    def finish(self, facts):
        self.calls.append(("finish", facts))


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def face():
    return RecordingFace()


@pytest.fixture
def strip(face, now):
    return Strip(lambda: None, clock=lambda: now[0], face=face)


def test_a_short_run_shows_its_summary_alone(strip, face):
    strip.open(RUNNING)
    strip.update(replace(RUNNING, detail="installing"))
    strip.close(COMPLETED)
    assert face.calls == ["reserve", ("finish", COMPLETED)]
    assert strip.due_in_s() is None


def test_a_longer_run_shows_its_newest_facts_when_they_are_due(strip, face, now):
    assert strip.due_in_s() is None
    strip.open(replace(RUNNING, state=State.PENDING))
    assert strip.due_in_s() == pytest.approx(0.3)
    strip.update(RUNNING)
    now[0] += 0.4
    assert strip.due_in_s() == 0
    strip.publish()
    assert strip.due_in_s() is None
    strip.publish()
    strip.update(replace(RUNNING, note="n"))
    strip.close(COMPLETED)
    assert face.calls == [
        "reserve",
        ("show", RUNNING),
        ("update", replace(RUNNING, note="n")),
        ("finish", COMPLETED),
    ]


def test_a_cell_with_a_stop_button_beats_as_long_as_it_blocks(strip, face, now):
    face.can_interrupt = True
    strip.open(RUNNING)
    strip.publish()
    for _ in range(2):
        assert strip.due_in_s() == pytest.approx(1.0)
        now[0] += 1.1
        assert strip.due_in_s() == 0
        strip.publish()
    strip.close(COMPLETED)
    assert strip.due_in_s() is None
    strip.publish()
    assert face.calls == ["reserve", ("show", RUNNING), "beat", "beat", ("finish", COMPLETED)]


def test_a_detached_run_has_no_cell_that_beats(strip, face):
    face.can_interrupt = True
    strip.open(replace(RUNNING, is_detached=True))
    strip.publish()
    assert strip.due_in_s() is None


class Published(list):
    """The messages to a notebook: (bundle, display id, is update)."""

    def __call__(self, data, metadata=None, *, transient, update):
        self.append((data, transient["display_id"], update))


@pytest.fixture
def published(monkeypatch):
    import IPython.display

    published = Published()
    monkeypatch.setattr(IPython.display, "publish_display_data", published)
    return published


def test_a_notebook_gets_one_display_whose_last_bundle_names_no_widget(published):
    strip = Strip(lambda: None, face=NotebookFace(lambda: None, kernel_id=None))
    strip.open(RUNNING)
    strip.publish()
    strip.close(COMPLETED)
    assert [set(bundle) for bundle, _, _ in published] == [
        {"text/html", "text/plain"},
        {"text/html", "text/plain", WIDGET},
        {"text/html", "text/plain"},
    ]
    assert len({display_id for _, display_id, _ in published}) == 1
    assert [update for _, _, update in published] == [False, True, True]
    assert "completed" in published[-1][0]["text/plain"]


def test_without_anywidget_the_html_itself_is_kept_up_to_date(published, monkeypatch):
    monkeypatch.delitem(sys.modules, "lyceum_magic.display.widget", raising=False)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    strip = Strip(lambda: None, face=NotebookFace(lambda: None, kernel_id=None))
    strip.open(RUNNING)
    strip.publish()
    strip.update(replace(RUNNING, note="2 runs ahead"))
    strip.close(COMPLETED)
    assert all(WIDGET not in bundle for bundle, _, _ in published)
    assert "2 runs ahead" in published[2][0]["text/html"]


def test_the_place_is_reserved_in_the_cell_in_which_the_strip_was_made(monkeypatch):
    import IPython.display

    cell = contextvars.ContextVar("cell")
    seen = []
    monkeypatch.setattr(
        IPython.display, "publish_display_data", lambda *_, **__: seen.append(cell.get())
    )
    cell.set("first")
    face = NotebookFace(lambda: None, kernel_id=None)
    cell.set("second")
    face.reserve()
    face.finish(COMPLETED)
    # An update goes by its id, and some readers listen to the running cell alone.
    assert seen == ["first", "second"]


def test_a_thread_that_knows_no_cell_publishes_as_the_strips_own(monkeypatch):
    import IPython.display

    cell = contextvars.ContextVar("cell")
    seen = []
    monkeypatch.setattr(
        IPython.display, "publish_display_data", lambda *_, **__: seen.append(cell.get())
    )
    cell.set("first")
    face = NotebookFace(lambda: None, kernel_id=None)
    thread = threading.Thread(target=face.finish, args=[COMPLETED])
    thread.start()
    thread.join()
    assert seen == ["first"]


def test_the_page_is_told_only_what_changed_besides_time():
    from lyceum_magic.display.widget import StripWidget

    widget = StripWidget(RUNNING, on_stop=lambda: None, kernel_id=None)
    changes = []
    widget.observe(changes.append, "facts")
    widget.set_facts(replace(RUNNING, elapsed_s=5))
    assert changes == []
    widget.set_facts(replace(RUNNING, elapsed_s=5, note="n"))
    assert len(changes) == 1
    widget.close()


def test_only_a_stop_message_stops():
    from lyceum_magic.display.widget import StripWidget

    stops = []
    widget = StripWidget(RUNNING, on_stop=lambda: stops.append(1), kernel_id=None)
    for content in ({}, {"type": "other"}, {"type": "stop"}):
        widget._handle_custom_msg(content, [])
    assert stops == [1]
    widget.close()


def test_plain_python_says_the_summary_on_stderr_alone(capsys):
    strip = Strip(lambda: None, face=PlainFace())
    strip.open(RUNNING)
    strip.publish()
    strip.update(replace(RUNNING, note="2 runs ahead"))
    strip.update(replace(RUNNING, note="2 runs ahead", elapsed_s=4))
    strip.close(COMPLETED)
    assert capsys.readouterr() == (
        "",
        "lyceum: 2 runs ahead\nlyceum ✓ completed in 1.2 s on cpu · run 3f2a9c1e\n",
    )


def test_terminal_ipython_displays_the_summary_as_text(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    try:
        face = choose_face(lambda: None)
        assert isinstance(face, TerminalFace)
        face.finish(COMPLETED)
        assert "✓ completed in 1.2 s" in capsys.readouterr().out
    finally:
        shell.history_manager.end_session()
        InteractiveShell.clear_instance()


def test_outside_ipython_the_face_is_plain_and_no_heavy_module_is_imported():
    check = (
        "import sys; from lyceum_magic.display.strip import Strip;"
        "from lyceum_magic.display.text import TextFeed;"
        "print(type(Strip(print)._face).__name__,"
        "{'IPython', 'ipywidgets', 'anywidget', 'traitlets'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout == "PlainFace set()\n"


@pytest.mark.parametrize(
    ("file", "kernel_id"),
    [
        (
            "/run/kernel-0b5f2c9e-1111-4222-8333-abcdefabcdef.json",
            "0b5f2c9e-1111-4222-8333-abcdefabcdef",
        ),
        ("/run/kernel-v2-1234abcd.json", None),
        ("/tmp/tmpab12.json", None),
    ],
)
def test_the_kernels_id_is_in_the_name_of_its_connection_file(monkeypatch, file, kernel_id):
    import ipykernel.connect

    monkeypatch.setattr(ipykernel.connect, "get_connection_file", lambda: file)
    assert faces.kernel_id() == kernel_id


def test_outside_a_kernel_there_is_no_kernel_id():
    assert faces.kernel_id() is None
