"""A network namespace in which every address is this machine -> receivers, names, and a witness.

Receivers answer at every address; names are answered as `hostile_urls.NAMES` says; the witness sees
each connection attempt on its way out, also one that gets no answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import trustme
from anyio.from_thread import BlockingPortal, start_blocking_portal
from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

from tests.unit.server.outbox.hostile_urls import LOCAL_PORT, NAMES, OWN_PORT, PUBLIC

TLS_PORTS = (443, 8443)
PLAIN_PORTS = (80, LOCAL_PORT, OWN_PORT)
#: Where receivers answer over IPv4 alone, and over IPv6 alone.
IPV4_PORT, IPV6_PORT = 9443, 9444

#: The name that no certificate is for.
UNNAMED = "other.example"

_PACKET_OUTGOING = 4
_SYN, _ACK = 0x02, 0x10


@dataclass(frozen=True)
class Received:
    """A request that came, and the address it was sent to."""

    address: str
    port: int
    target: str
    headers: dict[str, str]
    body: bytes
    server_name: str | None


class Names(BaseResolver):
    """Answers from `NAMES`, with a time to live of 0; `asked` counts look-ups of a name."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()

    def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
        reply = request.reply()
        name, kind = str(request.q.qname).rstrip(".").lower(), QTYPE[request.q.qtype]
        if name not in NAMES:
            reply.header.rcode = RCODE.NXDOMAIN
            return reply
        # A look-up asks for both kinds of address: each kind has its own count.
        answers = NAMES[name][: self.asked[name, kind] + 1][-1]
        self.asked[name, kind] += 1
        for address in answers:
            packed = tuple(ipaddress.ip_address(address).packed)
            data = AAAA(packed) if len(packed) == 16 else A(packed)
            if type(data).__name__ == kind:
                reply.add_answer(RR(request.q.qname, request.q.qtype, rdata=data, ttl=0))
        return reply


@dataclass
class SmallInternet:
    """The record of everything that was sent.

    Attributes:
        authority: the file of the certificate authority that the receivers' certificates are of.
        received: the requests, oldest first.
    """

    authority: Path
    witness: socket.socket
    names: Names = field(default_factory=Names)
    received: list[Received] = field(default_factory=list)

    def attempts(self) -> list[tuple[str, int]]:
        """The addresses and ports to which connections were begun since the last call."""
        found = []
        while True:
            try:
                packet, (_, _, direction, *_) = self.witness.recvfrom(65536)
            except BlockingIOError:
                return found
            # Each packet of the loopback interface is seen twice: going out and coming in.
            if direction == _PACKET_OUTGOING and (begun := _begun_to(packet)):
                found.append(begun)

    def forget(self) -> None:
        """Forget all requests and look-ups."""
        self.attempts()
        self.received.clear()
        self.names.asked.clear()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Note one request, and answer 204 or the `status` and `to` of its query."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *lines = head.strip().split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            target = line.split(" ")[1]
            address, port = writer.get_extra_info("sockname")[:2]
            tls = writer.get_extra_info("ssl_object")
            server_name = getattr(tls.context, "server_name", None) if tls else None
            self.received.append(Received(address, port, target, headers, body, server_name))
            query = parse_qs(urlsplit(target).query)
            status = query.get("status", ["204"])[0]
            location = "".join(f"Location: {goal}\r\n" for goal in query.get("to", []))
            writer.write(f"HTTP/1.1 {status} X\r\n{location}Connection: close\r\n\r\n".encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # connected to, and told nothing: the witness has seen it
        finally:
            writer.close()


@contextmanager
def small_internet(folder: Path) -> Iterator[SmallInternet]:
    """Receivers, names and the witness, until the end of the block."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    with ExitStack() as stack:
        witness = stack.enter_context(
            # Cooked packets, of every protocol, from the first byte of the IP header.
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        )
        witness.setblocking(False)
        internet = SmallInternet(folder / "authority.pem", witness)
        server = DNSServer(internet.names, address="127.0.0.1", logger=DNSLogger(logf=_silent))
        stack.callback(server.server.server_close)
        server.start_thread()
        stack.callback(server.stop)
        portal = stack.enter_context(start_blocking_portal())
        _listen(portal, stack, internet, _certified(authority))
        yield internet


def _listen(
    portal: BlockingPortal, stack: ExitStack, internet: SmallInternet, tls: ssl.SSLContext
) -> None:
    async def listen(hosts: list[str], port: int, tls: ssl.SSLContext | None) -> asyncio.Server:
        return await asyncio.start_server(internet.answer, hosts, port, ssl=tls)

    async def close(server: asyncio.Server) -> None:
        server.close()
        await server.wait_closed()

    everywhere = ["0.0.0.0", "::"]
    for hosts, ports, context in (
        (everywhere, TLS_PORTS, tls),
        (everywhere, PLAIN_PORTS, None),
        (["0.0.0.0"], (IPV4_PORT,), tls),
        (["::"], (IPV6_PORT,), tls),
    ):
        for port in ports:
            stack.callback(portal.call, close, portal.call(listen, hosts, port, context))


class _NamedContext(ssl.SSLContext):
    """Remembers the name that the last client asked for."""

    server_name: str | None = None


def _certified(authority: trustme.CA) -> ssl.SSLContext:
    addresses = {address for answers in NAMES.values() for each in answers for address in each}
    names = {name for name in NAMES if name != UNNAMED} | {"localhost"}
    context = _NamedContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, *addresses, *PUBLIC, "127.0.0.1", "::1").configure_cert(context)

    def note(_connection: object, name: str | None, context: ssl.SSLContext) -> None:
        assert isinstance(context, _NamedContext)
        context.server_name = name

    context.sni_callback = note
    return context


def _begun_to(packet: bytes) -> tuple[str, int] | None:
    """Return the address and port to which a packet begins a TCP connection, if it does."""
    if packet[0] >> 4 == 4:
        length, protocol, address = (packet[0] & 15) * 4, packet[9], packet[16:20]
    else:
        length, protocol, address = 40, packet[6], packet[24:40]
    tcp = packet[length:]
    if protocol != socket.IPPROTO_TCP or tcp[13] & (_SYN | _ACK) != _SYN:
        return None
    return str(ipaddress.ip_address(address)), int.from_bytes(tcp[2:4])


def _silent(_line: str) -> None:
    """A logger that drops what dnslib would print of each query."""
