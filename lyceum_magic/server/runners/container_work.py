"""What one run does in the engine; see `attendant`."""

from __future__ import annotations

from .attendant import EngineAssignment, Events, attend_one_run


class ContainerWork:
    """A `Work`."""

    def __init__(self, assignment: EngineAssignment) -> None:
        self._assignment = assignment

    def run(self, events: Events) -> tuple[int, str]:
        raise NotImplementedError

    def stop(self, grace_s: float) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    def remove(self) -> None:
        raise NotImplementedError


if __name__ == "__main__":
    attend_one_run(ContainerWork)
