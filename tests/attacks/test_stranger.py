"""The second user is one: the tests of this folder would prove nothing otherwise."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.stranger import Stranger


def test_has_no_rights_of_ours(stranger: Stranger, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("ours")
    (tmp_path / "secret").chmod(0o600)
    code = """
        import os, sys
        try:
            open(sys.argv[1])
        except PermissionError:
            print("refused", os.getuid())
        """
    assert stranger.run(code, str(tmp_path / "secret")) == f"refused {stranger.uid}\n"
