"""The objects of an account's bucket: keys in, bytes and presigned URLs out, by boto3.

A presigned URL enables anyone who has it to do one thing with one object until it ends. So none is
shown: its `repr` hides it, and no error names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from ...client.storage import StorageAccess
from ...exceptions import ConfigError, NotAuthorised, RequestRefused, ServerError, ServerUnreachable
from ...protocol.redaction import HiddenUrl

#: Maximum seconds that a presigned URL may last; S3 refuses more.
MAX_URL_S = 7 * 86400

#: Maximum number of objects that one request deletes; S3 refuses more.
_DELETED_AT_ONCE = 1000
_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a bucket; `modified_at` is the storage's time, in seconds since 1970."""

    key: str
    size: int
    modified_at: float


class Objects:
    """The objects of one bucket, for use by several threads.

    Args:
        access: the address and the keys, which hold as long as it says.

    Raises:
        ConfigError: boto3 is not installed, or its settings cannot be used.
        NotAuthorised, RequestRefused, ServerError (every method): the storage answered with one.
        ServerUnreachable (every method): it did not answer.
    """

    def __init__(self, access: StorageAccess) -> None:
        self.access = access
        self._host = urlsplit(access.endpoint).netloc.rpartition("@")[2]
        self._s3 = _connect(access)

    def url(self, what: Literal["get", "put"], key: str, lasts_s: int) -> str:
        """Return a URL that gets or puts one object, and holds for some seconds."""
        with self._translated():
            made = self._s3.generate_presigned_url(
                f"{what}_object",
                Params={"Bucket": self.access.bucket, "Key": key},
                ExpiresIn=min(lasts_s, MAX_URL_S),
            )
        return HiddenUrl(made)

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """Return an object's content; None if there is no such object.

        Raises:
            ServerError: it is larger than `max_bytes`.
        """
        with self._translated():
            try:
                answer = self._s3.get_object(Bucket=self.access.bucket, Key=key)
            except Exception as exc:
                if _status(exc) == 404:
                    return None
                raise
            with answer["Body"] as body:
                data: bytes = body.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise ServerError(
                f"The object {key} of the account's storage has more than {max_bytes:,} bytes; "
                "remove it, for it is none of this package's.",
                status_code=500,
            )
        return data

    def write(self, key: str, data: bytes) -> None:
        """Put an object, in place of an earlier one."""
        with self._translated():
            self._s3.put_object(Bucket=self.access.bucket, Key=key, Body=data)

    def find(self, prefix: str) -> list[StoredObject]:
        """Return the objects whose keys begin with a prefix, by key."""
        with self._translated():
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self.access.bucket, Prefix=prefix
            )
            return [_stored(item) for page in pages for item in page.get("Contents", ())]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; one that is gone already is no error."""
        left = list(keys)
        with self._translated():
            while left:
                now, left = left[:_DELETED_AT_ONCE], left[_DELETED_AT_ONCE:]
                self._s3.delete_objects(
                    Bucket=self.access.bucket,
                    Delete={"Objects": [{"Key": key} for key in now], "Quiet": True},
                )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise this package's errors for those of boto3, whose texts may hold a URL."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as exc:
            status, code = _status(exc), str(exc.response.get("Error", {}).get("Code", ""))
            said = f"The account's storage at {self._host} answered {status} ({code[:40]})"
            if status in (401, 403):
                raise NotAuthorised(
                    f"{said}; check this machine's clock and what this account may do.",
                    status_code=status,
                ) from None
            if status >= 500:
                raise ServerError(f"{said}; try again in a moment.", status_code=status) from None
            raise RequestRefused(f"{said}; ask its operator.", status_code=status) from None
        except BotoCoreError as exc:
            raise ServerUnreachable(
                f"The account's storage at {self._host} cannot be reached "
                f"({type(exc).__name__}); check the network, and try again."
            ) from None


def _connect(access: StorageAccess) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise ConfigError(
            "Sessions on a server without session endpoints need boto3, which is not installed: "
            "run `pip install 'lyceum-magic[storage]'`."
        ) from None
    config = Config(
        signature_version="s3v4",
        connect_timeout=_TIMEOUT_S,
        read_timeout=_TIMEOUT_S,
        retries={"mode": "standard", "max_attempts": 3},
        # Else a presigned URL asks for a checksum, which the run does not send.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    token = access.session_token
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=access.endpoint,
            region_name=access.region,
            aws_access_key_id=access.access_key,
            aws_secret_access_key=access.secret_key.reveal(),
            aws_session_token=token.reveal() if token else None,
            config=config,
        )
    except (BotoCoreError, ValueError) as exc:
        raise ConfigError(
            f"boto3 cannot use the account's storage ({type(exc).__name__}); check the variables "
            "that begin with AWS_ and the file ~/.aws/config."
        ) from None


def _status(exc: Exception) -> int:
    answer = getattr(exc, "response", None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if answer else None
    return status if isinstance(status, int) else 0


def _stored(item: dict[str, Any]) -> StoredObject:
    modified = item.get("LastModified")
    return StoredObject(
        str(item["Key"]),
        int(item.get("Size", 0)),
        modified.timestamp() if isinstance(modified, datetime) else 0.0,
    )
