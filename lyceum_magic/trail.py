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
    server      spawned    an interpreter is started by itself; `why` says why none was forked
    supervisor  up         the supervisor has taken the run over
    supervisor  program    the run's program begins
    server      running    the server has heard so
    supervisor  spool      the program wrote `bytes`; the spool ends at `offset` then, which stays
                           where it was if all of them are held back
    supervisor  written    a record of `bytes`, masked, lies in the spool, which ends at `offset`
    server      follow     a follower reads the events after `from`
    server      read       it has read `records` of `bytes` of text, from one offset to another
    server      encoded    those records became `events` of `bytes` of text
    server      sent       events of `size` went out to it
    server      left       the follower is gone, or has been told of the end
    supervisor  end        the end lies in the run's folder; the spool ends at `offset`
    server      end        the end is recorded
    server      outbox     the row of a callback is written, with the end
    server      attempt    a callback was tried; `status` is the answer's, if there was one
    client      opened     the stream is open; it goes on after the event `from`
    client      stream     an event of a `kind` came out of the stream, with `bytes` of text
    client      journalled an event lies in the journal
    client      decoded    an event of `bytes` completed `items`, with `text` bytes of text; what is
                           not complete waits for the next event
    client      handed     items, or news of the run, went to the cells that show the run: `to`
    client      displayed  an output was given to the notebook
    client      left-out   text beyond a cell's limit was left out of the notebook

`bytes` is text in UTF-8 at every station. It is the same from `written` to `decoded`, but for bytes
that are no UTF-8: from `encoded` on they are U+FFFD. `losses` compares the sums.

A server's lines go to its stderr, which is its log, and so do its supervisors'; a client names a
file. `run_lines` puts several files together again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

#: The variable that turns the trail on, and its value.
VARIABLE = "LYCEUM_MAGIC_LOG"
ON = "debug"

Side = Literal["client", "server", "supervisor"]

#: True if `mark` writes. Loops that run for each event look at it first, which costs nothing.
is_on = os.environ.get(VARIABLE) == ON

#: The stations that sums of bytes are compared at.
_BORDERS = (
    "spool", "written", "read", "encoded", "stream", "journalled", "decoded", "handed",
    "displayed", "left-out",
)  # fmt: skip

_MAX_VALUE_CHARACTERS = 64
_STDERR = 2
_descriptor = _STDERR

#: The run of this process, if it is a supervisor.
own_run = ""


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


class Border(NamedTuple):
    """The sums of one station, over the lines of one run."""

    lines: int = 0
    size: int = 0
    text: int = 0


def borders(lines: Iterable[str]) -> dict[str, Border]:
    """Return station -> sums of `bytes` and `text`, in the order of a run's life."""
    found = dict.fromkeys(_BORDERS, Border())
    for line in lines:
        _, _, _, station, *facts = line.split(" ")
        if station in found:
            amounts = {
                name: int(n) for name, _, n in (f.partition("=") for f in facts) if n.isdigit()
            }
            size, text = amounts.get("bytes", 0), amounts.get("text", 0)
            before = found[station]
            found[station] = Border(before.lines + 1, before.size + size, before.text + text)
    return found


def losses(lines: Sequence[str]) -> list[str]:
    """Return a sentence for each border at which text of one run went missing.

    The run is over, and one client has followed it from its beginning to its end: otherwise the
    sums differ without a loss.
    """
    sums = borders(lines)
    amounts = [(name, sums[name].size) for name in _BORDERS[1:7]]
    amounts += [("decoded, as text", sums["decoded"].text), ("handed", sums["handed"].text)]
    # What no client followed was not lost.
    reached = [(name, size) for name, size in amounts if sums[name.partition(",")[0]].lines]
    return [
        f"{before - after:,} bytes of text did not come from `{last}` to `{name}`."
        for (last, before), (name, after) in pairwise(reached)
        if after < before and name != "decoded, as text"
    ]


def _plain(value: int | float | str | None) -> str:
    if not isinstance(value, str):
        return str(value)
    kept = value[:_MAX_VALUE_CHARACTERS]
    return "".join(c if c.isascii() and (c.isalnum() or c in "._:-") else "?" for c in kept)
