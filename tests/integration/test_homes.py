"""Homes in which nothing can be kept: each one sentence, and no matter where a folder is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.embedded import end_server
from tests.tools.kernel import running_kernel

pytestmark = pytest.mark.kernel


def test_a_home_of_dev_null_needs_a_folder_alone(own_machine: Path) -> None:
    with running_kernel(env={"HOME": "/dev/null", "LYCEUM_MAGIC_HOME": str(own_machine)}) as kernel:
        cell = kernel.run("%%lyceum\nprint(6 * 7)")
        assert (cell.error, cell.stdout) == (None, "42\n")
    end_server(own_machine)


@pytest.mark.parametrize("kind", ["/dev/null", "a long path"])
def test_a_home_that_keeps_nothing_is_one_sentence(kind: str, tmp_path: Path) -> None:
    home = tmp_path.joinpath(*["d" * 100] * 10) if kind == "a long path" else Path(kind)
    env = {"HOME": str(home), "LYCEUM_MAGIC_HOME": "", "XDG_STATE_HOME": ""}
    with running_kernel(env=env) as kernel:
        for line in ("%%lyceum\n1", "%lyceum list"):
            error = kernel.run(line).error
            assert error is not None
            assert "set LYCEUM_MAGIC_HOME to a folder" in error["evalue"]
            assert len(error["evalue"]) < 300
        examined = kernel.run("%lyceum doctor")
        assert examined.error is None
        assert "set LYCEUM_MAGIC_HOME to a folder" in examined.result
