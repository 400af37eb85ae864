"""What keeps the server from doing its work now, for those who ask how it is."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..exceptions import EmbeddedServerError

logger = logging.getLogger(__name__)


class Troubles:
    """Sentences about what fails at the moment, in memory: a full disk takes no note of itself.

    Each is logged when it begins and when it is over, not while it lasts.
    """

    def __init__(self) -> None:
        self._sentences: dict[str, str] = {}

    @property
    def sentences(self) -> Sequence[str]:
        return list(dict.fromkeys(self._sentences.values()))

    def begin(self, work: str, error: Exception) -> None:
        """Notes that some work fails now; of an error that nobody foresaw, all is logged."""
        foreseen = isinstance(error, EmbeddedServerError)
        why = str(error) if foreseen else "the server's log says why"
        sentence = f"{work}: {why}"
        if self._sentences.get(work) != sentence:
            logger.error("%s", sentence, exc_info=None if foreseen else error)
        self._sentences[work] = sentence

    def end(self, work: str) -> None:
        """Notes that some work succeeds, again or as always."""
        if self._sentences.pop(work, None) is not None:
            logger.info("%s: it works again", work)
