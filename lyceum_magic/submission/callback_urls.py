"""The URLs to be told of a run's end, checked before anything travels."""

from __future__ import annotations

from collections.abc import Iterable

from ..exceptions import OptionError
from ..protocol.callback_urls import FORM, problem_of_url
from ..protocol.callbacks import HERE
from ..protocol.limits import MAX_CALLBACK_URLS


def check_callback_urls(urls: Iterable[str], *, here_too: bool = False) -> list[str]:
    """Return the URLs, each once.

    Args:
        here_too: let the word `here` pass, which becomes an address when the place is known.

    Raises:
        OptionError: a URL that no callback may go to, which is not shown whole, since it may hold
            a secret; or too many URLs.
    """
    urls = list(dict.fromkeys(urls))
    if len(urls) > MAX_CALLBACK_URLS:
        raise OptionError(
            f"A run may have {MAX_CALLBACK_URLS} callback URLs, not {len(urls)}; name one receiver "
            "of your own that tells the others."
        )
    for url in urls:
        if not isinstance(url, str):
            raise OptionError(f"Callback URLs are texts, not a {type(url).__name__}: {FORM}.")
        if here_too and url == HERE:
            continue
        if problem := problem_of_url(url):
            raise OptionError(problem)
    return urls
