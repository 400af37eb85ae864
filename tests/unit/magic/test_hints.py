"""A failure is shown with the option that would have helped, and never with another error."""

from __future__ import annotations

import importlib.machinery
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lyceum_magic.exceptions import RunFailed
from lyceum_magic.magic.hints import hint_for
from lyceum_magic.protocol.requests import Kind
from lyceum_magic.runs.run import Run


def hint(namespace: dict[str, object], of: Kind = "python", **error: object) -> str:
    """For a run that raised what `error` describes."""
    raised = SimpleNamespace(error={"exceptions": [error]})
    run = cast(Run, SimpleNamespace(harvest=SimpleNamespace(raised=raised)))
    kind = str(error["builtin"])
    failure = RunFailed("", run_id="1", state="failed", return_code=1, ename=kind)
    return hint_for(run, failure, namespace, kind=of)


def test_a_name_that_the_notebook_has() -> None:
    assert "-i x" in hint({"x": 1}, builtin="NameError", name="x")
    said = "name 'x' is not defined"
    assert "-i x" in hint({"x": 1}, builtin="NameError", name=None, value=said)
    assert hint({}, builtin="NameError", name="x") == ""


def test_an_image_is_not_told_of_options_that_it_has_not() -> None:
    assert hint({"x": 1}, of="image", builtin="NameError", name="x") == ""
    missing = hint({}, of="image", builtin="ModuleNotFoundError", name="numpy")
    assert missing == "The image has no numpy: choose one that has it."


def test_a_local_name_before_it_is_set_has_nothing_to_do_with_the_notebook() -> None:
    assert hint({"x": 1}, builtin="UnboundLocalError", name="x") == ""


def test_a_module_that_is_here_and_cannot_travel_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (tmp_path / f"compiled{suffix}").write_bytes(b"\x7fELF")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert "only source can travel" in hint({}, builtin="ModuleNotFoundError", name="compiled")


@pytest.mark.parametrize("name", ["a b", "x\nimport os", "", "..", None, 3])
def test_a_module_that_no_module_can_be_called_is_left_alone(name: object) -> None:
    assert hint({}, builtin="ModuleNotFoundError", name=name) == ""


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("google", "import google.cloud.storage", "add -r google-cloud-storage."),
        ("google.cloud", "from google.cloud import pubsub_v1 as p", "add -r google-cloud-pubsub."),
        ("azure", "from azure.storage.blob import BlobClient", "add -r azure-storage-blob."),
        ("azure", "from azure.identity import X  # to sign in", "add -r azure-identity."),
        ("ruamel", "import ruamel.yaml", "add -r ruamel-yaml."),
        ("google", "import google", "Many packages bring a part of google: add -r with the name"),
        ("azure", "import_it('azure.identity')", "Many packages bring a part of azure: add -r"),
    ],
)
def test_a_part_of_a_namespace_names_its_package(name: str, line: str, said: str) -> None:
    place = {"file": "<cell>", "line": 3}
    described = {"builtin": "ModuleNotFoundError", "name": name, "places": [place], "calls": [0]}
    files = {"<cell>": {"3": f"    {line}"}}
    raised = SimpleNamespace(error={"exceptions": [described], "files": files})
    run = cast(Run, SimpleNamespace(harvest=SimpleNamespace(raised=raised)))
    failure = RunFailed("", run_id="1", state="failed", return_code=1, ename="ModuleNotFoundError")
    assert said in hint_for(run, failure, {})


def test_a_function_that_the_notebook_imports_is_imported_in_the_cell() -> None:
    for value, line in ((math.sqrt, "from math import sqrt"), (Path, "from pathlib import Path")):
        assert f"`{line}`" in hint(
            {value.__name__: value}, builtin="NameError", name=value.__name__
        )
    assert "-i own --pickle" in hint({"own": lambda: 0}, builtin="NameError", name="own")
    assert "-i three" in hint({"three": 3}, builtin="NameError", name="three")
