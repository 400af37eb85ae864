"""A cell in an image, in a real JupyterLab: what its row says, and what its Stop does."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import SCREENSHOTS

from .registry import PASSWORD, USERNAME, Registry, SlowRegistry, private_registry
from .runs import docker

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.tools.jupyterlab import JupyterLab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

SIGN_IN = f"--registry basic --registry-user {USERNAME} --registry-password-env PASSWORD"


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    """With one kernel, that of the tests' own environment: nothing can be installed in here."""
    from tests.tools import jupyterlab as tool

    if reason := tool.missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with tool.running_jupyterlab(tmp_path_factory.mktemp("lab"), []) as lab:
        yield lab


@pytest.fixture(scope="module")
def chromium(jupyterlab: JupyterLab) -> Iterator[Browser]:
    from tests.tools.jupyterlab import running_chromium

    with running_chromium() as browser:
        yield browser


@pytest.fixture
def slow(image: str, tmp_path: Path) -> Iterator[tuple[SlowRegistry, str]]:
    """A registry that stops in the middle of an image, and the image: the tests' own and more."""
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(8 << 20))
    container = docker("create", image)
    docker("cp", str(blob), f"{container}:/blob")
    docker("commit", container, "heavy:test")
    docker("rm", container)
    with private_registry() as registry:
        push(registry)
        with SlowRegistry(registry.address).serving() as slow:
            name = f"{slow.address}/team/heavy:1"
            yield slow, name
            subprocess.run(["docker", "rmi", name], check=True, capture_output=True)


def push(registry: Registry) -> None:
    registry.push("heavy:test", "team/heavy:1")
    docker("rmi", "heavy:test")


def test_the_row_tells_how_an_image_comes_and_stop_leaves_no_container(
    jupyterlab: JupyterLab, chromium: Browser, slow: tuple[SlowRegistry, str]
) -> None:
    from playwright.sync_api import expect

    from tests.tools.jupyterlab import open_notebook

    registry, image = slow
    cells = [
        f"import os\nos.environ['PASSWORD'] = {PASSWORD!r}\n%load_ext lyceum_magic",
        f"%%lyceum_image {image} --name heavy {SIGN_IN}\necho begun\nexec sleep 300",
    ]
    jupyterlab.write_notebook("image.ipynb", cells, kernel="python3")
    notebook = open_notebook(chromium, jupyterlab, "image.ipynb")
    notebook.run_first()
    output = notebook.output(1)
    strip = output.locator(".lyceum-strip")
    notebook.run(1)
    assert registry.is_stuck.wait(60)
    expect(strip).to_contain_text("starting")
    expect(strip).to_contain_text(re.compile(rf"pulling \d+% of {re.escape(image)}"))
    expect(strip).to_contain_text("heavy")
    notebook.page.screenshot(path=SCREENSHOTS / "image-pulling.png")
    registry.released.set()
    expect(output).to_contain_text("begun")
    expect(strip).to_contain_text("running")
    expect(strip).not_to_contain_text("pulling")
    notebook.page.screenshot(path=SCREENSHOTS / "image-running.png")
    (container,) = docker("ps", "--quiet", "--no-trunc").split()
    output.get_by_role("button", name="Stop run heavy").click()
    notebook.expect_done(1)
    expect(output).to_contain_text("■ aborted")
    expect(output).to_contain_text("RunAborted")
    expect(strip).to_have_count(0)
    notebook.page.screenshot(path=SCREENSHOTS / "image-aborted.png")
    assert container not in docker("ps", "--all", "--quiet", "--no-trunc").split()
    notebook.close()
    assert notebook.errors == []
    assert notebook.foreign_requests == []
