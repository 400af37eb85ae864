"""A second user of this machine, made for the tests, who runs small Python programs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

LIMIT_S = 60

#: The system's own Python: the one that runs the tests may lie where only its owner can read.
PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")


class NoSecondUser(Exception):
    """This machine gives the tests no second user; the text says why."""


@dataclass(frozen=True)
class Stranger:
    """An account without rights; `home` is a folder of its own, which others may read."""

    name: str
    uid: int
    gid: int
    home: Path

    def run(self, code: str, *arguments: str, check: bool = True) -> str:
        """Run a program as this user and return what it printed on stdout."""
        done = subprocess.run(
            [str(PYTHON), "-c", dedent(code), *arguments],
            **self._as_me(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(self, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A program of this user for as long as the block lasts.

        Its stdin and stdout are pipes: a program says "ready" with a line, and is awaited by
        reading it.
        """
        process = subprocess.Popen(
            [str(PYTHON), "-u", "-c", dedent(code), *arguments],
            **self._as_me(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def _as_me(self) -> dict[str, object]:
        return {
            "user": self.uid,
            "group": self.gid,
            "extra_groups": [],
            "cwd": self.home,
            "env": {"PATH": os.defpath, "HOME": str(self.home)},
        }


@contextmanager
def second_user(folder: Path) -> Iterator[Stranger]:
    """A user made for as long as the block lasts, whose home is made in `folder`.

    Raises:
        NoSecondUser: none can be made here.
    """
    if os.geteuid() != 0:
        raise NoSecondUser("only root can make a second user")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    useradd, userdel = shutil.which("useradd", path=path), shutil.which("userdel", path=path)
    if useradd is None or userdel is None or PYTHON is None:
        raise NoSecondUser("useradd, userdel or a system Python is missing")
    name = f"lyceum-{os.getpid()}"
    subprocess.run([useradd, "--system", "--user-group", "--no-create-home", name], check=True)
    try:
        account = pwd.getpwnam(name)
        home = folder / name
        home.mkdir(mode=0o755)
        os.chown(home, account.pw_uid, account.pw_gid)
        yield Stranger(name, account.pw_uid, account.pw_gid, home)
    finally:
        subprocess.run([userdel, name], check=True)
