"""A stack in an engine that only counts what is asked of it."""

from __future__ import annotations

import threading
from typing import Any

from lyceum_magic.server.runners.compose.stack import Stack

MANY = 40


class Api:
    """Every container takes until all of them have been told to stop."""

    def __init__(self) -> None:
        self._all = threading.Barrier(MANY, timeout=30)

    def containers(self, **asked: Any) -> list[dict[str, str]]:
        return [{"Id": str(number), "State": "running"} for number in range(MANY)]

    def inspect_container(self, container_id: str) -> dict[str, Any]:
        return {"HostConfig": {}, "Config": {}}

    def stop(self, container_id: str, timeout: int) -> None:
        self._all.wait()


class EngineOfMany:
    def __init__(self) -> None:
        self.api = Api()


def test_all_containers_are_told_to_stop_at_once() -> None:
    Stack(EngineOfMany(), "run").stop(grace_s=10)  # type: ignore[arg-type]
