"""Names of the kernel matrix -> virtual environments under `.venv-matrix`, made once by uv.

python -m tests.tools.environments            # make all of them
python -m tests.tools.environments ipykernel-6.31
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MATRIX = ROOT / ".venv-matrix"


@dataclass(frozen=True)
class Environment:
    """A kernel's environment: this package, editable, beside pinned versions of the others."""

    name: str
    pins: tuple[str, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def folder(self) -> Path:
        return _MATRIX / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def ensure(self) -> Path:
        """The interpreter, made first if it is missing or its recipe has changed."""
        stamp = self.folder / "recipe"
        recipe = self._recipe()
        with self._alone():
            if self.python.exists() and stamp.exists() and stamp.read_text() == recipe:
                return self.python
            _uv("venv", "--clear", "--python", sys.executable, str(self.folder))
            _uv("pip", "install", "--python", str(self.python), "-e", str(ROOT), *self.pins)
            # Last, so that an interrupted installation is not taken for a whole one.
            stamp.write_text(recipe)
        return self.python

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Make other test workers wait that need the same environment."""
        _MATRIX.mkdir(exist_ok=True)
        with (_MATRIX / f"{self.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def register(self, jupyter_data: Path) -> None:
        """Write a kernelspec named like the environment below `jupyter_data`."""
        folder = jupyter_data / "kernels" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        spec = {
            "argv": [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": self.name,
            "language": "python",
        }
        (folder / "kernel.json").write_text(json.dumps(spec))

    def _recipe(self) -> str:
        pyproject = (ROOT / "pyproject.toml").read_bytes()
        return f"{hashlib.sha256(pyproject).hexdigest()} {' '.join(self.pins)} {sys.version}\n"


#: Why these: 6.31 has no subshells, 7.3 delivers comms to a blocked kernel, 7.4 does not; and the
#: old IPython is Colab's. A name that holds no pin is the newest.
MATRIX = (
    Environment("ipykernel-6.31", ("ipykernel==6.31.0",)),
    Environment("ipykernel-7.3", ("ipykernel==7.3.0",)),
    Environment("ipykernel-newest", ("ipykernel",)),
    Environment("ipython-7.34", ("ipython==7.34.0", "ipykernel==6.31.0")),
)


#: Those of them on which the quickstart must look the same, with what it imports.
QUICKSTART_MATRIX = tuple(
    Environment(f"{base.name}-demo", (*base.pins, "scikit-learn>=1.4"))
    for base in MATRIX
    if base.name != "ipykernel-7.3"
)


def environment(name: str) -> Environment:
    """The environment with this name."""
    return next(item for item in (*MATRIX, *QUICKSTART_MATRIX) if item.name == name)


def copy_of_this_environment(folder: Path) -> str:
    """A new virtual environment with all that this one has; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    found = next(folder.glob("lib/*/site-packages"))
    (found / "here.pth").write_text("\n".join(filter(None, sys.path)))
    return str(folder / "bin" / "python")


def _uv(*arguments: str) -> None:
    # UV_SYSTEM_CERTS: with an inspecting proxy, the system's certificates are the trusted ones.
    subprocess.run(
        [sys.executable, "-m", "uv", *arguments],
        check=True,
        env={"UV_SYSTEM_CERTS": "true", **os.environ},
    )


if __name__ == "__main__":
    for item in [environment(name) for name in sys.argv[1:]] or MATRIX:
        item.ensure()
