"""Renewal of the login's token before it expires: JWTs expire, `lk_` keys do not."""

from __future__ import annotations

import base64
import json
import logging
import time
from dataclasses import replace

from .. import config
from ..exceptions import ConfigError, NotAuthorised
from ..protocol import paths
from .answers import read_object
from .lean_httpx import httpx

logger = logging.getLogger(__name__)

#: A token that ends within this time is taken for expired, as the official client does.
MARGIN_S = 300


def needs_refresh(token: str, now: float) -> bool:
    """Return whether a token must be refreshed before use; never true for `lk_` keys."""
    if token.startswith("lk_"):
        return False
    expiry = _expiry(token)
    return expiry is None or expiry - now <= MARGIN_S


def _expiry(token: str) -> float | None:
    """Return the `exp` claim of a JWT, unverified (the server verifies); None if it is no JWT."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return None


async def refreshed(account: config.Account, http: httpx.AsyncClient) -> config.Account:
    """Return the account with a valid token; a new one is written to the login file.

    Raises:
        NotAuthorised: the token has expired and cannot be refreshed.
    """
    account = _renewed_elsewhere(account)
    if not needs_refresh(account.token.reveal(), time.time()):
        return account
    if account.refresh_token is None:
        if _expiry(account.token.reveal()) is None:
            return account  # neither lk_ nor a JWT: the server judges it
        raise NotAuthorised(
            f"The sign-in in {account.source} has expired; sign in again with `lyceum auth login`.",
            status_code=401,
        )
    response = await http.post(
        paths.REFRESH, json={"refresh_token": account.refresh_token.reveal()}
    )
    if not response.is_success:
        raise NotAuthorised(
            f"The sign-in in {account.source} has expired and could not be renewed "
            f"({response.status_code}); sign in again with `lyceum auth login`.",
            status_code=401,
        )
    tokens = read_object(response, source=account.source)
    token = tokens.get("access_token")
    if not isinstance(token, str):
        raise NotAuthorised(
            "The sign-in could not be renewed: the answer holds no access_token; sign in again "
            "with `lyceum auth login`.",
            status_code=401,
        )
    refresh = tokens.get("refresh_token") or account.refresh_token.reveal()
    try:
        config.write_login(api_key=token, refresh_token=refresh)
    except ConfigError as exc:
        # The server may refuse the old refresh token from now on, so these tokens are all that is
        # left of the sign-in: this process goes on with them.
        logger.warning("the renewed sign-in is good for this process alone: %s", exc)
    return replace(account, token=config.Secret(token), refresh_token=config.Secret(refresh))


def _is_older(login: config.Account, account: config.Account) -> bool:
    """Return whether the login file lacks this process's new tokens, because a write failed."""
    written, known = _expiry(login.token.reveal()), _expiry(account.token.reveal())
    return written is not None and known is not None and written < known


def _renewed_elsewhere(account: config.Account) -> config.Account:
    """Return the account with the tokens of the login file, if it came from there.

    Another kernel, or the official client, may have renewed them; a refresh token may be good for
    one use only.
    """
    if account.source != str(config.login_file()):
        return account
    login = config.find_account({})
    if login is None or login.base_url != account.base_url or _is_older(login, account):
        return account
    return replace(account, token=login.token, refresh_token=login.refresh_token)
