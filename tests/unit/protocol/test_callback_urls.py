"""The text of a callback URL is judged without a network."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lyceum_magic.protocol.callback_urls import (
    FORM,
    CallbackUrl,
    PathChanged,
    fill_in,
    problem_of_url,
    read_url,
    references,
)
from tests.unit.server.outbox.hostile_urls import ALLOWED, HOSTILE, NAMES
from tests.unit.server.outbox.made_up_urls import urls

NO_SCHEME = f"A callback URL begins with https://, and this one does not: {FORM}."
PORT = f"The port of a callback URL is a number from 1 to 65535: {FORM}."
HOST = (
    "The host of a callback URL is a name, four decimal numbers as 127.0.0.1, or an IPv6 address "
    f"in brackets: {FORM}."
)
BLANK = (
    "A callback URL holds no space, line break or control character (write a space as %20): "
    f"{FORM}."
)
MALFORMED = (
    "A reference to a secret reads ${NAME}, and NAME is letters, digits and underscores, no digit "
    "first; ${ itself is written $%7B."
)
USER = (
    "A callback URL cannot hold a user or a password before its host; put a secret after it, as "
    "https://HOST/?token=${NAME}."
)
REFERENCE = (
    f"A reference to a secret, ${{NAME}}, can only stand after a callback URL's host: {FORM}."
)


@pytest.mark.parametrize("allowed", ALLOWED, ids=str)
def test_an_allowed_url_has_no_problem(allowed):
    assert problem_of_url(allowed.url) is None


def test_text_alone_tells_most_hostile_urls():
    passed = {url for url in HOSTILE if problem_of_url(url.url) is None}
    # What is left depends on names, on the server's ports and its profile.
    assert {url.kind for url in passed} == {
        "dots and case",
        "loopback of a shared server",
        "name",
        "redirect",
        "the server itself",
    }
    assert {read_url(url.url).host for url in passed if url.kind == "dots and case"} <= set(NAMES)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", f"A callback URL is empty: {FORM}."),
        (" ", f"A callback URL is empty: {FORM}."),
        ("here", f"The word here is no callback URL in this place: {FORM}."),
        ("Here", "A callback URL is not this word; did you mean here, in small letters?"),
        ("s3cret", NO_SCHEME),
        ("s3cret:80", NO_SCHEME),
        (" https://host/", NO_SCHEME),
        ("//host/s3cret", NO_SCHEME),
        (
            "ftp://host/s3cret",
            f"A callback URL begins with https://, and this one with ftp://: {FORM}.",
        ),
        ("https:///s3cret", f"A callback URL names no host: {FORM}."),
        ("https://:80/s3cret", f"A callback URL names no host: {FORM}."),
        ("https:host", f"A callback URL names no host: {FORM}."),
        ("https://host:0/s3cret", PORT),
        ("https://host:65536/s3cret", PORT),
        ("https://host:/s3cret", PORT),
        ("https://host:s3cret", PORT),
        ("https://127.1/s3cret", HOST),
        ("https://[::1/s3cret", HOST),
        ("https://[::g]/s3cret", HOST),
        ("https://ho%20st/s3cret", HOST),
        ("https://ho st/s3cret", BLANK),
        ("https://host/s3 cret", BLANK),
        ("https://host/s3cret\n", BLANK),
        ("https://host/s3\\cret", f"A callback URL holds no backslash (write / or %5C): {FORM}."),
        (
            "https://host/\ud800",
            "A callback URL is Unicode text, and this one holds half of a surrogate pair.",
        ),
        ("https://10.0.0.7/s", f"https://10.0.0.7/... is an address that is not public: {FORM}."),
        ("http://host:80/s", f"http://host/... is not encrypted: {FORM}."),
        ("http://host:8080/s", f"http://host:8080/... is not encrypted: {FORM}."),
        ("https://user:s@host/", USER),
        ("https://${NAME}/s", REFERENCE),
        (
            "https://bücher.example/s",
            "The host of a callback URL is written in ASCII, an international name as xn--....",
        ),
        ("https://host/?b=${}", MALFORMED),
        ("https://host/${bad-name}", MALFORMED),
        ("https://host/${1}", MALFORMED),
        ("https://host/${open", MALFORMED),
        (
            "https://host/#s",
            "A callback URL cannot have a part after #, which would not be sent: leave it out.",
        ),
    ],
)
def test_a_problem_is_one_sentence_that_helps(url: str, problem: str):
    assert problem_of_url(url) == problem


def test_a_name_without_braces_is_text():
    assert read_url("https://host/$NAME?a=$&b=$%7B}").target == "/$NAME?a=$&b=$%7B}"


@given(urls)
@example("ſ://")
def test_whatever_is_given_is_read_or_refused(url: str):
    problem = problem_of_url(url)
    if problem is not None:
        assert "\n" not in problem
        assert problem.isascii()
        return
    read = read_url(url)
    assert read.host.isascii()
    assert 1 <= read.port <= 65535
    # What is read says the same when it is read again: no second reader sees another host.
    again = read_url(f"{read.scheme}://{read.authority}{read.target}")
    assert again == read


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_secret_stays_one_piece(secret: str):
    url = fill_in("https://host.example/hook?token=${NAME}&x=1", {"NAME": secret})
    read = read_url(url)
    assert (read.scheme, read.host, read.port) == ("https", "host.example", 443)
    assert read.target.startswith("/hook?token=")
    assert read.target.count("&") == 1
    assert not references(url)


@pytest.mark.parametrize(
    ("url", "read", "authority", "endpoint"),
    [
        (
            "HTTPS://Host.Example",
            CallbackUrl("https", "host.example", 443, "/"),
            "host.example",
            "https://host.example:443",
        ),
        (
            "https://host:8443?a=ü%20",
            CallbackUrl("https", "host", 8443, "/?a=%C3%BC%20"),
            "host:8443",
            "https://host:8443",
        ),
        (
            "http://[0::0:1]:80/",
            CallbackUrl("http", "::1", 80, "/"),
            "[::1]",
            "http://[::1]:80",
        ),
        (
            "http://127.0.0.1:443/",
            CallbackUrl("http", "127.0.0.1", 443, "/"),
            "127.0.0.1:443",
            "http://127.0.0.1:443",
        ),
    ],
)
def test_a_url_is_read_in_parts(url: str, read: CallbackUrl, authority: str, endpoint: str):
    assert read_url(url) == read
    assert (read.authority, read.endpoint) == (authority, endpoint)


@pytest.mark.parametrize(
    ("path", "value"),
    [("p/${A}/q", ".."), ("${A}", "."), ("p/.${A}?x", "."), ("p/%2E${A}", "."), ("${A}${A}", ".")],
)
def test_a_secret_does_not_change_the_path(path: str, value: str):
    with pytest.raises(PathChanged, match="the secret A makes a part of its path"):
        fill_in(f"https://host/{path}", {"A": value})


def test_dots_that_are_no_whole_part_are_filled_in():
    url = fill_in("https://host/p/../${A}x/${B}?${A}/${A}", {"A": "..", "B": "..."})
    assert url == "https://host/p/../..x/...?../.."
