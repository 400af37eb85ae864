"""The work that fails in the server at the moment, for clients that ask for its health."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..exceptions import EmbeddedServerError

logger = logging.getLogger(__name__)


class Troubles:
    """Sentences about the work that fails now, in memory: a full disk takes no note of itself.

    Each is logged when it begins and when it is over.
    """

    def __init__(self) -> None:
        self._sentences: dict[str, str] = {}

    @property
    def sentences(self) -> Sequence[str]:
        return list(dict.fromkeys(self._sentences.values()))

    def begin(self, work: str, error: Exception) -> None:
        """Note that some work fails now. An unforeseen error is logged with its traceback."""
        foreseen = isinstance(error, EmbeddedServerError)
        why = str(error) if foreseen else "the server's log says why"
        sentence = f"{work}: {why}"
        if self._sentences.get(work) != sentence:
            logger.error("%s", sentence, exc_info=None if foreseen else error)
        self._sentences[work] = sentence

    def end(self, work: str) -> None:
        """Note that some work succeeds."""
        if self._sentences.pop(work, None) is not None:
            logger.info("Solved: %s", work)
