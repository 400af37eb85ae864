"""A JupyterLab and a Chromium for each module.

They end with the module: the driver keeps an event loop running on the main thread, where tests of
other modules want their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.environments import MATRIX, QUICKSTART_MATRIX, ROOT

SCREENSHOTS = ROOT / "build" / "screenshots"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from tests.tools import jupyterlab as tool

    if reason := tool.missing():
        # In CI a skipped test would go unnoticed.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    environments = [*MATRIX, *QUICKSTART_MATRIX]
    for environment in environments:
        environment.ensure()
    with tool.running_jupyterlab(tmp_path_factory.mktemp("lab"), environments) as lab:
        shutil.copy(Path(__file__).with_name("fake_run.py"), lab.root)
        yield lab


@pytest.fixture(scope="module")
def chromium(jupyterlab: object) -> Iterator[object]:
    from tests.tools.jupyterlab import running_chromium

    with running_chromium() as browser:
        yield browser
