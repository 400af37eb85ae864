"""The requirements of a run: the text of a requirements file in, a folder of packages out.

Nothing is installed into the server's own environment. What it already has is used; the rest goes
into a folder of its own, shared by all runs that want the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ....protocol.redaction import without_password
from ....variables import for_uv
from ..base import Refusal


@dataclass(frozen=True)
class Wanted:
    """The requirements left to install, sorted, and notices about them for the user."""

    requirements: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


# --- reading ---------------------------------------------------------------------------------


def missing_requirements(
    text: str, provided: Collection[str], installed: Mapping[str, Version]
) -> Wanted:
    """Return what `text` asks for and `installed` does not satisfy.

    Args:
        text: a requirements file.
        provided: names of the modules that travel with the run, and need no package.
        installed: canonical distribution name -> version.

    Raises:
        Refusal: a line is an option, a URL, a path, or no requirement at all.
    """
    provided_names = {canonicalize_name(name) for name in provided}
    requirements, notices = set(), []
    for line in _lines(text):
        # Clients derive requirements from imports, so names of modules arrive that are no
        # packages, some of which (`__future__`) are not even valid as names of packages.
        word = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        if word in sys.stdlib_module_names or canonicalize_name(word) in provided_names:
            continue
        requirement = _parse(line)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        if requirement.url:
            # A client names what it has itself, and often that is this very environment.
            if _is_installed_from(requirement.name, requirement.url):
                continue
            shown = repr(without_password(line))
            raise Refusal(f"requirements: URLs and paths are not accepted: {shown}")
        if _is_satisfied(requirement, installed):
            continue
        public, local = _without_local_tags(requirement)
        if local:
            notices.append(
                f"{requirement}: builds with a local tag (+{local}) are on no package index; "
                f"taking {public} instead"
            )
        if not _is_satisfied(public, installed):
            requirements.add(str(public))
    return Wanted(tuple(sorted(requirements)), tuple(notices))


def _lines(text: str) -> Iterator[str]:
    for line in text.replace("\r", "\n").replace("\\\n", " ").split("\n"):
        if line := re.sub(r"(^|\s)#.*", "", line).strip():
            yield line


@lru_cache(maxsize=1024)
def _parse(line: str) -> Requirement:
    if line.startswith("-") or " --" in line:
        option = next(word for word in line.split() if word.startswith("-"))
        raise Refusal(f"requirements: options such as {option!r} are not accepted")
    try:
        requirement = Requirement(line)
    except InvalidRequirement as exc:
        shown = repr(without_password(line))
        if re.match(r"[.~/]|\w+(\+\w+)?:", line) or "/" in line:
            raise Refusal(f"requirements: URLs and paths are not accepted: {shown}") from exc
        raise Refusal(f"requirements: {shown} is not a requirement") from exc
    return requirement


def _is_installed_from(name: str, url: str) -> bool:
    """Return whether a package was installed from this URL (PEP 610)."""
    try:
        source = json.loads(metadata.distribution(name).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return False
    known, vcs = source.get("url"), source.get("vcs_info")
    if vcs:
        known = f"{vcs.get('vcs')}+{known}@{vcs.get('commit_id')}"
    return bool(known == url.partition("#")[0])


def _is_satisfied(requirement: Requirement, installed: Mapping[str, Version]) -> bool:
    version = installed.get(canonicalize_name(requirement.name))
    # An installed pre-release satisfies too: it was wanted when it was installed.
    if version is None or not requirement.specifier.contains(version, prereleases=True):
        return False
    return all(
        _is_satisfied(needed, installed)
        for extra in requirement.extras
        for needed in _needed_by_extra(requirement.name, extra)
    )


def _needed_by_extra(name: str, extra: str) -> Iterator[Requirement]:
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            yield requirement


def _without_local_tags(requirement: Requirement) -> tuple[Requirement, str]:
    """Return the requirement with `==2.1+cu121` as `==2.1`, and the (last) tag removed."""
    tag, specifiers = "", []
    for specifier in requirement.specifier:
        version, plus, local = specifier.version.partition("+")
        specifiers.append(specifier.operator + version)
        tag = local if plus else tag
    if not tag:
        return requirement, ""
    public = Requirement(str(requirement))
    public.specifier = SpecifierSet(",".join(specifiers))
    return public, tag


def installed_versions() -> Mapping[str, Version]:
    """Return the distributions of this interpreter: canonical name -> version.

    A folder on the path is read again only when it has changed.
    """
    versions: dict[str, Version] = {}
    for folder in reversed(sys.path):  # the first one wins, as it does in an import
        # The path may name zip files, and folders that do not exist.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            versions.update(_versions_in(folder, os.stat(folder).st_mtime_ns))
    return versions


@lru_cache(maxsize=64)
def _versions_in(folder: str, _mtime_ns: int) -> Mapping[str, Version]:
    # From the names of the folders: opening all METADATA files takes a hundred times longer.
    pattern = re.compile(r"(\w[^-]*)-([^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")
    versions: dict[str, Version] = {}
    for entry in os.listdir(folder):
        if match := pattern.fullmatch(entry):
            with contextlib.suppress(InvalidVersion):
                versions[canonicalize_name(match[1])] = Version(match[2])
    return versions


# --- installing ------------------------------------------------------------------------------


#: Files in the folder where uv runs: it takes settings from there, and looks in no folder above,
#: which may be another user's. An empty `uv.toml` alone leaves it the projects above.
_END_OF_SEARCH = {"uv.toml": "", "pyproject.toml": "[tool.uv]\nmanaged = false\n"}

#: The beginning of the name of a folder that is being removed.
_REMOVED = "removed-"


@dataclass
class _Job:
    task: asyncio.Task[Path]
    waiters: int = 0


class Installer:
    """An installer of sets of requirements, each once, into folders below `cache`.

    To be used in one event loop.

    Args:
        index_url, find_links: passed on to uv. The first goes into its environment, because it may
            hold a password, and every user of this machine can read command lines.
        limit_s: how long one installation may take.
    """

    def __init__(
        self,
        cache: Path,
        *,
        index_url: str | None = None,
        find_links: str | None = None,
        limit_s: float = 600.0,
    ) -> None:
        self._cache = cache
        self._index_url = index_url
        self._find_links = find_links
        self._limit_s = limit_s
        self._jobs: dict[str, _Job] = {}

    async def install(self, requirements: tuple[str, ...]) -> Path:
        """Return the folder that holds `requirements` and all they need.

        A run that wants what is being installed already waits for it. The installation is given up
        when all runs that wait have been cancelled.

        Raises:
            Refusal: they cannot be installed, or not in time.
        """
        constraints = _constraints(requirements, installed_versions())
        sources = [self._index_url, self._find_links]
        request = [sys.version, sources, requirements, constraints]
        key = hashlib.sha256(json.dumps(request).encode()).hexdigest()[:32]
        folder = self._cache / key
        with contextlib.suppress(FileNotFoundError):
            os.utime(folder)  # `sweep` looks at when it was last wanted
            return folder
        if key not in self._jobs:
            task = asyncio.create_task(self._install(folder, requirements, constraints))
            self._jobs[key] = _Job(task)
        job = self._jobs[key]
        job.waiters += 1
        try:
            return await asyncio.shield(job.task)
        finally:
            job.waiters -= 1
            if not job.waiters:
                # From here on a run that wants the same begins again, or finds the folder.
                del self._jobs[key]
                job.task.cancel()
                await asyncio.wait([job.task])  # it stops uv, and clears away its draft

    async def sweep(self, unused_since: float) -> None:
        """Remove what no run has asked for since a moment, in seconds since 1970."""
        if not self._cache.exists():
            return
        unused = []
        for folder in self._cache.iterdir():
            if folder.stat().st_mtime < unused_since:
                # No await between the look and this: a run that asks now installs it again.
                if not folder.name.startswith(_REMOVED):
                    folder = folder.rename(folder.with_name(_REMOVED + folder.name))
                unused.append(folder)
        for folder in unused:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _install(
        self, folder: Path, requirements: tuple[str, ...], constraints: list[str]
    ) -> Path:
        self._cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=self._cache))
        try:
            lines = [f"--find-links {self._find_links}"] if self._find_links else []
            (draft / "requirements.txt").write_text("\n".join([*lines, *requirements]))
            (draft / "constraints.txt").write_text("\n".join(constraints))
            for name, text in _END_OF_SEARCH.items():
                (draft / name).write_text(text)
            await self._run_uv(draft)
            _move(draft / "target", folder)
        finally:
            shutil.rmtree(draft)
        return folder

    async def _run_uv(self, draft: Path) -> None:
        from uv import find_uv_bin  # most runs install nothing

        process = await asyncio.create_subprocess_exec(
            find_uv_bin(),
            "pip",
            "install",
            "--quiet",
            "--color=never",
            f"--python={sys.executable}",
            "--target=target",
            "--requirements=requirements.txt",
            "--constraints=constraints.txt",
            cwd=draft,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._limit_s):
                output, _ = await process.communicate()
        except TimeoutError:
            raise Refusal(
                f"installing the requirements exceeded its limit of {self._limit_s:g} s"
            ) from None
        finally:
            if process.returncode is None:
                # With what it builds, which would go on in the folder that is about to go.
                os.killpg(process.pid, signal.SIGKILL)
                await process.communicate()
        if process.returncode:
            output = self._without_passwords(output)
            raise Refusal(f"the requirements cannot be installed: {_gist(output)}", output)

    def _environment(self) -> dict[str, str]:
        environment = for_uv()
        if self._index_url:
            environment.pop("UV_INDEX_URL", None)  # its older name
            environment["UV_DEFAULT_INDEX"] = self._index_url
        return environment

    def _without_passwords(self, output: bytes) -> bytes:
        for url in (self._index_url, self._find_links):
            secret = url and "://" in url and urlsplit(url).netloc.rpartition("@")[0]
            if secret:
                output = output.replace(secret.encode(), b"...")
        return output


def _move(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        # Another server on this cache was faster: its folder is as good.


def _constraints(requirements: Collection[str], installed: Mapping[str, Version]) -> list[str]:
    """Return the interpreter's own versions, except of packages that the run wants otherwise."""
    wanted = {canonicalize_name(Requirement(line).name) for line in requirements}
    # Without local tags, which no index has: `==2.1` admits 2.1+cu121 as well.
    return sorted(
        f"{name}=={version.public}" for name, version in installed.items() if name not in wanted
    )


def _gist(output: bytes) -> str:
    """Return the installer's message in one line, without its drawing."""
    text = re.sub(r"[×╰├│─▶]", " ", output.decode(errors="replace"))
    text = " ".join(text.split()).removeprefix("error: ")
    return text if len(text) <= 300 else text[:299] + "…"
