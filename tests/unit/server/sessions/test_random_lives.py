"""Random lives of a session: whatever happens to runs and servers, each head is whole and right."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lyceum_magic.protocol.requests import SessionStep
from lyceum_magic.server.sessions.errors import SessionConflict, SnapshotDamaged
from lyceum_magic.server.sessions.sessions import Sessions
from tests.tools.sessions import save_snapshot, step

_T = TypeVar("_T")
BRANCHES = st.sampled_from(["main", "other"])


class Life(RuleBasedStateMachine):
    """The model: the head of each branch, and the runs that go on."""

    def __init__(self) -> None:
        super().__init__()
        self._home = tempfile.TemporaryDirectory()
        self._folder = Path(self._home.name) / "sessions"
        self._sessions = Sessions(self._folder)
        self._heads: dict[str, dict[str, Any]] = {}
        self._saved: list[dict[str, Any]] = []
        self._runs: dict[str, dict[str, Any]] = {}

    def teardown(self) -> None:
        self._home.cleanup()

    def _do(self, call: Awaitable[_T]) -> _T | None:
        """Return the result of a call; None if it was refused."""

        async def do() -> _T | None:
            try:
                return await call
            except (SessionConflict, SnapshotDamaged):
                return None
            finally:
                await self._sessions.close()

        return asyncio.run(do())

    @rule(branch=BRANCHES)
    def start(self, branch: str) -> None:
        head = self._heads.get(branch)
        wanted = step("a", head["cell"] + 1 if head else 1, head, branch)
        self._do(self._sessions.claim(SessionStep.model_validate(wanted), wanted["id"]))
        busy = self._sessions.busy("a")
        assert busy[branch] == self._runs.setdefault(branch, wanted)["id"]

    @precondition(lambda self: self._runs)
    @rule(branch=BRANCHES, data=st.data())
    def end(self, branch: str, data: st.DataObject) -> None:
        if (wanted := self._runs.pop(branch, None)) is None:
            return
        cut = data.draw(st.sampled_from(["whole", "nothing", "pack", "manifest", "later manifest"]))
        files = self._folder / "a"
        if cut != "nothing":
            name = save_snapshot(files, wanted)
            manifest = files / "cells" / f"{wanted['id']}.json"
            if cut == "whole":
                self._heads[branch] = {**name, "cell": wanted["cell"], "branch": branch}
                self._saved.append(self._heads[branch])
            elif cut == "pack":
                (files / "packs" / f"{wanted['id']}.pack").write_bytes(b"st")
            elif cut == "manifest":
                manifest.write_bytes(manifest.read_bytes()[:40])
            else:
                manifest.rename(manifest.with_name(f"{wanted['id']}.json.draft"))
        self._do(self._sessions.settle(SessionStep.model_validate(wanted), wanted["id"]))

    @rule()
    def server_dies(self) -> None:
        self._sessions = Sessions(self._folder)
        for wanted in self._runs.values():
            self._sessions.take_up(SessionStep.model_validate(wanted), wanted["id"])

    @precondition(lambda self: self._saved)
    @rule(branch=BRANCHES, data=st.data())
    def check_out(self, branch: str, data: st.DataObject) -> None:
        to = data.draw(st.sampled_from(self._saved))
        expected = self._heads.get(branch, {}).get("id")
        moved = self._do(
            self._sessions.move("a", branch, expected=expected, to=to["id"], title=None)
        )
        assert (moved is None) == (branch in self._runs)
        if moved is not None:
            self._heads[branch] = to

    @rule(branch=BRANCHES)
    def move_from_elsewhere(self, branch: str) -> None:
        """Move a head that another client has moved in the meantime."""
        call = self._sessions.move("a", branch, expected="f" * 32, to=None, title=None)
        assert self._do(call) is None

    @invariant()
    def each_head_is_the_right_one_and_whole(self) -> None:
        if not self._heads:
            return
        view = self._do(self._sessions.read("a"))
        assert view is not None
        assert view.index.branches == {name: head["id"] for name, head in self._heads.items()}
        for head in self._heads.values():
            assert self._do(self._sessions.manifest("a", head["id"]))


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
