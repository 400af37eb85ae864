"""Text of a callback URL -> its parts, or the reason why it is refused; for both sides.

Only the text is judged here. The address that a name leads to is judged when it is connected to,
see `server.outbox.targets`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from .addresses import address_of, is_loopback, is_public
from .callbacks import HERE
from .limits import MAX_CALLBACK_URL

FORM = "a callback goes to https://HOST/..., or to http://127.0.0.1:PORT/... on this machine"

#: A secret of the account, which the sender fills in: `https://host/?token=${NAME}`.
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_NO_REFERENCE = re.compile(r"\$\{(?![A-Za-z_][A-Za-z0-9_]*\})")

#: The part of RFC 3986 that all parsers read alike: no user, no escape and nothing but ASCII up to
#: the path. Nothing else reads a callback URL, so that what is checked is what is sent.
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<target>(?:[/?][^\x00-\x20\x7f\\#\ud800-\udfff]*)?)",
    re.ASCII | re.IGNORECASE,
)
_AUTHORITY = re.compile(r"[a-z][a-z0-9+.-]*://(?P<authority>[^/?#\\]*)", re.ASCII | re.IGNORECASE)

#: A name of the DNS. A last label that is a number makes it a form of an IPv4 address for some
#: resolvers (127.1, 0x7f.1, 2130706433) and a name for others: it is neither here.
_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*"
    r"(?!(?:[0-9]+|0x[0-9a-f]*)\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?",
    re.ASCII,
)

_PORTS = {"http": 80, "https": 443}

#: A scheme that may be shown: a longer one may be a secret with a colon.
_SCHEME = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]{0,15}):(?P<slashes>//)?", re.ASCII | re.IGNORECASE
)
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class CallbackUrl:
    """A callback URL in parts, as they go into the request.

    Attributes:
        scheme: `http` or `https`.
        host: a name in small letters, or an address in its one usual form, without brackets.
        port: 1 to 65535.
        target: path and query, percent-encoded; begins with a slash.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The text of the Host header: with a port only if the scheme does not imply it."""
        return self._host if self.port == _PORTS[self.scheme] else f"{self._host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """The receiver: scheme, host and port, always with the port."""
        return f"{self.scheme}://{self._host}:{self.port}"

    @property
    def origin(self) -> str:
        """The part of the URL that may be shown."""
        return f"{self.scheme}://{self.authority}/..."

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


class PathChanged(ValueError):
    """A secret would change the path of a URL; the text says which, without its value."""


def problem_of_url(url: str) -> str | None:
    """Return why a text cannot be the URL of a callback, in one sentence; None if it can.

    The sentence quotes the scheme and the host at most: a secret may be in the rest.
    """
    try:
        read_url(url)
    except ValueError as exc:
        return str(exc)
    return None


def read_url(url: str) -> CallbackUrl:
    """Return a callback URL in parts.

    Raises:
        ValueError: the text cannot be one; the message is the sentence of `problem_of_url`.
    """
    if len(url) > MAX_CALLBACK_URL:
        raise ValueError(
            f"A callback URL has at most {MAX_CALLBACK_URL} characters, and this one {len(url)}."
        )
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(_why_unreadable(url))
    scheme = found["scheme"].lower()
    host = (found["ipv6"] or found["name"]).lower()
    port = int(found["port"] or _PORTS[scheme])
    address = address_of(host)
    if port > 65535:
        raise ValueError(_BAD_PORT)
    if (found["ipv6"] and (address is None or address.version != 6)) or (
        address is None and not _NAME.fullmatch(host)
    ):
        raise ValueError(_BAD_HOST)
    target = found["target"]
    if _NO_REFERENCE.search(target):
        raise ValueError(
            "A reference to a secret reads ${NAME}, and NAME is letters, digits and underscores, "
            "no digit first; ${ itself is written $%7B."
        )
    read = CallbackUrl(
        scheme,
        host if address is None else str(address),
        port,
        # Percent signs are left alone: what is encoded already stays so.
        quote(target if target.startswith("/") else f"/{target}", safe=string.punctuation),
    )
    if is_loopback(read.host):
        return read
    if address is not None and not is_public(address):
        raise ValueError(f"{read.origin} is an address that is not public: {FORM}.")
    if scheme == "http":
        raise ValueError(f"{read.origin} is not encrypted: {FORM}.")
    return read


_BAD_PORT = f"The port of a callback URL is a number from 1 to 65535: {FORM}."
_BLANK = (
    "A callback URL holds no space, line break or control character (write a space as %20): "
    f"{FORM}."
)
_BAD_HOST = (
    "The host of a callback URL is a name, four decimal numbers as 127.0.0.1, or an IPv6 address "
    f"in brackets: {FORM}."
)


def _why_unreadable(url: str) -> str:
    return _why_no_scheme(url) or _why_no_authority(url) or _why_no_target(url)


def _why_no_scheme(url: str) -> str | None:
    if not url.strip():
        return f"A callback URL is empty: {FORM}."
    if url == HERE:
        return f"The word {HERE} is no callback URL in this place: {FORM}."
    if url.strip().lower() == HERE:
        return f"A callback URL is not this word; did you mean {HERE}, in small letters?"
    found = _SCHEME.match(url)
    if found is None or not (found["slashes"] or found["scheme"].lower() in _PORTS):
        return f"A callback URL begins with https://, and this one does not: {FORM}."
    if found["scheme"].lower() not in _PORTS:
        return f"A callback URL begins with https://, and this one with {found[0]}: {FORM}."
    return None


def _why_no_authority(url: str) -> str | None:
    found = _AUTHORITY.match(url)
    authority = found["authority"] if found else ""
    if "@" in authority:
        return (
            "A callback URL cannot hold a user or a password before its host; put a secret after "
            "it, as https://HOST/?token=${NAME}."
        )
    if "$" in authority or "{" in authority:
        return (
            "A reference to a secret, ${NAME}, can only stand after a callback URL's host: "
            f"{FORM}."
        )
    if not authority.isascii():
        return "The host of a callback URL is written in ASCII, an international name as xn--...."
    if _UNPRINTABLE.search(authority):
        return _BLANK
    host, _, port = authority.rpartition(":")
    if not authority or (not host and port.isdecimal()):
        return f"A callback URL names no host: {FORM}."
    if authority.endswith("]"):
        return _BAD_HOST
    if host and not re.fullmatch(r"[1-9][0-9]{0,4}", port):
        return _BAD_PORT
    if not _URL.fullmatch(f"https://{authority}"):
        return _BAD_HOST
    return None


def _why_no_target(url: str) -> str:
    if "#" in url:
        return "A callback URL cannot have a part after #, which would not be sent: leave it out."
    if "\\" in url:
        return f"A callback URL holds no backslash (write / or %5C): {FORM}."
    if _UNPRINTABLE.search(url):
        return _BLANK
    return "A callback URL is Unicode text, and this one holds half of a surrogate pair."


def references(url: str) -> frozenset[str]:
    """Return the names of the secrets that a URL refers to."""
    return frozenset(_REFERENCE.findall(url))


def fill_in(url: str, secrets: Mapping[str, str]) -> str:
    """Return the URL with its references replaced by values, each quoted to stay one piece.

    Raises:
        KeyError: there is no secret of this name.
        PathChanged: a value makes a segment of the path `.` or `..`, which leads elsewhere however
            it is encoded; the message is a sentence without the value.
    """
    filled = _REFERENCE.sub(lambda found: quote(secrets[found[1]], safe=""), url)
    segments, made = (text.partition("?")[0].split("/") for text in (url, filled))
    for segment, value in zip(segments, made, strict=True):
        if references(segment) and unquote(value) in (".", ".."):
            name = min(references(segment))
            raise PathChanged(
                f"the secret {name} makes a part of its path . or .., which leads elsewhere; give "
                "the secret another value"
            )
    return filled
