"""The URLs to be told of a run's end, checked before anything travels."""

from __future__ import annotations

from collections.abc import Iterable

from ..exceptions import OptionError
from ..protocol.callback_urls import FORM, problem_of_url


def check_callback_urls(urls: Iterable[str]) -> list[str]:
    """The URLs, each once.

    Raises:
        OptionError: one that no callback may go to. It is not shown whole, since a secret may be
            in it.
    """
    urls = list(dict.fromkeys(urls))
    for url in urls:
        if not isinstance(url, str):
            raise OptionError(f"callback URLs are texts, not a {type(url).__name__}: {FORM}.")
        if problem := problem_of_url(url):
            raise OptionError(problem)
    return urls
