"""`--dry-run` shows all that would travel, measured where it is secret or long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.magic import cell as cell_module
from lyceum_magic.magic.cell import Cell, run_cell
from lyceum_magic.magic.container_cell import ComposeCell, ImageCell
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.dry_run import describe
from lyceum_magic.magic.python_cell import PythonCell
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.runs.workspace import Workspace
from tests.tools.wire_server import json_answer, refusal, wire_thread

DEFAULTS = Defaults(machine="gpu.a100", timeout_s=600, max_lines=10, max_bytes=1000)


def dry_run(cell: str, line: str = "") -> None:
    run(PythonCell(f"--dry-run {line}", cell, DEFAULTS, {}, {}))


def run(cell: Cell) -> None:
    run_cell(cell, DEFAULTS, lambda name, value: pytest.fail("bound"))


def test_a_whole_request_in_words() -> None:
    request = StartPython(
        code="canary-code",
        execution_type="gpu.a100",
        timeout=100,
        requirements_content="numpy==2.0\nmine @ https://me:canary-pass@example.org/mine.whl",
        import_files=json.dumps({"pkg/__init__.py": "", "pkg/größe.py": "x = 'ü'\n"}),
        user_callback_urls=["https://user:canary-user@example.org:8000/hook/canary-path?k=canary"],
        run_name="train",
        labels=["a", "b"],
        metadata={"team": "vision", "lyceum_magic_tag": "canary-tag"},
    )
    text = describe(
        request,
        place="https://api.example",
        price_per_hour=3.6,
        sizes=[("inputs", {"frame": 1234, "x": 5}), ("files", {"data.csv": 1_000_000})],
        notes=["look out"],
    )
    assert text == (
        "to            https://api.example\n"
        "machine       gpu.a100\n"
        "time limit    100 s\n"
        "price         at most $0.10, at $3.60 an hour\n"
        "name          train\n"
        "labels        a, b\n"
        "metadata      team=vision\n"
        "callbacks     https://example.org:8000/...\n"
        "requirements  numpy==2.0\n"
        "              mine @ https://...@example.org/mine.whl\n"
        "modules       pkg/__init__.py          0 bytes\n"
        "              pkg/größe.py             9 bytes\n"
        "inputs        frame      1,234 bytes\n"
        "              x              5 bytes\n"
        "files         data.csv  1,000,000 bytes\n"
        "code          11 bytes, all packed in\n"
        f"total         {request.size():,} bytes of at most 16,777,216 bytes\n"
        "note          look out"
    )
    assert "canary" not in text


def test_all_that_travels_is_named() -> None:
    files = json.dumps({f"m{n}.py": "" for n in range(100)})
    text = describe(StartPython(code="1", import_files=files), place="here", price_per_hour=None)
    assert all(f"m{n}.py" in text for n in range(100))


def test_without_an_account_nothing_is_started_and_nothing_costs(
    own_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run("canary = 1", "-m cpu --name n --budget 0.01")
    said = capsys.readouterr().out
    assert "to            the embedded server of this machine (LOCAL)\n" in said
    assert "price         free\n" in said
    assert said.endswith("\nnothing was sent\n")
    assert "canary" not in said
    assert not own_machine.exists()


def test_on_the_cloud_the_price_is_known_and_the_budget_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace()
    monkeypatch.setattr(cell_module, "workspace", lambda: workspace)
    monkeypatch.setenv("LYCEUM_API_KEY", "lk_canary_key")
    machine = {"hardware_profile": "gpu.a100", "price_per_hour": 3.6}
    with wire_thread() as wire:
        monkeypatch.setenv("LYCEUM_BASE_URL", wire.base_url)
        wire.on("GET", paths.MACHINE_TYPES, json_answer({"machine_types": [machine]}), refusal(404))
        try:
            dry_run("1", "--budget 0.10")
            said = capsys.readouterr().out
            assert f"to            {wire.base_url}\n" in said
            assert "time limit    100 s\n" in said
            assert "price         at most $0.10, at $3.60 an hour\n" in said
            assert "note          a budget of $0.10 limits it to 100 s\n" in said
            dry_run("1", "-m cpu")
            assert "price         the server does not say\n" in capsys.readouterr().out
            with pytest.raises(OptionError, match="does not pay"):
                dry_run("1", "--budget 0.0001")
        finally:
            workspace.close()
        assert {request.method for request in wire.requests} == {"GET"}


def test_values_and_files_are_measured(
    own_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(own_machine.parent)
    Path("data.csv").write_text("canary," * 100)
    Path("local_to_this.py").write_text("x = 'canary'\n")
    line = "--dry-run -m cpu -i x --file data.csv"
    cell = "import local_to_this; print(x)"
    monkeypatch.syspath_prepend("")
    run(PythonCell(line, cell, DEFAULTS, {"x": "canary"}, {}))
    said = capsys.readouterr().out
    assert "modules       local_to_this.py         13 bytes\n" in said
    assert "inputs        x " in said
    assert "files         data.csv        700 bytes\n" in said
    assert "canary" not in said


def test_what_is_too_large_is_shown_before_it_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(OptionError, match="may have 16,777,216 bytes, and has"):
        dry_run(f"x = {'1' * 17_000_000!r}", "--local")
    assert "nothing was sent" in capsys.readouterr().out


def said_of(cell: Cell, capsys: pytest.CaptureFixture[str]) -> str:
    run(cell)
    said = capsys.readouterr().out
    assert "canary" not in said
    assert said.endswith("\nnothing was sent\n")
    return said


def test_an_image_shows_names_and_no_values(
    own_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PASSWORD", "canary")
    line = (
        "python:3 --dry-run -m cpu --env A=canary --env B=canary --user 1000 --s3-path /data "
        "--registry basic --registry-user me --registry-password-env PASSWORD "
        "--callback https://e.org/canary --graceful-timeout 9"
    )
    assert said_of(ImageCell(line, "echo canary\n", DEFAULTS), capsys).startswith(
        "to            the embedded server of this machine (LOCAL)\n"
        "machine       cpu\n"
        "time limit    600 s\n"
        "price         free\n"
        "callbacks     https://e.org/...\n"
        "image         python:3\n"
        "command       sh -c, a script of 12 bytes\n"
        "variables     A, B\n"
        "user          1000\n"
        "entry point   left out where it would not run the command\n"
        "storage       /data\n"
        "registry      basic, me\n"
        "grace         9 s\n"
        "total         "
    )
    assert not own_machine.exists()


@pytest.mark.parametrize(
    ("line", "text", "row"),
    [
        ("", None, "command       the image's own\n"),
        ("--python", "print('canary')", "command       python3, code of "),
        ("--cmd", "app 'two words'", "command       app 'two words'\n"),
        ("--no-s3", "ls", "storage       not mounted\n"),
        ("--entrypoint skip", "ls", "entry point   left out\n"),
        ("--no-init", "ls", "init          none\n"),
        ("--registry aws --aws-region eu-west-1", "ls", "registry      aws, eu-west-1\n"),
    ],
)
def test_what_runs_in_an_image_is_said(
    line: str, text: str | None, row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"python:3 --dry-run --local {line}"
    assert row in said_of(ImageCell(line, text, DEFAULTS), capsys)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (
            "services:\n  web: {image: 'nginx:${TAG}'}\n  job:\n    environment: {A: canary}\n",
            "77 bytes\n              web  nginx:${TAG}\n              job\n",
        ),
        ("services: [\n", "12 bytes\n              no YAML at line 3, column 1: "),
        ("- 7\n", "4 bytes\nstorage       not mounted\n"),
    ],
)
def test_a_stack_shows_its_services(
    text: str, rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_of(ComposeCell("--dry-run --local", text, DEFAULTS), capsys)
    assert f"Compose file  {rows}" in said
