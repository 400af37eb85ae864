"""Machine names that may travel, and those that need a GPU."""

from __future__ import annotations

import pytest

from lyceum_magic.protocol.machines import MACHINES, is_machine_name, needs_gpu


@pytest.mark.parametrize("name", MACHINES)
def test_every_known_machine_may_travel(name: str) -> None:
    assert is_machine_name(name)
    assert needs_gpu(name) == (name != "cpu")


@pytest.mark.parametrize("name", ["", "gpu-a100", "gpu a100", "gpu.a100\n", "ü", "a/b"])
def test_a_name_outside_the_alphabet_may_not(name: str) -> None:
    assert not is_machine_name(name)
