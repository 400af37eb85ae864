"""Texts that are nearly URLs, for Hypothesis: pieces that parsers trip over, put together."""

from __future__ import annotations

from hypothesis import strategies as st

from .hostile_urls import ALLOWED, HOSTILE, LOCAL_PORT, NAMES, OWN_PORT, PUBLIC_IPV4

_SCHEMES = st.sampled_from(["https://", "http://", "HTTPS://", "https:", "https:/", "//", "ftp://"])
_ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map("[{}]".format),
    st.ip_addresses(v=4).map("[::ffff:{}]".format),
    st.ip_addresses(v=4).map(lambda address: str(int(address))),
    st.ip_addresses(v=4).map(lambda address: hex(int(address))),
)
_HOSTS = st.one_of(
    st.sampled_from([*NAMES, "localhost", "127.0.0.1", "[::1]", PUBLIC_IPV4, "127.1", "①.0.0.1"]),
    _ADDRESSES,
)
_JOINTS = st.sampled_from(
    ["", "", ".", "@", "\\@", "#@", "?", "/", "%00", "%2f", ":443@", "\t", "。"]
)
_PORTS = st.sampled_from(["", "", ":443", f":{LOCAL_PORT}", f":{OWN_PORT}", ":0", ":", ":99999"])
_TARGETS = st.one_of(st.just("/"), st.text(max_size=8).map("/{}".format), st.text(max_size=8))

_PUT_TOGETHER = st.builds(
    "{}{}{}{}{}{}".format, _SCHEMES, _HOSTS, _JOINTS, st.just("") | _HOSTS, _PORTS, _TARGETS
)


@st.composite
def _changed(draw: st.DrawFn) -> str:
    """A URL of the corpus with a character or two more, fewer or others."""
    url = draw(st.sampled_from([each.url for each in (*HOSTILE, *ALLOWED)]))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(url)))
        url = url[:at] + draw(st.text(max_size=1)) + url[at + draw(st.integers(0, 1)) :]
    return url


urls = st.one_of(_PUT_TOGETHER, _changed(), st.text())
