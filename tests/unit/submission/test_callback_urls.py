"""Where a callback may go, as far as its text says; no sentence shows a URL whole."""

from __future__ import annotations

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.submission.callback_urls import check_callback_urls


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook",
        "https://example.org:8443/hook?key=canary#x",
        "https://example.org/${HOOK_KEY}",
        "http://127.0.0.1:8888/hook",
        "http://localhost/hook",
        "http://[::1]:1/hook",
    ],
)
def test_these_may(url: str) -> None:
    assert check_callback_urls([url, url]) == [url]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "canary",
        "example.org/canary",
        "ftp://example.org/canary",
        "file:///canary",
        "https:///canary",
        "https://example.org:port/canary",
        "https://[canary/",
        "https://example.org/canary canary",
        "https://example.org/canary\r\nX: y",
        "http://example.org/canary",
        "http://user:canary@10.0.0.1/canary",
        "https://user:canary@example.org/canary",
        "https://canary@example.org/",
        "https://example.org:0/canary",
        "https://example.org\\@canary.org/",
        "https://${CANARY}.example.org/canary",
        "http://127.0.0.1.example.org/canary",
        7,
    ],
)
def test_these_may_not(url: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_callback_urls([url])
    message = str(caught.value)
    assert "canary" not in message
    assert "https://HOST/" in message
    assert "\n" not in message
