"""URLs that would lead a callback to a forbidden place, with the reasons, and some allowed ones.

Written for this project from the facts in

- IANA's IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190), RFC 4291, RFC 6052
  and RFC 8215 (IPv4 inside IPv6), RFC 6874 (zones), RFC 6761 (special names);
- the WHATWG URL Standard's host parser and IPv4 parser, and RFC 3986 3.2;
- OWASP's Server-Side Request Forgery Prevention Cheat Sheet, and its list of metadata addresses;
- Orange Tsai, "A New Era of SSRF: Exploiting URL Parsers in Trending Programming Languages" (2017);
- Unicode UTS 46 and NFKC, for digits, dots and letters that become others;
- the clouds' pages on their metadata services (AWS, Google, Azure, Alibaba, Oracle).

The tests of `tests/network` send to each of them where every address answers and the names below
are looked up for real.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The addresses of receivers that are allowed; a connection to any other is a failure.
PUBLIC_IPV4 = "93.184.215.14"
PUBLIC_IPV6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
PUBLIC = frozenset({PUBLIC_IPV4, PUBLIC_IPV6})

#: Port on which the sending server itself listens.
OWN_PORT = 8765
#: Port on which another server of this machine listens, without TLS.
LOCAL_PORT = 8000

#: Name -> the addresses in each answer to a query for it; the last answer is repeated. A name with
#: "mixed" has several addresses in one answer.
NAMES: dict[str, list[list[str]]] = {
    "public.example": [[PUBLIC_IPV4]],
    "public6.example": [[PUBLIC_IPV6]],
    "both.example": [[PUBLIC_IPV4, PUBLIC_IPV6]],
    "redirect.example": [[PUBLIC_IPV4]],
    "other.example": [[PUBLIC_IPV4]],  # for which the receiver has no certificate
    "private.example": [["10.0.0.1"]],
    "private-172.example": [["172.20.0.1"]],
    "private-192.example": [["192.168.0.1"]],
    "loopback.example": [["127.0.0.1"]],
    "loopback6.example": [["::1"]],
    "any.example": [["0.0.0.0"]],
    "any6.example": [["::"]],
    "shared-space.example": [["100.64.0.1"]],
    "metadata.example": [["169.254.169.254"]],
    "metadata6.example": [["fd00:ec2::254"]],
    "wireserver.example": [["168.63.129.16"]],
    "alibaba.example": [["100.100.100.200"]],
    "oracle.example": [["192.0.0.192"]],
    "reserved.example": [["240.0.0.1"]],
    "multicast.example": [["224.0.0.1"]],
    "documentation.example": [["203.0.113.7"]],
    "benchmark.example": [["198.18.0.1"]],
    "unique-local.example": [["fd12:3456:789a::1"]],
    "link-local.example": [["fe80::1"]],
    "site-local.example": [["fec0::1"]],
    "mapped.example": [["::ffff:10.0.0.1"]],
    "mapped-public.example": [["::ffff:93.184.215.14"]],
    "compatible.example": [["::10.0.0.1"]],
    "nat64.example": [["64:ff9b::a00:1"]],
    "nat64-local.example": [["64:ff9b:1::a00:1"]],
    "6to4.example": [["2002:a00:1::1"]],
    "teredo.example": [["2001:0:a00:1::1"]],
    "metadata.google.internal": [["169.254.169.254"]],
    "host.docker.internal": [["172.17.0.1"]],
    "kubernetes.default.svc": [["10.96.0.1"]],
    "10.0.0.1.nip.example": [["10.0.0.1"]],
    "app.localhost": [["127.0.0.1"]],
    "localhost.localdomain": [["127.0.0.1"]],
    "intranet": [["192.168.1.10"]],
    "mixed-last.example": [[PUBLIC_IPV4, "10.0.0.1"]],
    "mixed-first.example": [["127.0.0.1", PUBLIC_IPV4]],
    "mixed-families.example": [[PUBLIC_IPV4, "::1"]],
    "mixed-families6.example": [[PUBLIC_IPV6, "169.254.169.254"]],
    "mixed-many.example": [[PUBLIC_IPV4, PUBLIC_IPV6, "93.184.215.15", "fd00::1"]],
    "rebinding.example": [[PUBLIC_IPV4], ["127.0.0.1"]],
    "rebinding-private.example": [[PUBLIC_IPV4], ["10.0.0.1"]],
    "rebinding-metadata.example": [[PUBLIC_IPV4], ["169.254.169.254"]],
    "rebinding6.example": [[PUBLIC_IPV6], ["::1"]],
    "rebinding-mixed.example": [[PUBLIC_IPV4], [PUBLIC_IPV4, "127.0.0.1"]],
    "rebinding-twice.example": [[PUBLIC_IPV4], [PUBLIC_IPV4], ["127.0.0.1"]],
}


@dataclass(frozen=True)
class Url:
    """A URL of the corpus.

    Attributes:
        reaches: The addresses that an attempt may still connect to: those of a redirect's sender,
            or of a name's first answer.
        profiles: The profiles in which it is hostile, or allowed.
    """

    kind: str
    url: str
    why: str
    reaches: frozenset[str] = frozenset()
    profiles: tuple[str, ...] = ("local", "shared")

    def __str__(self) -> str:
        return f"{self.kind}: {self.url!a}"


_LITERALS = {
    "0.0.0.0": "this host: Linux connects to loopback",
    "0.1.2.3": "this network, RFC 1122",
    "10.0.0.1": "private, RFC 1918",
    "10.255.255.255": "the last private address of 10/8",
    "100.64.0.1": "shared address space, RFC 6598",
    "100.100.100.200": "Alibaba's metadata",
    "168.63.129.16": "Azure's agent, public by the registries",
    "169.254.0.1": "link-local, RFC 3927",
    "169.254.169.254": "the metadata of most clouds",
    "169.254.170.2": "credentials of AWS's tasks",
    "172.16.0.1": "private, RFC 1918",
    "172.31.255.254": "the last private address of 172.16/12",
    "192.0.0.8": "IETF protocols: dummy address",
    "192.0.0.192": "Oracle's metadata",
    "192.0.2.1": "documentation",
    "192.31.196.1": "AS112, answered by whoever is near",
    "192.52.193.1": "AMT, answered by whoever is near",
    "192.88.99.1": "6to4 relay, deprecated by RFC 7526",
    "192.168.1.1": "private, RFC 1918",
    "192.175.48.1": "AS112, answered by whoever is near",
    "198.18.0.1": "benchmarks, RFC 2544",
    "198.19.255.254": "the last address for benchmarks",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast, SSDP",
    "240.0.0.1": "reserved, RFC 1112",
    "255.255.255.255": "broadcast",
    "[::]": "unspecified: Linux connects to loopback",
    "[100::1]": "discard only, RFC 6666",
    "[2001:2::1]": "benchmarks",
    "[2001:10::1]": "ORCHID, deprecated",
    "[2001:20::1]": "ORCHIDv2",
    "[2001:db8::1]": "documentation",
    "[2620:4f:8000::1]": "AS112, answered by whoever is near",
    "[3fff::1]": "documentation, RFC 9637",
    "[4000::1]": "not given out yet",
    "[5f00::1]": "segment routing, RFC 9602",
    "[fc00::1]": "unique local, RFC 4193",
    "[fd00:ec2::254]": "AWS's metadata",
    "[fd20:ce::254]": "Google's metadata",
    "[fe80::1]": "link-local",
    "[fec0::1]": "site-local, deprecated by RFC 3879",
    "[ff02::1]": "multicast",
}

_NOTATIONS = {
    "0177.0.0.1": "octal 127.0.0.1",
    "0x7f.0.0.1": "hexadecimal 127.0.0.1",
    "0X7F.0.0.1": "hexadecimal, capital X",
    "0x7f000001": "127.0.0.1 as one hexadecimal number",
    "2130706433": "127.0.0.1 as one number",
    "017700000001": "127.0.0.1 as one octal number",
    "127.1": "short 127.0.0.1",
    "127.0.1": "short 127.0.0.1",
    "10.1": "short 10.0.0.1",
    "0": "short 0.0.0.0",
    "0x0": "0.0.0.0 in hexadecimal",
    "0x": "an empty hexadecimal number is 0 for WHATWG",
    "127.0.0.01": "leading zero: octal for some, decimal for others",
    "127.000.000.001": "padded",
    "010.0.0.1": "8.0.0.1 or 10.0.0.1",
    "0251.0376.0251.0376": "octal 169.254.169.254",
    "0xA9.0xFE.0xA9.0xFE": "hexadecimal 169.254.169.254",
    "0xa9fea9fe": "169.254.169.254 as one hexadecimal number",
    "2852039166": "169.254.169.254 as one number",
    "169.254.43518": "169.254.169.254 with its last two bytes as one",
    "169.16689662": "169.254.169.254 with its last three bytes as one",
    "0xa9.254.0251.254": "169.254.169.254 in three notations",
    "425.510.425.510": "169.254.169.254 for who overflows a byte",
    "383.0.0.1": "127.0.0.1 for who overflows a byte",
    "4294967297": "0.0.0.1 for who overflows 32 bits",
    "10.0.0.1.5": "five numbers",
    "public.example.1": "a last label that is a number makes it an address for WHATWG",
    "public.example.0x7f": "likewise in hexadecimal",
    "127.0.0.1-": "a name that is none",
    "1e1.0.0.1": "10.0.0.1 for who reads floats, and an address by its last label",
}

_IPV4_IN_IPV6 = {
    "[::ffff:127.0.0.1]": "mapped loopback",
    "[::ffff:7f00:1]": "mapped loopback in hexadecimal",
    "[::FFFF:10.0.0.1]": "mapped private",
    "[0:0:0:0:0:ffff:10.0.0.1]": "mapped private in full",
    "[0000:0000:0000:0000:0000:ffff:0a00:0001]": "mapped private in full, padded",
    "[::ffff:169.254.169.254]": "mapped metadata",
    "[::ffff:a9fe:a9fe]": "mapped metadata in hexadecimal",
    "[::ffff:93.184.215.14]": "mapped public: whoever filters by family is passed by",
    "[::ffff:0:127.0.0.1]": "translated loopback, RFC 2765",
    "[::127.0.0.1]": "compatible loopback, RFC 4291",
    "[::10.0.0.1]": "compatible private",
    "[::a9fe:a9fe]": "compatible metadata",
    "[64:ff9b::127.0.0.1]": "NAT64 of loopback",
    "[64:ff9b::10.0.0.1]": "NAT64 of a private address",
    "[64:ff9b::a9fe:a9fe]": "NAT64 of the metadata address",
    "[64:ff9b::93.184.215.14]": "NAT64: where it leads is a translator's choice",
    "[64:ff9b:1::10.0.0.1]": "local NAT64, RFC 8215",
    "[64:ff9b:1:fffe::a9fe:a9fe]": "local NAT64 of the metadata address",
    "[2002:7f00:1::]": "6to4 of loopback",
    "[2002:a00:1::1]": "6to4 of a private address",
    "[2002:a9fe:a9fe::]": "6to4 of the metadata address",
    "[2001::1]": "Teredo",
    "[2001:0:7f00:1::]": "Teredo by way of loopback",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]": "Teredo",
    "[fe80::5efe:10.0.0.1]": "ISATAP, link-local",
    "[fe80::1%25lo]": "zone, RFC 6874",
    "[fe80::1%lo]": "zone as people write it",
    "[::1%25lo]": "zone on loopback",
    "[::1%lo]": "zone on loopback, unescaped",
    "[2606:2800:21f:cb07:6820:80da:af6b:8b2c%25lo]": "zone on a public address",
    "[::ffff:0177.0.0.1]": "octal inside",
    "[::ffff:127.1]": "short inside",
    "[127.0.0.1]": "IPv4 in brackets",
    "[10.0.0.1]": "private IPv4 in brackets",
    "[localhost]": "a name in brackets",
    "[v1.10.0.0.1]": "a future kind of address, RFC 3986",
    "[[::1]]": "two brackets",
    "[::1": "one bracket",
    "::1": "no bracket",
    "[]": "nothing in brackets",
    "[1::2::3]": "not an address",
    "[::1]public.example": "an address, then a name",
    "public.example[::1]": "a name, then an address",
}

_UNICODE = {
    "１２７.0.0.1": "fullwidth digits are digits by NFKC",
    "①②⑦.⓪.⓪.①": "circled digits",
    "①⓪.⓪.⓪.①": "circled digits of 10.0.0.1",
    "𝟏𝟐𝟕.𝟎.𝟎.𝟏": "mathematical digits",
    "١٢٧.٠.٠.١": "Arabic digits, which int() takes",
    "१०.०.०.१": "Devanagari digits of 10.0.0.1",
    "127。0。0。1": "ideographic full stop is a dot by IDNA",
    "127．0．0．1": "fullwidth full stop",
    "10｡0｡0｡1": "halfwidth full stop",
    "169。254。169。254": "metadata with ideographic full stops",
    "²¹³⁰⁷⁰⁶⁴³³": "superscript digits of one number",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ": "circled letters of localhost",
    "ｌｏｃａｌｈｏｓｔ": "fullwidth letters of localhost",
    "localhoſt": "long s is s by NFKC",
    "ℓocalhost": "script l is l by NFKC",
    "local\u00adhost": "a soft hyphen is dropped by IDNA",
    "local\u200bhost": "a zero-width space is dropped by some",
    "private\u2024example": "one dot leader is a dot by NFKC",
    "private。example": "ideographic full stop in a name",
    "public.example／@10.0.0.1": "fullwidth slash and a user",
    "public.example＠10.0.0.1": "fullwidth at",
    "10.0.0.1＃public.example": "fullwidth hash",
    "10.0.0.1？public.example": "fullwidth question mark",
    "10.0.0.1：443": "fullwidth colon",
    "10.0.0.1℀public.example": "account-of becomes a/c by NFKC",
    "\u202epublic.example": "right-to-left override",
    "[::１]": "fullwidth digit in brackets",
    "bücher.example": "an international name, to be written xn--bcher-kva.example",
    "public.example\u0085": "next line",
    "public.example\u2028.10.0.0.1": "line separator",
    "10.0.0.1\udc80": "a lone surrogate",
}

_DOTS = {
    "10.0.0.1.": "trailing dot on an address",
    "169.254.169.254.": "trailing dot on the metadata address",
    "127.0.0.1..": "two dots",
    ".10.0.0.1": "leading dot",
    "10..0.0.1": "empty number",
    "localhost.": "trailing dot on localhost",
    "LOCALHOST.": "in capitals too",
    "private.example.": "trailing dot on a name",
    "public.example.": "certificates and lists of names hold none with a dot",
    "private..example": "empty label",
    ".": "a dot alone",
    "..": "two dots alone",
    "PRIVATE.EXAMPLE": "capitals",
    "MetaData.Google.Internal": "capitals in a metadata name",
    "-private.example": "a label that begins with a hyphen",
    "private-.example": "a label that ends with one",
    "a" * 64 + ".example": "a label of 64 letters",
    "a." * 126 + "example": "a name of 259 letters",
}

_PARSERS = {
    "https://user@10.0.0.1/": "user",
    "https://user:password@10.0.0.1/": "user and password",
    "https://@10.0.0.1/": "empty user",
    "https://:@10.0.0.1/": "empty user and password",
    "https://user:password@public.example/": "a password in the clear",
    "https://public.example@10.0.0.1/": "an allowed host as user",
    "https://public.example:443@10.0.0.1/": "an allowed host and port as user",
    "https://public.example%40@10.0.0.1/": "an escaped at",
    "https://public.example%2f@10.0.0.1/": "an escaped slash",
    "https://public.example&@10.0.0.1#@169.254.169.254/": "three hosts, one for each parser",
    "https://public.example &@10.0.0.1# @169.254.169.254/": "likewise with spaces",
    "https://a@10.0.0.1@public.example/": "two ats: the first or the last",
    "https://10.0.0.1#@public.example/": "a fragment, or a user",
    "https://public.example#@10.0.0.1/": "likewise the other way round",
    "https://10.0.0.1\\@public.example/": "a backslash is a slash for browsers",
    "https://public.example\\@10.0.0.1/": "likewise the other way round",
    "https://public.example\\.10.0.0.1/": "a backslash in a name",
    "https:\\\\10.0.0.1\\": "backslashes all over",
    "https:/\\10.0.0.1/": "mixed slashes",
    "https:10.0.0.1/": "no slashes: browsers add them",
    "https:/10.0.0.1/": "one slash",
    "https:///10.0.0.1/": "three slashes",
    "https:////10.0.0.1/": "four slashes",
    "//10.0.0.1/": "relative to a scheme",
    "https://10.0.0.1%2f.public.example/": "an escaped slash in a name",
    "https://10.0.0.1%00.public.example/": "an escaped null in a name",
    "https://10.0.0.1%23.public.example/": "an escaped hash in a name",
    "https://%31%30.0.0.1/": "escaped digits",
    "https://%6c%6f%63%61%6c%68%6f%73%74/": "localhost escaped",
    "https://10%2e0%2e0%2e1/": "escaped dots",
    "https://%5b::1%5d/": "escaped brackets",
    "https://public.example:443:80/": "two ports",
    "https://10.0.0.1:443:public.example/": "a name for a port",
    "https://10.0.0.1;public.example/": "a semicolon",
    "https://10.0.0.1,public.example/": "a comma",
    "https://10.0.0.1|public.example/": "a bar",
    "https://{10.0.0.1}/": "braces",
    "https://${NAME}.public.example/": "a reference in a host",
    "https://*.public.example/": "a pattern",
    "https://10.0.0.1'.public.example/": "a quote",
    'https://10.0.0.1".public.example/': "a double quote",
    "https://<10.0.0.1>/": "angle brackets",
    "https://10.0.0.1^public.example/": "a caret",
    "https://public.example:pw@10.0.0.1:443/": "a user that reads like host and port",
    "https://public.example\uff0f..\uff0f@10.0.0.1/": "fullwidth slashes in a user",
}

_SCHEMES = {
    "file:///etc/passwd": "a file",
    "file://10.0.0.1/share": "a file elsewhere",
    "ftp://10.0.0.1/": "ftp",
    "gopher://10.0.0.1:6379/_FLUSHALL": "gopher speaks any protocol",
    "dict://10.0.0.1:11211/stats": "dict",
    "ldap://10.0.0.1/": "ldap",
    "tftp://10.0.0.1/x": "tftp",
    "sftp://10.0.0.1/": "sftp",
    "ssh://10.0.0.1/": "ssh",
    "smb://10.0.0.1/share": "smb",
    "ws://10.0.0.1/": "websocket",
    "wss://10.0.0.1/": "websocket",
    "data:text/plain,x": "data",
    "javascript:alert(1)": "javascript",
    "jar:https://10.0.0.1!/": "jar",
    "view-source:https://10.0.0.1/": "a scheme in front of another",
    "blob:https://10.0.0.1/1": "likewise",
    "unix:///var/run/docker.sock": "a socket file",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info": "http over a socket file",
    "https+unix://%2Fvar%2Frun%2Fdocker.sock/": "likewise",
    "git+https://10.0.0.1/": "git",
    "httpx://10.0.0.1/": "a scheme of nobody",
    "httpſ://10.0.0.1/": "long s is s in a search that ignores case",
    "http\u200bs://10.0.0.1/": "a zero-width space",
    "10.0.0.1": "no scheme",
    "10.0.0.1:443/x": "no scheme, with a port",
    "localhost:8000": "a host that reads like a scheme",
    "/x": "a path",
    "": "nothing",
    "https://": "no host",
    "https:///": "no host, with a path",
    "https://:443/": "no host, with a port",
    "https://?10.0.0.1": "no host, with a query",
    "http://": "no host",
    "://10.0.0.1/": "an empty scheme",
    "http://93.184.215.14/": "not encrypted",
    "http://public.example/": "not encrypted",
    "http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/": "not encrypted",
    "http://10.0.0.1/": "private and not encrypted",
    "HTTP://169.254.169.254/latest/meta-data/": "metadata, as its service speaks",
    "http://[fd00:ec2::254]/latest/meta-data/": "likewise over IPv6",
    "http://0.0.0.0:8000/": "reaches loopback on Linux",
    "http://[::]:8000/": "likewise over IPv6",
    "http://loopback.example:8000/": "a name of loopback",
    "http://app.localhost:8000/": "a name of loopback for browsers",
    "http://127.1:8000/": "short loopback",
    "http://2130706433:8000/": "loopback as one number",
    "http://[::ffff:127.0.0.1]:8000/": "mapped loopback",
    "http://[::ffff:127.0.0.1]:8765/": "mapped loopback, the server's own port",
}

_CHARACTERS = {
    "https://public.example/\r\nHost: 10.0.0.1": "a header of one's own",
    "https://public.example/ HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\nGET /": "a request of one's own",
    "https://public.example/\nX: y": "a line feed alone",
    "https://public.example/\rX: y": "a carriage return alone",
    "https://public.example\r\n.10.0.0.1/": "a line's end in a name",
    "https://10.0.0.1\t/": "tabs are dropped by browsers and by urlsplit",
    "https://10\t.0.0.1/": "likewise in the middle",
    "ht\ntps://10.0.0.1/": "likewise in the scheme",
    " https://10.0.0.1/": "leading space is dropped",
    "\x00https://10.0.0.1/": "a leading null",
    "\x1fhttps://10.0.0.1/": "a leading control character is dropped by urlsplit",
    "https://10.0.0.1/ ": "trailing space",
    "https://10.0.0.1\x00.public.example/": "a null ends a name in C",
    "https://public.example\x00.10.0.0.1/": "likewise",
    "https://10.0.0.1\x0b/": "vertical tab",
    "https://10.0.0.1\x7f/": "delete",
    "https://public.example/\x00": "a null in a path",
    "https://public.example/a b": "a space in a path",
    "https://public.example/\ud800": "a lone surrogate in a path",
    "https://public.example/\n": "a trailing line feed, which $ lets pass",
}

_PORTS = {
    "https://public.example:0/": "port 0",
    "https://public.example:65536/": "beyond 16 bits",
    "https://public.example:65979/": "443 for who overflows",
    "https://public.example:-1/": "negative",
    "https://public.example:+443/": "a sign",
    "https://public.example: 443/": "a space",
    "https://public.example:443abc/": "letters behind",
    "https://public.example:0x1bb/": "hexadecimal",
    "https://public.example:4_43/": "an underscore, which int() takes",
    "https://public.example:４４３/": "fullwidth digits, which int() takes",
    "https://public.example:00443/": "leading zeros",
    "https://public.example:/": "an empty port",
    "https://public.example:99999999999999999999/": "very long",
    "https://10.0.0.1:22/": "ssh, private",
    "https://10.0.0.1:65535/": "the last port, private",
}

_OWN = {
    f"http://127.0.0.1:{OWN_PORT}/": "the server's own port",
    f"http://localhost:{OWN_PORT}/api/v2/x": "by name",
    f"http://LOCALHOST:{OWN_PORT}/": "by name, in capitals",
    f"http://[::1]:{OWN_PORT}/": "over IPv6",
    f"http://[0:0:0:0:0:0:0:1]:{OWN_PORT}/": "over IPv6, in full",
    f"http://127.8.8.8:{OWN_PORT}/": "another address of loopback",
    f"https://127.0.0.1:{OWN_PORT}/": "over TLS",
    f"https://localhost:{OWN_PORT}/": "over TLS, by name",
}

_LOOPBACK = {
    f"http://127.0.0.1:{LOCAL_PORT}/": "loopback",
    f"http://127.9.9.9:{LOCAL_PORT}/": "another address of loopback",
    f"http://localhost:{LOCAL_PORT}/": "loopback by name",
    f"http://LocalHost:{LOCAL_PORT}/": "capitals are small letters in a host",
    f"http://[::1]:{LOCAL_PORT}/": "loopback over IPv6",
    f"http://[0:0:0:0:0:0:0:1]:{LOCAL_PORT}/": "in full",
    "https://127.0.0.1/": "loopback over TLS",
    "https://localhost/": "by name over TLS",
    "https://[::1]/": "over IPv6 and TLS",
}

_STATUSES = (301, 302, 303, 307, 308)
_GOALS = (
    f"http://127.0.0.1:{LOCAL_PORT}/",
    "https://127.0.0.1/",
    "https://10.0.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "//10.0.0.1/",
    "https://private.example/",
    "https://public6.example/",
    "https://rebinding.example/",
)


def _hosts(kind: str, hosts: dict[str, str]) -> list[Url]:
    return [Url(kind, f"https://{host}/", why) for host, why in hosts.items()]


def _urls(kind: str, urls: dict[str, str], *profiles: str) -> list[Url]:
    profiles = profiles or ("local", "shared")
    return [Url(kind, url, why, profiles=profiles) for url, why in urls.items()]


#: URLs to which no callback is delivered; no address but `reaches` is connected to.
HOSTILE = [
    *_hosts("reserved address", _LITERALS),
    *_hosts("notation of IPv4", _NOTATIONS),
    *_hosts("IPv4 in IPv6, and zones", _IPV4_IN_IPV6),
    *_hosts("Unicode", _UNICODE),
    *_hosts("dots and case", _DOTS),
    *_urls("parsers and users", _PARSERS),
    *_urls("scheme", _SCHEMES),
    *_urls("control characters", _CHARACTERS),
    *_urls("port", _PORTS),
    *_urls("the server itself", _OWN),
    *_urls("loopback of a shared server", _LOOPBACK, "shared"),
    *(
        Url("name", f"https://{name}/", f"leads to {' and '.join(answers[0])}")
        for name, answers in NAMES.items()
        if len(answers) == 1 and not PUBLIC.issuperset(answers[0])
    ),
    *(
        Url(
            "redirect",
            f"https://redirect.example/?status={status}&to={goal}",
            f"{status} to {goal}",
            frozenset({PUBLIC_IPV4}),
        )
        for status in _STATUSES
        for goal in _GOALS
    ),
]

#: URLs whose names lead to another address with each query.
REBINDING = [
    Url("rebinding", f"https://{name}/", " then ".join(map(str, answers)), PUBLIC)
    for name, answers in NAMES.items()
    if len(answers) > 1
]

#: URLs to which a callback is delivered, at one of `reaches`.
ALLOWED = [
    *(
        Url("public", url, why, PUBLIC)
        for url, why in {
            "https://public.example/": "a name",
            "https://public.example": "no path",
            "HTTPS://Public.Example/Path": "capitals",
            "https://public6.example/": "a name with an IPv6 address",
            "https://both.example/": "a name with both",
            "https://public.example:443/": "its usual port, said",
            "https://public.example:8443/": "another port",
            f"https://{PUBLIC_IPV4}/": "an address",
            f"https://{PUBLIC_IPV4}:8443/": "an address and a port",
            f"https://[{PUBLIC_IPV6}]/": "an IPv6 address",
            f"https://[{PUBLIC_IPV6.upper()}]:8443/": "in capitals, with a port",
            "https://public.example?a=b": "a query without a path",
            "https://public.example/?to=http://169.254.169.254/": "an address in a query",
            "https://public.example/@10.0.0.1/": "an at in a path",
            "https://public.example?@10.0.0.1/": "an at in a query",
            "https://public.example//10.0.0.1/": "two slashes in a path",
            "https://public.example/%0d%0aX:%20y": "an escaped line's end, which stays escaped",
            "https://public.example/ü?ß=中": "a path that is not ASCII",
            "https://public.example/a;b=c,d/'(e)*!~$&+=:@": "all that a path may hold",
        }.items()
    ),
    *(
        Url("loopback", url, why, frozenset({"127.0.0.1", "127.9.9.9", "::1"}), ("local",))
        for url, why in _LOOPBACK.items()
    ),
]
