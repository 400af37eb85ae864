"""A cell travels with its bootstrap, or names the one that its server has loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.protocol.bootstrap import BOOTSTRAP_FILE, digest_in, modules_in
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.submission.wrapping import (
    digest,
    for_server,
    loading_text,
    stub_of,
    with_bootstrap,
    wrap_cell,
)


def test_a_stub_is_small() -> None:
    assert len(stub_of("print('hi')")) < 600 < len(wrap_cell("print('hi')"))


@given(st.text(), st.sampled_from([{}, {"outputs": ["x"]}, {"files": {"a": "b"}, "save": ["*"]}]))
def test_a_stub_becomes_the_whole_program(cell: str, job: dict[str, object]) -> None:
    stub = stub_of(cell, mark="0123456789ab", **job)
    assert digest_in(stub) == digest()
    assert with_bootstrap(stub, loaded=digest()) == stub
    assert with_bootstrap(stub, loaded="") == wrap_cell(cell, mark="0123456789ab", **job)
    assert with_bootstrap(stub, loaded="0" * 64) == wrap_cell(cell, mark="0123456789ab", **job)


def test_only_what_a_cell_needs_travels() -> None:
    assert modules_in(stub_of("1")) == set()
    assert modules_in(stub_of("1", save=["*"])) == {"files", "refusals"}
    assert len(wrap_cell("1")) < len(wrap_cell("1", outputs=["x"]))


@pytest.mark.parametrize(
    "program",
    [
        "print(1)",
        "",
        "# lyceum-magic bootstrap\nprint(1)",
        f"# lyceum-magic bootstrap {'0' * 64}:\nprint(1)",
        f"print(1)\n# lyceum-magic bootstrap {digest()}:\n",
    ],
)
def test_other_programs_stay_as_they_are(program: str) -> None:
    request = StartPython(code=program, execution_type="cpu")
    assert for_server(request, "").code == program


def test_an_interpreter_without_anything_loaded_finds_it_in_the_run_folder(tmp_path: Path) -> None:
    """A worker that multiprocessing has spawned is such an interpreter."""
    (tmp_path / BOOTSTRAP_FILE).write_text(loading_text(), "utf-8")
    (tmp_path / "work").mkdir()
    script = tmp_path / "work/cell.py"
    script.write_text(stub_of("x = 6\nprint(x * 7, sorted(k for k in globals() if k[0] != '_'))"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "42 ['x']\n"
