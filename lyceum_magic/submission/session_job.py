"""The place of a cell in a session -> the part of its job that tells its program."""

from __future__ import annotations

from collections.abc import Mapping

from ..protocol.requests import SessionStep
from ..protocol.session_names import save_limits


def session_job(step: SessionStep, urls: Mapping[str, object] | None) -> dict[str, object]:
    """Return `remote.bootstrap.Job.session`.

    Args:
        urls: presigned URLs of the state, where the server keeps none.
    """
    job = {**step.model_dump(), "limits": save_limits()}
    return job if urls is None else {**job, "urls": dict(urls)}
