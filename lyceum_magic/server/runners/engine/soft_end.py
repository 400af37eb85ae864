"""The end of a container as a terminal would ask for it: every program of a script gets SIGTERM.

An engine sends SIGTERM to process 1, which passes it on to one process alone. Where that is a
shell, as for `sh -c 'echo a; python3 train.py; echo b'`, the shell dies at once, and the engine
kills the program that should have saved its work.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from .engine import unless_over

if TYPE_CHECKING:
    from docker import DockerClient

#: Runs inside of the container. The script's shell is halted first: it would begin the script's
#: next command as soon as the present one has ended. Then all its programs get SIGTERM, but for
#: filters such as `cat` in `train.py | cat`, which end with their input and carry the programs'
#: last words. The line that it prints says that the engine may send the shell its own SIGTERM,
#: which stays pending: the shell gets it when all programs have ended.
_ASK_PROGRAMS = r"""
children_of() {
  children=
  for folder in /proc/[0-9]*; do
    { read -r stat <"$folder/stat"; } 2>/dev/null || continue
    set -- "$1" ${stat##*) }
    [ "$3" = "$1" ] && children="$children ${folder#/proc/}"
  done
}
oldest() { set -- $children; first=$1; for each; do [ "$each" -lt "$first" ] && first=$each; done; }
is_shell() {
  for folder in /bin /usr/bin /usr/local/bin; do
    for name in sh bash dash ash ksh zsh; do
      [ "/proc/$1/exe" -ef "$folder/$name" ] && return
    done
  done
  return 1
}
look() {
  left= asked=
  for folder in /proc/[0-9]*; do
    id=${folder#/proc/}
    { read -r stat <"$folder/stat"; } 2>/dev/null || continue
    name=${stat#*\(} name=${name%)*}
    set -- ${stat##*) }
    # Dead already; or entered from outside, as this shell; or what the script itself is part of.
    if [ "$1" = Z ] || [ "$2" = 0 ] || [ "$id" -le "$shell" ]; then continue; fi
    left="$left $id"
    case $name in
      cat|tee|grep|sed|awk|tr|cut|ts|head|tail|sort|uniq) [ -p "$folder/fd/0" ] && continue ;;
    esac
    asked="$asked $id"
  done
}
is_ended_by_engine() {
  while read -r key mask; do
    case $key$mask in ShdPnd:*[4567cdef]???) return ;; esac
  done <"/proc/$shell/status"
  return 1
}
parent=1
while :; do
  children_of "$parent"
  oldest
  [ -n "$first" ] || exit
  is_shell "$first" && break
  read -r name <"/proc/$first/comm"
  case $name in tini*|dumb-init|catatonit|docker-init) parent=$first ;; *) exit ;; esac
done
shell=$first
kill -STOP "$shell"
look
[ -n "$asked" ] && kill -TERM $asked 2>/dev/null
echo
while look; [ -n "$left" ] || ! is_ended_by_engine; do sleep 0.1; done
kill -CONT "$shell"
"""


def end_softly(client: DockerClient, container_id: str, grace_s: float) -> None:
    """Send SIGTERM to a container's programs, and SIGKILL after `grace_s` seconds.

    Returns when it has ended; one that has ended, or is gone, is no error.
    """
    with unless_over():
        if _has_programs_of_its_own(client.api.inspect_container(container_id)["HostConfig"]):
            _ask_programs(client, container_id)
        # The engine itself keeps the time, also where this process dies meanwhile.
        client.api.stop(container_id, timeout=math.ceil(grace_s))


def _has_programs_of_its_own(host: dict[str, Any]) -> bool:
    """Return whether the processes that a shell sees there are the container's, below our init."""
    return bool(host.get("Init")) and not host.get("PidMode")


def _ask_programs(client: DockerClient, container_id: str) -> None:
    from docker.errors import APIError

    # An image without a shell runs no script.
    with contextlib.suppress(APIError):
        execution = client.api.exec_create(container_id, ["sh", "-c", _ASK_PROGRAMS], stderr=False)
        for _ in client.api.exec_start(execution["Id"], stream=True):
            break
