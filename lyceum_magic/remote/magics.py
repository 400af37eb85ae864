"""The magics that work without IPython; any other is refused with the advice to add it."""

from __future__ import annotations

import os
import re
import sys
import types
from typing import Any

from .compiling import compile_cell, run_codes

NO_INSTALL = (
    "%{} installs nothing there; in a %%lyceum cell `%pip install NAME` does, as -r NAME does."
)
NO_SCREEN = "%matplotlib {} needs a screen; figures are shown inline there."
#: Arguments of `%matplotlib`: those that draw into the cell, and backends that show nothing.
INLINE = ("", "auto", "inline")
WITHOUT_SCREEN = ("agg", "cairo", "pdf", "ps", "svg", "template")
INSTALLERS = ("conda", "mamba", "micromamba", "pip", "uv")


class UsageError(Exception):
    """An unknown magic, or one with arguments that it does not take without IPython."""

    __module__ = "IPython.core.error"  # whose name it has, for those who read of it


class Lines(list):  # type: ignore[type-arg]
    """The output lines of a command, as IPython returns them: also `.l`, `.n`, `.s`."""

    @property
    def l(self) -> list[str]:  # noqa: E743 - IPython's name
        return list(self)

    @property
    def n(self) -> str:
        return "\n".join(self)

    @property
    def s(self) -> str:
        return " ".join(self)


class FewMagics:
    """A shell with few magics, which `get_ipython()` returns without IPython.

    Args:
        namespace: of the cell.
    """

    def __init__(self, namespace: dict[str, object]) -> None:
        self.user_ns = namespace
        self._last_folder = os.getcwd()

    def run_line_magic(self, magic_name: str, line: str, _stack_depth: int = 1) -> object:
        return self._magic("%", "line_" + magic_name)(expand(line, sys._getframe(1)))

    def run_cell_magic(self, magic_name: str, line: str, cell: str) -> object:
        return self._magic("%%", "cell_" + magic_name)(expand(line, sys._getframe(1)), cell)

    def _magic(self, sign: str, method: str) -> Any:
        name = method[5:]
        if name in INSTALLERS:
            raise UsageError(NO_INSTALL.format(name))
        found = getattr(self, method, None)
        if found is None:
            known = " ".join(
                {"line_": "%", "cell_": "%%"}[known[:5]] + known[5:]
                for known in sorted(dir(type(self)), reverse=True)
                if known.startswith(("line_", "cell_"))
            )
            raise UsageError(
                f"{sign}{name} needs IPython, which is not installed there: add -r ipython. "
                f"Without it there are: {known} !command"
            )
        return found

    # Commands.

    def system(self, cmd: str) -> None:
        cmd = expand(cmd, sys._getframe(1))
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")
        self.user_ns["_exit_code"] = run(cmd, shell=True, is_merged=True)

    def getoutput(self, cmd: str, split: bool = True) -> object:
        import subprocess

        cmd = expand(cmd, sys._getframe(1))
        done = subprocess.run(
            cmd, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        text = done.stdout.decode("utf-8", "replace")
        return Lines(text.splitlines()) if split else text

    def cell_bash(self, line: str, cell: str) -> None:
        self._script("bash", line, cell)

    def cell_sh(self, line: str, cell: str) -> None:
        self._script("sh", line, cell)

    def _script(self, program: str, line: str, cell: str) -> None:
        import subprocess

        if line.strip():
            raise UsageError(f"%%{program} takes no options without IPython: add -r ipython.")
        code = run([program], text=cell)
        if code:
            raise subprocess.CalledProcessError(code, program)

    # Folders, files and variables.

    def line_pwd(self, line: str) -> str:
        return os.getcwd()

    def line_cd(self, line: str) -> None:
        target = line.strip().strip("'\"") or "~"
        before = os.getcwd()
        os.chdir(self._last_folder if target == "-" else os.path.expanduser(target))
        self._last_folder = before
        say(os.getcwd())

    def line_env(self, line: str) -> object:
        name, sign, value = re.match(r"(\S*?)(\s*=\s*|\s+|$)(.*)", line.strip()).groups()  # type: ignore[union-attr]
        if not name:
            return {
                name: "<hidden>" if re.search("key|token|secret", name.lower()) else value
                for name, value in os.environ.items()
            }
        if not sign:
            if name not in os.environ:
                raise UsageError(f"Environment does not have key: {name}")
            return os.environ[name]
        os.environ[name] = value
        say(f"env: {name}={value}")
        return None

    def cell_writefile(self, line: str, cell: str) -> None:
        words = line.split()
        is_appended = bool(words) and words[0] in ("-a", "--append")
        if len(words) != 1 + is_appended:
            raise UsageError("%%writefile takes the name of one file, and -a in front of it.")
        path = os.path.expanduser(words[-1].strip("'\""))
        said = "Appending to" if is_appended else "Writing"
        if os.path.exists(path) and not is_appended:
            said = "Overwriting"
        say(f"{said} {path}")
        with open(path, "a" if is_appended else "w", encoding="utf-8") as file:
            file.write(cell)

    # Code.

    def line_matplotlib(self, line: str) -> None:
        choose_backend(line.strip())

    def line_time(self, line: str) -> object:
        import time

        try:
            code, is_value = compile(line, "<timed eval>", "eval"), True
        except SyntaxError:
            code, is_value = compile(line, "<timed exec>", "exec"), False
        clocks = time.perf_counter(), os.times()
        value = eval(code, self.user_ns)
        say_times(*clocks)
        return value if is_value else None

    def cell_time(self, line: str, cell: str) -> None:
        import time

        clocks = time.perf_counter(), os.times()
        self._run(f"{line}\n{cell}" if line.strip() else cell, "<timed exec>")
        say_times(*clocks)

    def line_timeit(self, line: str) -> None:
        import timeit

        if line.startswith("-"):
            raise UsageError("%timeit takes no options without IPython: add -r ipython.")
        timer = timeit.Timer(line, globals=self.user_ns)
        number, _ = timer.autorange()
        times = [total / number for total in timer.repeat(7, number)]
        mean = sum(times) / 7
        deviation = (sum((time - mean) ** 2 for time in times) / 7) ** 0.5
        say(
            f"{span(mean)} ± {span(deviation)} per loop "
            f"(mean ± std. dev. of 7 runs, {number:,} loop{'s' * (number > 1)} each)"
        )

    def cell_capture(self, line: str, cell: str) -> None:
        import builtins
        import contextlib
        import io

        name = line.strip()
        if name and not name.isidentifier():
            raise UsageError("%%capture takes a name, and no options without IPython.")
        shown = sys.displayhook, getattr(builtins, "display", None)
        out, err = io.StringIO(), io.StringIO()
        sys.displayhook = lambda value: None
        builtins.display = lambda *objects, **options: None  # type: ignore[attr-defined]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                self._run(cell, "<captured>")
        finally:
            sys.displayhook, builtins.display = shown  # type: ignore[attr-defined]
        if name:
            self.user_ns[name] = types.SimpleNamespace(
                stdout=out.getvalue(), stderr=err.getvalue(), outputs=[]
            )

    def _run(self, code: str, name: str) -> None:
        import linecache

        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        run_codes(compile_cell(code, name, is_shown=True), self.user_ns)


def choose_backend(gui: str) -> str:
    """Let matplotlib draw as `%matplotlib` says, and return its name for the backend."""
    name = gui.lower()
    if name not in (*INLINE, *WITHOUT_SCREEN):
        raise UsageError(NO_SCREEN.format(gui))
    from .figures import BACKENDS

    if name in WITHOUT_SCREEN:
        from matplotlib import pyplot

        pyplot.switch_backend(name)
        return name
    if "matplotlib.pyplot" in sys.modules and not os.environ.get("MPLBACKEND"):
        pyplot = sys.modules["matplotlib.pyplot"]
        if pyplot.get_backend().removeprefix("module://") not in BACKENDS:  # it was chosen before
            pyplot.switch_backend(f"module://{BACKENDS[0]}")
    return "inline"


def expand(text: str, frame: types.FrameType) -> str:
    """Replace `{expression}` and `$name` by their values, as IPython does: all, or none."""
    names = {**frame.f_globals, **frame.f_locals}

    def value_of(match: re.Match[str]) -> str:
        whole, expression, name = match[0], match[1], match[2]
        return str(eval(expression or name, names)) if expression or name else whole[0]

    try:
        return re.sub(r"\{\{|\}\}|\$\$|\{([^{}]+)\}|\$([A-Za-z_][\w.]*)", value_of, text)
    except Exception:  # noqa: BLE001 - an expression of the user's, or a name of the shell's
        return text


def run(
    command: Any, *, shell: bool = False, is_merged: bool = False, text: str | None = None
) -> int:
    """Run a command, its output live, and return its exit code, -n for signal n."""
    import codecs
    import selectors
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as given:
        given.write((text or "").encode())
        given.seek(0)
        process = subprocess.Popen(
            command, shell=shell, stdin=given, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if is_merged else subprocess.PIPE,
        )  # fmt: skip
    with process, selectors.DefaultSelector() as selector:
        decoder = codecs.getincrementaldecoder("utf-8")
        for pipe, stream in ((process.stdout, "stdout"), (process.stderr, "stderr")):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ, (stream, decoder("replace")))
        while selector.get_map():
            for key, _ in selector.select():
                stream, decode = key.data
                data = os.read(key.fd, 1 << 16)
                getattr(sys, stream).write(decode.decode(data, not data))
                if not data:
                    selector.unregister(key.fileobj)
    return process.returncode


def say(text: str) -> None:
    print(text)  # noqa: T201 - a magic shows what it prints


def say_times(wall: float, cpu: os.times_result) -> None:
    import time

    spent, now = time.perf_counter() - wall, os.times()
    user, system = now.user - cpu.user, now.system - cpu.system
    say(f"CPU times: user {span(user)}, sys: {span(system)}, total: {span(user + system)}")
    say(f"Wall time: {span(spent)}")


def span(seconds: float) -> str:
    """Return a time as IPython writes it: three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
