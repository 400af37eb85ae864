"""A real JupyterLab, and a Chromium that uses it as a person would.

The server has its own HOME and Jupyter folders and listens on loopback, with its token on: what
a page may do without one is not what users have.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import Browser, Locator, Page, Request, expect, sync_playwright

from .embedded import end_server
from .environments import Environment

_START_S = 60
_STOP_S = 20
#: Longer than anything here takes; each wait ends with its condition.
_WAIT_MS = 30_000

_CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
_CHROMIUM_FLAGS = [
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Theme = Literal["JupyterLab Light", "JupyterLab Dark"]


def missing() -> str | None:
    """Return what the browser tests need and this machine lacks; None if nothing is missing."""
    if not Path(_CHROMIUM).exists():
        return f"no Chromium at {_CHROMIUM}"
    try:
        import jupyterlab  # noqa: F401
    except ImportError:
        return "jupyterlab is not installed"
    return None


@dataclass(frozen=True)
class JupyterLab:
    """A running server. `root` is the folder whose notebooks it shows, `state` holds what its
    kernels keep for their user."""

    url: str
    token: str
    root: Path
    settings: Path
    state: Path

    def write_notebook(self, name: str, cells: Sequence[str], *, kernel: str) -> None:
        """Make a notebook of code cells for the kernelspec `kernel`."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells],
            metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
        )
        nbformat.write(notebook, self.root / name)

    def read_notebook(self, name: str) -> nbformat.NotebookNode:
        """The notebook as it was saved."""
        return nbformat.read(self.root / name, as_version=4)

    def set_theme(self, theme: Theme) -> None:
        """Choose the theme of pages opened from now on."""
        _write_settings(self.settings, "themes", {"theme": theme})

    def shut_down_kernels(self) -> None:
        """End every kernel, as if the server had been started again."""
        for kernel in json.loads(self._request("GET", "api/sessions")):
            self._request("DELETE", f"api/sessions/{kernel['id']}")

    def restart_kernel(self) -> None:
        """Restart the only kernel, as another page or program would."""
        self._request("POST", f"api/kernels/{self._kernel()['id']}/restart")

    def kernel_state(self) -> str:
        """Return the state of the only kernel, such as "idle"."""
        return str(self._kernel()["execution_state"])

    def _kernel(self) -> dict[str, str]:
        (session,) = json.loads(self._request("GET", "api/sessions"))
        return dict(session["kernel"])

    def is_up(self) -> bool:
        """Return True if the server answers."""
        try:
            self._request("GET", "api/status")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    def _request(self, method: str, path: str) -> bytes:
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        # A proxy from the environment has no business on loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as response:
            return bytes(response.read())


@contextmanager
def running_jupyterlab(
    folder: Path, environments: Sequence[Environment], *, python: str = sys.executable
) -> Iterator[JupyterLab]:
    """Start JupyterLab from the interpreter `python`, with a kernelspec for each environment.

    Args:
        folder: empty; holds everything the server and its kernels write.
    """
    places = {
        name: folder / name.lower()
        for name in (
            "HOME",
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "IPYTHONDIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
        )
    }
    root = folder / "notebooks"
    for place in (*places.values(), root):
        place.mkdir(parents=True)
    for environment in environments:
        environment.register(places["JUPYTER_DATA_DIR"])
    settings = places["JUPYTERLAB_SETTINGS_DIR"]
    # Else the first page asks whether it may fetch news.
    _write_settings(settings, "notification", {"fetchNews": "false", "checkForUpdates": False})

    port = _free_port()
    lab = JupyterLab(
        f"http://127.0.0.1:{port}/", secrets.token_hex(16), root, settings, folder / "state"
    )
    with (folder / "jupyterlab.log").open("wb") as log:
        server = subprocess.Popen(
            [
                python,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={port}",
                "--ServerApp.port_retries=0",
                f"--ServerApp.root_dir={root}",
                # Looking for language servers would only slow the start.
                "--LanguageServerManager.autodetect=False",
            ],
            # Without LYCEUM_MAGIC_HOME: each kernel's environment gets a server of its own.
            env={name: value for name, value in os.environ.items() if "LYCEUM" not in name}
            | {name: str(place) for name, place in places.items()}
            | {"XDG_STATE_HOME": str(lab.state)}
            # Not on the command line, which every user of the machine can read.
            | {"JUPYTER_TOKEN": lab.token},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            _wait_until_up(lab, server, folder / "jupyterlab.log")
            yield lab
        finally:
            _stop(server)
            for state in lab.state.glob("lyceum-magic/servers/*"):
                end_server(state)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Start Chromium with a profile of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Notebook:
    """A notebook in a page of JupyterLab."""

    page: Page
    name: str
    #: What the page's scripts threw or logged as errors.
    errors: list[str] = field(default_factory=list)
    #: Addresses the page asked for that are not this server's.
    foreign_requests: list[str] = field(default_factory=list)

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def output(self, index: int) -> Locator:
        """Everything the cell shows."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def run(self, index: int) -> None:
        """Start a cell and return at once."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")

    def expect_done(self, index: int) -> None:
        """Wait until the cell has run: Jupyter then shows its number."""
        expect(self.cell(index).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"))

    def run_first(self) -> None:
        """Run cell 0, which must be one that may run twice, and wait until it has run.

        Lab drops a cell that is run before the kernel is connected, and shows it as running.
        """
        prompt = self.cell(0).locator(".jp-InputPrompt")
        for _ in range(3):
            self.run(0)
            try:
                expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=_WAIT_MS / 2)
            except AssertionError:
                continue
            return
        self.expect_done(0)

    def save(self) -> None:
        self.page.keyboard.press("Control+s")
        expect(self.page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)

    def close(self) -> None:
        context = self.page.context
        self.page.close()
        context.clear_cookies()


def open_notebook(browser: Browser, lab: JupyterLab, name: str) -> Notebook:
    """Open a notebook in a page without cookies, and wait until its kernel can be asked.

    All pages of a browser share one profile: JupyterLab's 10 MB of scripts stay in its cache.
    """
    context = browser.contexts[0] if browser.contexts else browser.new_context()
    context.set_default_timeout(_WAIT_MS)
    expect.set_options(timeout=_WAIT_MS)
    page = context.new_page()
    page.set_viewport_size({"width": 1100, "height": 800})
    notebook = Notebook(page, name)
    page.on("pageerror", lambda error: notebook.errors.append(str(error)))

    page.on("console", lambda line: line.type == "error" and notebook.errors.append(line.text))

    def note_request(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in {"data", "blob"} and address.netloc != urlsplit(lab.url).netloc:
            notebook.foreign_requests.append(request.url)

    page.on("request", note_request)
    # `reset`: not the tabs of the test before.
    page.goto(f"{lab.url}lab/tree/{name}?token={lab.token}&reset")
    expect(notebook.cell(0)).to_be_visible()
    # Lab drops a cell that is run before the kernel is connected, and its idle indicator comes too
    # early; the status bar speaks of the connected kernel.
    expect(page.locator("#jp-main-statusbar")).to_contain_text(re.compile(r"\| Idle"))
    return notebook


def _write_settings(folder: Path, plugin: str, values: dict[str, object]) -> None:
    path = folder / "@jupyterlab" / "apputils-extension" / f"{plugin}.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(lab: JupyterLab, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not lab.is_up():
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")
        time.sleep(0.05)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGTERM)  # the server ends its kernels first
    try:
        server.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
