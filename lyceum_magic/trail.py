"""The debug trail: one line at each border that a run's events cross, in every process on the way.

It is off unless the variable LYCEUM_MAGIC_LOG is `debug`. A line is

    time side run-id station key=value ...

    2026-11-30T20:55:34.123456Z supervisor 0f8e...c1 spool stream=stdout bytes=12 offset=25

The time is UTC, so that the sorted lines of several files are in order. The side is `client`,
`server` or `supervisor`. The run's id is `-` before there is one. Sizes are in bytes; `offset`,
`from`, `to` and `event` are places in the run's spool, which are its event ids. A line never holds
what a program wrote, a secret or a URL.

The stations, in the order of a run's life:

    server      accepted   the request is valid; its record comes next
    server      queued     the record is written, and the run waits for a slot
    server      started    a runner has the run, whose id stands in a record
    supervisor  up         the supervisor has taken the run over
    supervisor  program    the run's program begins
    server      running    the server has heard so
    supervisor  spool      the program wrote `bytes`; the spool ends at `offset` then, which stays
                           where it was if all of them are held back
    server      follow     a follower reads the events after `from`
    server      read       it has read the spool from one offset to another
    server      sent       so many bytes of frames went out to it
    server      left       the follower is gone, or has been told of the end
    supervisor  end        the end lies in the run's folder; the spool ends at `offset`
    server      end        the end is recorded
    server      outbox     the row of a callback is written, with the end
    server      attempt    a callback was tried; `status` is the answer's, if there was one
    client      opened     the stream is open; it goes on after the event `from`
    client      stream     an event came out of the stream
    client      journalled an event lies in the journal
    client      decoded    an event completed so many outputs; the rest waits for the next event
    client      handed     outputs or news went to the cells that show the run
    client      displayed  an output was given to the notebook
    client      left-out   text beyond a cell's limit was left out of the notebook

A server's lines go to its stderr, which is its log, and so do its supervisors'; a client names a
file. `run_lines` puts several files together again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import Literal

#: The variable that turns the trail on, and its value.
VARIABLE = "LYCEUM_MAGIC_LOG"
ON = "debug"

Side = Literal["client", "server", "supervisor"]

#: Whether `mark` writes. Loops that run for each event look at it first, which costs nothing.
is_on = os.environ.get(VARIABLE) == ON

_MAX_VALUE_CHARACTERS = 64
_STDERR = 2
_descriptor = _STDERR


def mark(side: Side, run_id: str, station: str, **facts: int | float | str | None) -> None:
    """Write one line, if the trail is on. Never raises: a full disk stops no run.

    Args:
        run_id: empty where the run has no id yet.
        facts: numbers, and words of this program. Anything else in a text, such as a space or a
            slash, becomes `?`, so that neither a line nor a URL gets in whole.
    """
    if not is_on:
        return
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    words = [f"{moment}.{nanoseconds // 1000:06d}Z", side, _plain(run_id) or "-", station]
    words += [f"{name.rstrip('_')}={_plain(value)}" for name, value in facts.items()]
    with contextlib.suppress(OSError):
        # One call into a file that is only appended to: lines of several processes stay whole.
        os.write(_descriptor, f"{' '.join(words)}\n".encode())


def write_to(target: str | os.PathLike[str] | int) -> None:
    """Choose where this process writes its lines; stderr until then.

    Args:
        target: a descriptor, which stays the caller's; or a file, for this user alone, which is
            made if need be and only appended to. One that cannot be opened leaves things as they
            were.
    """
    global _descriptor
    if isinstance(target, int):
        _descriptor = target
        return
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(OSError):
        _descriptor = os.open(target, flags, 0o600)


def run_lines(files: Iterable[str | os.PathLike[str]], run_id: str = "") -> list[str]:
    """Return the trail's lines from several files, oldest first, without their line ends.

    Args:
        files: a server's log holds other lines too, which are left out; a file that cannot be read
            counts as empty.
        run_id: only this run's lines; empty for all runs.
    """
    found = []
    for file in files:
        with contextlib.suppress(OSError), open(file, encoding="utf-8", errors="replace") as text:
            for line in text:
                words = line.split(" ", 3)
                is_ours = len(words) == 4 and words[1] in ("client", "server", "supervisor")
                if is_ours and run_id in ("", words[2]):
                    found.append(line.rstrip("\n"))
    return sorted(found, key=lambda line: line.split(" ", 1)[0])


def _plain(value: int | float | str | None) -> str:
    if not isinstance(value, str):
        return str(value)
    kept = value[:_MAX_VALUE_CHARACTERS]
    return "".join(c if c.isascii() and (c.isalnum() or c in "._:-") else "?" for c in kept)
