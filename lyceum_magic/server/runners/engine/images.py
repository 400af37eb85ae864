"""Images: the meaning of their names, and their way from a registry; progress as phrases."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base import ProgressListener, Refusal
from .engine import connect, explanation
from .registry import SignIn

if TYPE_CHECKING:
    from docker import DockerClient
    from requests import Response

#: How long the engine may be silent while it pulls: unpacking a large layer takes long. In seconds.
_SILENCE_S = 600

_DOMAIN = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+(?=:\d)|\[[0-9a-fA-F:]+\])"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<repository>(?:(?P<registry>{_DOMAIN}(?::\d+)?)/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
_MAX_REPOSITORY = 255

#: An image's id or its beginning, which might be a name as well, and how long a short id is.
_ID = re.compile(r"[0-9a-f]{4,64}")
_SHORT_ID = 12


@dataclass(frozen=True)
class ImageReference:
    """The name of an image. `version` is a tag or, if it begins with an `algorithm:`, a digest."""

    registry: str
    repository: str
    version: str

    def __str__(self) -> str:
        return f"{self.repository}{'@' if ':' in self.version else ':'}{self.version}"


def parse_reference(text: str) -> ImageReference:
    """Return the image that a text means: `[registry/]name[:tag][@digest]`.

    A digest wins over a tag.

    Raises:
        ValueError: it means none.

    Source: the reference grammar of the Distribution project.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or len(match["repository"]) > _MAX_REPOSITORY:
        raise ValueError(f"{text[:300]!r} is not the name of an image")
    version = match["digest"] or match["tag"] or "latest"
    return ImageReference(match["registry"] or "docker.io", match["repository"], version)


async def provide(
    text: str, client: DockerClient, sign_in: SignIn | None, on_progress: ProgressListener
) -> str:
    """Return the name by which the engine has an image, which is pulled if it is missing.

    As for Docker, a text may be the beginning of the id of an image that is there. No registry
    knows ids.

    Args:
        text: one that `parse_reference` takes.

    Raises:
        Refusal: it cannot be had; the sentence says why.
        EngineUnavailable: the engine is gone.
    """
    reference = parse_reference(text)
    # That an image is here already does not say that this request may have it.
    is_public = sign_in is None
    found = await asyncio.to_thread(_id_of, client, str(reference)) if is_public else ""
    if found:
        return str(reference)
    if _ID.fullmatch(text):
        found = await asyncio.to_thread(_id_of, client, text)
        if found.removeprefix("sha256:").startswith(text):
            return found
        if len(text) >= _SHORT_ID:
            raise Refusal(f"the engine has no image with the id {text}; give the image's name")
    await pull(reference, sign_in, on_progress)
    return str(reference)


def _id_of(client: DockerClient, name: str) -> str:
    """Return the id of an image that the engine has; empty if it has none."""
    from docker.errors import ImageNotFound

    try:
        return str(client.images.get(name).id)
    except ImageNotFound:
        return ""


async def pull(
    reference: ImageReference, sign_in: SignIn | None, on_progress: ProgressListener
) -> None:
    """Fetch an image. A pull that is cancelled ends in the engine too.

    Without `sign_in` no logins are used, not even those that this machine may have.

    Raises:
        Refusal: it cannot be had; the sentence says why.
        EngineUnavailable: the engine is gone.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def tell(hear: Callable[..., object], *what: object) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(hear, *what)

    job = _Pull(reference, sign_in, lambda phrase: tell(on_progress, phrase))

    def work() -> None:
        try:
            job.run()
        except BaseException as exc:  # noqa: BLE001 - it is raised where the pull is awaited
            tell(settle, exc)
        else:
            tell(settle, None)

    # Not one of the loop's own threads: the engine may be silent for as long as a registry is,
    # and a server must not wait for that when it ends.
    threading.Thread(target=work, name="pull", daemon=True).start()
    try:
        await done
    finally:
        job.cancel()


class _Pull:
    def __init__(
        self, reference: ImageReference, sign_in: SignIn | None, on_progress: ProgressListener
    ) -> None:
        self._reference = reference
        self._sign_in = sign_in
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._response: Response | None = None

    def run(self) -> None:
        from docker.errors import DockerException

        self._on_progress(f"pulling {self._reference}")
        client = connect(_SILENCE_S)
        client.api.hooks["response"].append(self._remember)
        credentials = {}
        if self._sign_in is not None:
            credentials = {"username": self._sign_in.username, "password": self._sign_in.password}
        try:
            with contextlib.closing(client):
                self._follow(
                    client.api.pull(
                        self._reference.repository,
                        self._reference.version,
                        stream=True,
                        decode=True,
                        auth_config=credentials,
                    )
                )
        except (DockerException, OSError) as exc:
            if not self._is_cancelled:
                raise self._refusal(explanation(exc)) from exc

    def cancel(self) -> None:
        """Hang up: the engine stops pulling when nothing listens any more."""
        with self._lock:
            self._is_cancelled = True
            if self._response is not None:
                _hang_up(self._response)

    def _remember(self, response: Response, *_: object, **__: object) -> None:
        with self._lock:
            self._response = response
            if self._is_cancelled:
                _hang_up(response)

    def _follow(self, events: Iterable[Mapping[str, Any]]) -> None:
        progress = PullProgress()
        shown = 0
        for event in events:
            if "error" in event:
                raise self._refusal(event["error"])
            percent = progress.after(event)
            if percent > shown:
                shown = percent
                # The number first: a row that is too narrow cuts off the end.
                self._on_progress(f"pulling {percent}% of {self._reference}")

    def _refusal(self, reason: str) -> Refusal:
        return Refusal(why_not_pulled(self._reference, reason, signed_in=self._sign_in is not None))


def _hang_up(response: Response) -> None:
    """Shut a response's socket down under the thread that reads from it."""
    from docker.types import CancellableStream

    with contextlib.suppress(OSError):
        CancellableStream(iter(()), response).close()


class PullProgress:
    """The share of an image that has arrived, as far as its layers' sizes are known."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}

    def after(self, event: Mapping[str, Any]) -> int:
        """Take in another message of the engine; return the percentage of bytes that arrived."""
        layer = event.get("id", "")
        match event:
            case {"status": "Downloading", "progressDetail": {"current": current, "total": total}}:
                self._layers[layer] = (current, total)
            case {"status": "Download complete" | "Pull complete"} if layer in self._layers:
                total = self._layers[layer][1]
                self._layers[layer] = (total, total)
        wanted = sum(total for _, total in self._layers.values())
        return sum(current for current, _ in self._layers.values()) * 100 // wanted if wanted else 0


def why_not_pulled(reference: ImageReference, reason: str, *, signed_in: bool) -> str:
    """Return one sentence for what an engine says when it cannot pull.

    Engines have no error codes here.

    Args:
        signed_in: whether there were credentials.
    """
    said = reason.lower()

    def says(*phrases: str) -> bool:
        return any(phrase in said for phrase in phrases)

    if says("unauthorized", "no basic auth credentials", "denied", "forbidden"):
        if signed_in:
            return (
                f"the registry {reference.registry} does not accept the credentials for {reference}"
            )
        if says("does not exist"):
            return (
                f"the registry {reference.registry} has no image {reference}, or gives it only to "
                "those who sign in; check its name, or give docker_registry_credential_type and "
                "the credentials"
            )
        return (
            f"the registry {reference.registry} gives {reference} only to those who sign in; give "
            "docker_registry_credential_type and the credentials"
        )
    if says("no matching manifest"):
        return f"there is no variant of the image {reference} for this machine's processor"
    if says("manifest unknown", "name unknown", "not found"):
        return f"the registry {reference.registry} has no image {reference}"
    if says("no space left on device"):
        return f"the disk has no room for the image {reference}"
    if says(
        "dial tcp", "no such host", "timeout", "timed out", "tls", "x509", "https client", "eof"
    ):
        return (
            f"the image {reference} cannot be pulled, for the registry {reference.registry} cannot "
            f"be reached: {reason}"
        )
    return f"the image {reference} cannot be pulled: {reason}"
