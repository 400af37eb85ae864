"""Background tasks: none fails without a log entry."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

logger = logging.getLogger(__name__)


def log_failure(task: asyncio.Future[Any]) -> None:
    """Log the exception of a task; a callback for `add_done_callback`."""
    if task.cancelled():
        return
    if (error := task.exception()) is not None:
        name = task.get_name() if isinstance(task, asyncio.Task) else "something in the background"
        logger.error("%s failed", name, exc_info=error)
