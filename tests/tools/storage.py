"""A plain S3 endpoint on loopback, over a folder of the test's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from lyceum_magic.client.storage import StorageAccess
from lyceum_magic.server.storage.s3_endpoint import S3Endpoint


@contextmanager
def s3_bucket(folder: Path) -> Iterator[StorageAccess]:
    """Serve a bucket during the block, whose objects are the files of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    endpoint = S3Endpoint(folder)
    with start_blocking_portal() as portal:
        access = portal.call(endpoint.access)
        try:
            yield StorageAccess(
                access.url,
                access.bucket,
                access.access_key,
                access.secret_key,
                None,
                access.region,
                None,
            )
        finally:
            portal.call(endpoint.close)
