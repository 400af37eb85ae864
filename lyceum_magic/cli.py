"""The command `lyceum-magic`: one parser, and a function for each of its commands."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .exceptions import LyceumError
from .protocol.limits import MAX_TIMEOUT_S
from .protocol.lines import one_line
from .protocol.redaction import without_password

if TYPE_CHECKING:
    from .server.state_folder import ServerFile

    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

#: The variable with the URL of the package index for requirements, with its password if it has one.
INDEX_VARIABLE = "LYCEUM_MAGIC_INDEX_URL"

EXIT_ERROR = 1
EXIT_ALREADY_SERVED = 3
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

#: Profile -> what a key of the server is good for.
_POWER_OF_A_KEY = {
    "local": "Runs execute as this user: everyone who has a key can do what you can do.",
    "shared": "Everyone who has a key can start containers; Python runs are refused.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, and return the exit code. An error is one sentence on stderr."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
        return code
    except LyceumError as exc:
        _complain(str(exc))
        return EXIT_ERROR
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED


def _complain(text: str) -> None:
    print(f"lyceum-magic: {one_line(text)}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lyceum-magic", description="The Lyceum server of this machine, and what is around it."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands: _Commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = _add(commands, "serve", "serve Lyceum's API on this machine", _serve)
    _add_server_options(serve)
    _add_run_options(serve)

    demo = _add(commands, "demo", "run a notebook on the embedded server and show it", _demo)
    demo.add_argument("notebook", type=Path, metavar="NOTEBOOK")
    demo.add_argument(
        "--output-dir", type=Path, metavar="DIR", default=Path("build"),
        help="where the executed notebook and its HTML go (default: build)",
    )  # fmt: skip

    _add_notebook_options(_add(commands, "run", "run a notebook's cells on machines", _run))

    _add(commands, "doctor", "look for what could be wrong here", _doctor)

    keys = commands.add_parser("keys", help="keys of this environment's server for other clients")
    _add_key_actions(keys.add_subparsers(required=True, metavar="ACTION"))
    return parser


def _add(
    commands: _Commands, name: str, text: str, function: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text)
    parser.set_defaults(command=function)
    return parser


def _add_state_dir(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--state-dir", type=_folder, metavar="DIR", help=text)


# lyceum-magic serve


def _add_server_options(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--port", type=_port, metavar="N", help="where to listen (default: as last time)"
    )
    _add_state_dir(serve, "where records and output are kept")
    serve.add_argument(
        "--profile", choices=("local", "shared"), default="local",
        help="local: for yourself (default); shared: for others too, so containers only, and no "
        "stream without its secret or the key",
    )  # fmt: skip
    serve.add_argument(
        "--keep-days", type=_days, metavar="N", default=30,
        help="how long ended runs are kept (default: 30)",
    )  # fmt: skip
    serve.add_argument(
        "--keep-bytes", type=_size, metavar="SIZE", default="10G",
        help="how much ended runs may take on the disk; the oldest leave first (default: 10G)",
    )  # fmt: skip
    serve.add_argument(
        "--keep-session-days", type=_days, metavar="N", default=7,
        help="how long a session without kept cells stays after its last cell (default: 7)",
    )  # fmt: skip
    # For a process that starts a server on demand.
    serve.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--idle-exit", type=float, metavar="SECONDS", help=argparse.SUPPRESS)


def _add_run_options(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--max-running", type=_positive, metavar="N", default=8, help="runs at a time (default: 8)"
    )
    index = serve.add_mutually_exclusive_group()
    index.add_argument(
        "--index-url", metavar="URL",
        help=f"package index for requirements (default: ${INDEX_VARIABLE}, else uv's settings)",
    )  # fmt: skip
    index.add_argument(
        "--index-url-file", type=Path, metavar="FILE",
        help="a file that holds this URL, for one with a password: everybody on this machine can "
        "read command lines",
    )  # fmt: skip
    serve.add_argument("--find-links", metavar="DIR", help="folder of wheels for requirements")
    serve.add_argument(
        "--memory-limit", type=_memory_limit, metavar="BYTES",
        help="how much memory a Python run may use, such as 512M or 2G (default: no limit)",
    )  # fmt: skip
    serve.add_argument(
        "--allow-privileged", action="store_true",
        help="let stacks have privileged services, which are root on this machine",
    )  # fmt: skip


def _serve(options: argparse.Namespace) -> int:
    if sys.platform == "win32":
        raise LyceumError(
            "The embedded server does not run on Windows; use WSL, or Lyceum Cloud with "
            "`lyceum auth login`."
        )
    from .folders import earlier_server_folder, server_folder
    from .server.serve import serve
    from .server.settings import ServerSettings
    from .server.state_folder import AlreadyServed

    _log_to_stderr()
    state_dir = options.state_dir or server_folder()
    is_environments_own = state_dir == server_folder()
    if options.ready_fd is not None:
        # Programs started below must not hold it open: its end is what the starter waits for.
        os.set_inheritable(options.ready_fd, False)
    try:
        serve(
            ServerSettings(
                state_dir=state_dir,
                earlier=earlier_server_folder() if is_environments_own else None,
                port=options.port or 0,
                profile=options.profile,
                max_running=options.max_running,
                index_url=_index_url(options),
                find_links=options.find_links,
                memory_limit_bytes=options.memory_limit,
                allow_privileged=options.allow_privileged,
                keep_days=options.keep_days,
                keep_bytes=options.keep_bytes,
                keep_session_days=options.keep_session_days,
                idle_exit_s=options.idle_exit,
            ),
            lambda server: _announce(server, state_dir, options),
        )
    except AlreadyServed as exc:
        _complain(str(exc))
        return EXIT_ALREADY_SERVED
    return 0


def _log_to_stderr() -> None:
    import logging

    from .server.log import Repetitions

    log = logging.StreamHandler()
    log.addFilter(Repetitions())
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[log],
    )


def _announce(server: ServerFile, state_dir: Path, options: argparse.Namespace) -> None:
    """Say that the server listens, to the process that started it or to the user."""
    from .server.state_folder import server_file

    if options.ready_fd is not None:
        os.write(options.ready_fd, b"ready\n")
        os.close(options.ready_fd)
        return
    folder = "" if options.state_dir is None else f" --state-dir {shlex.quote(str(state_dir))}"
    print(
        f"Lyceum listens on {server.base_url}; Ctrl-C ends it, runs go on.\n"
        f"Its own key is in {server_file(state_dir)}. For the official client make another:\n"
        f"  lyceum-magic keys create NAME{folder}\n"
        f"  lyceum auth login --url {server.base_url} --manual\n"
        + _POWER_OF_A_KEY[options.profile],
        flush=True,
    )


def _index_url(options: argparse.Namespace) -> str | None:
    """Return the package index that the command line, a file or the environment names.

    Raises:
        LyceumError: the file cannot be read, or holds something else.
    """
    url: str | None = options.index_url
    if url is not None:
        if without_password(url) != url:
            _complain(
                "everybody on this machine can read the password in --index-url; use "
                f"--index-url-file, or {INDEX_VARIABLE} in the environment."
            )
        return url
    path: Path | None = options.index_url_file
    if path is None:
        return os.environ.get(INDEX_VARIABLE) or None
    try:
        url = path.expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = getattr(exc, "strerror", None) or "it is not UTF-8"
        raise LyceumError(f"--index-url-file {path} cannot be read: {why}.") from None
    if not url or len(url.split()) > 1:
        raise LyceumError(f"--index-url-file {path} should hold one URL, and nothing else.")
    return url


# lyceum-magic demo, doctor


def _demo(options: argparse.Namespace) -> int:
    from .embedded.demo import run_demo

    return 0 if run_demo(options.notebook, options.output_dir) else EXIT_ERROR


def _doctor(options: argparse.Namespace) -> int:
    from .magic.commands.doctor import examine

    print(examine())
    return 0


# lyceum-magic run


def _add_notebook_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("notebook", type=Path, metavar="NOTEBOOK", help="an ordinary notebook")
    run.add_argument(
        "-m", "--machine", default="cpu", metavar="NAME",
        help="machine to run on, such as cpu (default) or gpu.a100",
    )  # fmt: skip
    run.add_argument(
        "-t", "--timeout", dest="timeout_s", type=int, metavar="SECONDS", default=MAX_TIMEOUT_S,
        help=f"time limit of each cell (default: {MAX_TIMEOUT_S})",
    )  # fmt: skip
    run.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the executed notebook (default: NOTEBOOK.executed.ipynb beside it)",
    )
    run.add_argument(
        "--session", metavar="NAME",
        help="name of the new session, which is then kept for later cells",
    )  # fmt: skip
    run.add_argument(
        "-r", "--requirements", metavar="REQ", action="append", default=[],
        help="a requirement line ('numpy>=2') or a file of them; repeat it for more",
    )  # fmt: skip
    run.add_argument(
        "--file", dest="files", metavar="PATH", action="append", default=[],
        help="a data file or folder below the notebook's, to send along; repeat it for more",
    )  # fmt: skip
    place = run.add_mutually_exclusive_group()
    place.add_argument(
        "--local", dest="place", action="store_const", const="local", default="auto",
        help="run on the embedded server, even with an account",
    )  # fmt: skip
    place.add_argument(
        "--cloud", dest="place", action="store_const", const="cloud",
        help="run on the cloud, or fail",
    )  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    from .notebooks.execution import execute
    from .notebooks.file import read_notebook, write_notebook

    path = options.notebook.absolute()
    output = (options.output or path.with_suffix(".executed.ipynb")).absolute()
    notebook = read_notebook(options.notebook)
    # As Jupyter runs it: its modules and files are found from its folder.
    os.chdir(path.parent)
    sys.path.insert(0, str(path.parent))
    chosen = {
        name: getattr(options, name)
        for name in ("machine", "place", "timeout_s", "requirements", "files")
    }
    try:
        is_done = execute(notebook, path, name=options.session, say=_say, options=chosen)
    finally:
        write_notebook(notebook, output)
    _say(f"The executed notebook: {output}")
    return 0 if is_done else EXIT_ERROR


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# lyceum-magic keys


def _add_key_actions(actions: _Commands) -> None:
    create = _add(actions, "create", "make a key, and print it this once", _create_key)
    create.add_argument("name", metavar="NAME", help="what it is for")
    life = create.add_mutually_exclusive_group()
    life.add_argument(
        "--days", type=_life, metavar="N", default=30, help="how long it is good (default: 30)"
    )
    life.add_argument(
        "--no-expiry", dest="days", action="store_const", const=None,
        help="it is good until it is revoked",
    )  # fmt: skip
    listing = _add(actions, "list", "list the keys, without themselves", _list_keys)
    revoke = _add(actions, "revoke", "end a key for good", _revoke_key)
    revoke.add_argument("key", metavar="NAME|ID", help="its name, or its id or the id's beginning")
    for action in (create, listing, revoke):
        _add_state_dir(action, "the folder of a server that was started with --state-dir")


def _create_key(options: argparse.Namespace) -> int:
    from .embedded.keys import create

    key, note = create(options.name, options.days, options.state_dir)
    # The key alone on stdout, so that a script can take it from there.
    print(note, file=sys.stderr, flush=True)
    print(key.reveal())
    return 0


def _list_keys(options: argparse.Namespace) -> int:
    from .embedded.keys import listed

    print(listed(options.state_dir))
    return 0


def _revoke_key(options: argparse.Namespace) -> int:
    from .embedded.keys import revoke

    print(revoke(options.key, options.state_dir))
    return 0


# Values of options.


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _size(text: str) -> int:
    """Return a number of bytes, given as `512M`, `2G`, `2GiB` or without a unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    size = float(match[1]) * 1024 ** " kmgt".index(match[2] or " ") if match else 0
    if not 1 <= size < 2**63:
        raise argparse.ArgumentTypeError(f"a size is written like 512M or 2G, not {text!r}")
    return int(size)


def _memory_limit(text: str) -> int:
    size = _size(text)
    if size < 64 * 2**20:
        raise argparse.ArgumentTypeError("Python itself needs some: at least 64M")
    return size


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1
    if not 0 <= days <= 36_500:
        raise argparse.ArgumentTypeError(f"a number of days is expected, not {text!r}")
    return days


def _life(text: str) -> float:
    days = _days(text)
    if not days:
        raise argparse.ArgumentTypeError("a key is good for more than 0 days")
    return days


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return port


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
