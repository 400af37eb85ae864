"""The program's stdout and stderr: live when it is slow, cheap when it is fast."""

from __future__ import annotations

import atexit
import builtins
import io
import sys
from threading import Event, Thread, current_thread
from time import monotonic, sleep

QUIET_S = 0.010
#: Maximum seconds that a write waits for the other stream's reader.
PATIENCE_S = 0.05
#: Seconds in which no write waits, after one has waited in vain.
IMPATIENT_S = 1.0
LEAVES_THE_PROCESS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "subprocess.Popen",
}


class Turns:
    """The order of stdout and stderr: they arrive as they were written.

    They are two pipes, and a reader that finds both filled cannot know which was first. So before
    one is written to, the other must have been read; mostly it has.
    """

    def __init__(self) -> None:
        self._last = 0
        self._patient_at = 0.0

    def take(self, descriptor: int) -> None:
        """Wait for the other stream's reader, before a write to stdout (1) or stderr (2)."""
        last, self._last = self._last, descriptor
        if last and last != descriptor and monotonic() >= self._patient_at:
            self._wait_until_read(last)

    def _wait_until_read(self, descriptor: int) -> None:
        try:
            import fcntl
            import termios
        except ImportError:  # the interpreter is ending
            return
        until = monotonic() + PATIENCE_S
        left = bytearray(4)
        try:
            while fcntl.ioctl(descriptor, termios.FIONREAD, left) == 0 and any(left):
                if monotonic() > until:
                    # The reader is slow: a program that takes turns must not be slowed by it.
                    self._patient_at = until + IMPATIENT_S
                    return
                sleep(0.00005)
        except OSError:  # closed, or nothing that can be asked
            return


turns = Turns()


def without_surrogates(text: str) -> str:
    """Return the text as a notebook shows it: with U+FFFD for halves of surrogate pairs.

    Python makes such halves of the bytes of a file name that is not UTF-8.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # a half that stands for no byte
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class LiveStdout(io.TextIOWrapper):
    """A stdout that sends lines at once, and gathers text only in a flood.

    A line is written immediately if nothing was written in the last 10 ms; faster text waits for
    the flusher thread, 10 ms at most. So a slow program is live, and a fast one does not make two
    system calls for each print.
    """

    def __init__(self, descriptor: int) -> None:
        raw = io.FileIO(descriptor, "w", closefd=False)
        super().__init__(io.BufferedWriter(raw, 1 << 16), "utf-8", "strict", "\n")
        self._quiet_since = 0.0
        self._held = False
        self._is_ending = False
        self._reset_flusher()

    def _reset_flusher(self) -> None:
        self._flusher: Thread | None = None
        self._wake = Event()
        self._leave = Event()

    def write(self, text: str) -> int:
        try:
            count = super().write(text)
        except UnicodeEncodeError:
            count = super().write(without_surrogates(text))
        if (
            self._is_ending
            or (text[-1:] == "\n" and monotonic() - self._quiet_since >= QUIET_S)
            or builtins.len is not len  # replaced by the cell: `start` and `set` would hang or fail
        ):
            self._drain()
        elif not self._held:
            self._held = True
            if self._flusher is None:
                flusher = Thread(target=self._flush_late, daemon=True)
                flusher.start()
                self._flusher = flusher
            self._wake.set()
        return count

    def flush(self) -> None:
        self._drain()

    def _drain(self) -> None:
        """Flush, independently of `flush`, which the cell may have replaced."""
        self._held = False
        turns.take(1)
        super().flush()
        self._quiet_since = monotonic()

    def _flush_late(self) -> None:
        while not self._leave.is_set():
            self._wake.wait()
            self._wake.clear()
            self._leave.wait(QUIET_S)
            if self._held:
                self._drain()

    def settle(self) -> None:
        """Write the held text and end the flusher: a fork must find neither text nor thread.

        (Python 3.12 and later warn when a process with more than one thread forks.)
        """
        if self._held:
            self._drain()
        if self._flusher is not None and self._flusher is not current_thread():
            self._leave.set()
            self._wake.set()
            self._flusher.join(1)
            self._reset_flusher()

    def end(self) -> None:
        """Let every write leave at once from now on.

        An interpreter that ends still prints the text of destructors, but cannot start a thread:
        up to Python 3.11 the attempt waits for ever.
        """
        self._is_ending = True
        self.settle()


class LiveStderr(io.TextIOWrapper):
    """An unbuffered stderr that lets stdout go first, so that both arrive in their order."""

    def __init__(self, descriptor: int, stdout: LiveStdout) -> None:
        raw = io.FileIO(descriptor, "w", closefd=False)
        super().__init__(raw, "utf-8", "strict", "\n", write_through=True)
        self._stdout = stdout

    def write(self, text: str) -> int:
        if self._stdout._held:
            self._stdout._drain()
        turns.take(2)
        try:
            return super().write(text)
        except UnicodeEncodeError:
            return super().write(without_surrogates(text))


#: The streams that were installed, even if the program has replaced them since.
installed: list[io.TextIOWrapper] = []


def install_streams() -> None:
    sys.stdout.flush()
    stdout = LiveStdout(1)
    stderr = LiveStderr(2, stdout)
    installed[:] = [stdout, stderr]
    sys.stdout = sys.__stdout__ = stdout  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = stderr  # type: ignore[misc]
    atexit.register(stdout.end)

    def settle_before(event: str, _args: tuple[object, ...]) -> None:
        if event in LEAVES_THE_PROCESS:
            stdout.settle()

    sys.addaudithook(settle_before)


def flush_all() -> None:
    """Write the text that the streams hold."""
    for stream in installed:
        try:
            type(stream).flush(stream)
        except ValueError:  # the program has closed it, and so has nothing left to print there
            continue
