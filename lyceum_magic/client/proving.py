"""Proof that a server on this machine knows a key, on the very connection that carries it.

Any user of a machine may listen on a free port. So a key that was kept for later, with an address,
is not sent because of that address alone: see `config.Account.needs_proof`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from urllib.parse import quote

import anyio
import h11
import httpcore

from ..config import Account
from ..exceptions import ConfigError
from ..protocol import paths
from ..protocol.addresses import is_loopback
from ..protocol.proof import digest_of, key_proof, public_part
from .sign_in import needs_refresh

#: Maximum seconds that the other end may take to prove itself.
LIMIT_S = 10.0
#: Maximum bytes that are read from an end that has not proved itself.
_MAX_BYTES = 64 * 1024


async def prove_other_end(stream: httpcore.AsyncNetworkStream, account: Account) -> None:
    """Check that a connection to this machine leads to the account's server.

    Connections to other machines are not checked.

    Args:
        stream: a connection on which nothing was sent yet.

    Raises:
        ConfigError: the other end does not know the account's key.
        httpcore.ConnectError, httpcore.ConnectTimeout: it went away, or is silent.
    """
    (own_host, *_), (host, port, *_) = (
        stream.get_extra_info(name) for name in ("client_addr", "server_addr")
    )
    if host != own_host and not is_loopback(host):
        return
    address, nonce = f"{host}:{port}", secrets.token_hex(16)
    key = _next_credential(account)
    expected = key_proof(digest_of(key), address, nonce)
    # A key without a public part is not asked for: any part of it would give away too much.
    proofs = await _ask(stream, address, public_part(key), nonce) if public_part(key) else ()
    if not any(secrets.compare_digest(expected.encode(), given) for given in proofs):
        raise ConfigError(
            f"{account.base_url} does not prove that it knows the key from {account.source}, so it "
            "was not sent that key: another program may have the port by now. Make a new key with "
            "`lyceum-magic keys create NAME` and log in again with it; for a server of another "
            "kind set LYCEUM_BASE_URL and LYCEUM_API_KEY."
        )


def _next_credential(account: Account) -> str:
    """Return the credential in the next request: the token, or the one that renews it."""
    token = account.token.reveal()
    if account.refresh_token is not None and needs_refresh(token, time.time()):
        return account.refresh_token.reveal()
    return token


async def _ask(
    stream: httpcore.AsyncNetworkStream, address: str, part: str, nonce: str
) -> Sequence[bytes]:
    """Return the proofs of the other end; none if it is not an embedded server."""
    target = f"{paths.HEALTH}?nonce={nonce}&key={quote(part, safe='')}"
    request = h11.Request(method="GET", target=target, headers=[("Host", address)])
    try:
        with anyio.fail_after(LIMIT_S):
            reply = json.loads(await _body_of_reply(stream, request))
        return [str(given).encode("utf-8", "replace") for given in reply["key_proofs"]]
    except (TimeoutError, httpcore.TimeoutException) as exc:
        raise httpcore.ConnectTimeout("it is silent") from exc
    except httpcore.NetworkError as exc:
        raise httpcore.ConnectError("it went away") from exc
    except (h11.RemoteProtocolError, ValueError, KeyError, TypeError, RecursionError):
        return ()


async def _body_of_reply(stream: httpcore.AsyncNetworkStream, request: h11.Request) -> bytes:
    """Return the body of the reply.

    Raises:
        h11.RemoteProtocolError: the reply is no HTTP, or too long.
    """
    connection = h11.Connection(h11.CLIENT)
    head = connection.send(request)
    await stream.write((head or b"") + (connection.send(h11.EndOfMessage()) or b""))
    body, left = b"", _MAX_BYTES
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if not left:
                raise h11.RemoteProtocolError("the reply is too long")
            if not (data := await stream.read(left)):
                raise httpcore.ReadError("it hung up")
            left -= len(data)
            connection.receive_data(data)
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return body
        elif not isinstance(event, h11.Response | h11.InformationalResponse):
            raise h11.RemoteProtocolError("no reply of HTTP/1.1")
