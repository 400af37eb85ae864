"""Where a callback may go, as far as its text says; no sentence shows a URL whole."""

from __future__ import annotations

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.server.routes import callbacks
from lyceum_magic.submission.callback_urls import check_callback_urls


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook",
        "https://example.org:8443/hook?key=canary",
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


def test_here_passes_where_it_becomes_an_address() -> None:
    urls = ["here", "https://example.org/hook", "here"]
    assert check_callback_urls(urls, here_too=True) == urls[:2]
    with pytest.raises(OptionError, match="no callback URL in this place"):
        check_callback_urls(urls)


def test_a_run_may_have_sixteen() -> None:
    urls = [f"https://example.org/canary/{number}" for number in range(17)]
    assert check_callback_urls(urls[:16] * 2) == urls[:16]
    with pytest.raises(OptionError, match="16 callback URLs, and here are 17") as caught:
        check_callback_urls(urls)
    assert "canary" not in str(caught.value)


def test_a_url_may_be_as_long_as_a_server_takes_it() -> None:
    longest = "https://example.org/".ljust(8192, "x")
    assert check_callback_urls([longest]) == [longest]
    assert callbacks.TestCallback(url=longest).url == longest
    with pytest.raises(OptionError, match=r"at most 8192 characters, and this one 8193\.\Z"):
        check_callback_urls([longest + "x"])


def test_what_would_not_be_sent_is_refused() -> None:
    with pytest.raises(OptionError, match="after #"):
        check_callback_urls(["https://example.org/hook#x"])
