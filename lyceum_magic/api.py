"""The same way as a cell, from Python: in a notebook, a script, or inside a running loop."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, cast

import anyio

from .config import Secret
from .exceptions import OptionError
from .journal.journal import Entry
from .protocol.limits import MAX_TIMEOUT_S, MIN_TIMEOUT_S
from .protocol.lines import one_line
from .protocol.redaction import HiddenText, hidden_urls
from .protocol.requests import EntryPoint, Start
from .runs.accounts import Place
from .runs.hooks import Hook
from .runs.run import Run
from .runs.workspace import workspace
from .submission.compose_request import compose_request
from .submission.files import read_files, sizes_of
from .submission.image_request import image_request, shell_command
from .submission.inputs import check_load, check_outputs, check_raw, pack_values
from .submission.installs import take_installs
from .submission.python_request import python_request
from .submission.registry import RegistryFields, aws_account, basic_account
from .submission.source import code_of
from .submission.start import Choices
from .submission.wrapping import for_server

P = ParamSpec("P")


def submit(
    code: str,
    machine: str = "cpu",
    *,
    timeout_s: int = MAX_TIMEOUT_S,
    requirements: str | Sequence[str] = (),
    auto_requirements: bool = True,
    name: str | None = None,
    labels: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    callback_urls: str | Sequence[str] = (),
    inputs: Mapping[str, object] | None = None,
    outputs: str | Sequence[str] = (),
    allow_pickle: bool = False,
    files: str | Sequence[str] = (),
    save: str | Sequence[str] = (),
    raw: bool = False,
    check: bool = True,
    place: str = "auto",
    budget: float | None = None,
) -> Run:
    """Starts Python code on Lyceum and returns as soon as the server has accepted it.

    Args:
        code: what a cell would hold below its `%%lyceum` line.
        machine: a name that `%lyceum machines` lists.
        timeout_s: time limit, 1 to 600 seconds.
        requirements: a requirement line or the path of a requirements file, or several of them.
        auto_requirements: whether to add what the code imports.
        name, labels, metadata: kept with the run, for lists and look-ups.
        callback_urls: https URLs that are told of the run's end; "here" is this process, see
            `Run.wait_callback`.
        inputs: name -> value, for the code's namespace; at most 10 MiB together with `files`.
        outputs: names of the values to bring back, as `run.values`.
        allow_pickle: let values travel that only a pickle can carry.
        files: paths of files or folders at or below the current folder, to send along.
        save: patterns of the files that the code writes, to bring back as `run.files`.
        raw: send the code as it is.
        check: compile the code here first.
        budget: the most that the run may cost, in dollars; shortens the time limit.
        place: "local" (embedded server), "cloud", or "auto" as the credentials say.

    Returns:
        The run: `run.result()` or `await run` waits for its end.

    Raises:
        OptionError, SyntaxError: nothing was started.
        LyceumError: it could not be started.
    """
    callback_urls = hidden_urls(callback_urls)  # first: tracebacks show arguments
    if not isinstance(code, str):
        raise OptionError(f"code takes the text of a cell, not a {type(code).__name__}.")
    choices = _choices(machine, timeout_s, name, labels, metadata, callback_urls)
    if raw:
        check_raw({"inputs": inputs, "outputs": outputs, "files": files, "save": save})
    notes: list[str] = []
    code = code_of(code, check=check, raw=raw, first_line=1)
    named = [requirements] if isinstance(requirements, str) else [*requirements]
    if not raw:
        code, installs = take_installs(code)
        named += installs
    packed = pack_values(inputs or {}, allow_pickle=allow_pickle)
    sent = read_files(_several("files", files))
    check_load({**packed.sizes, **sizes_of(sent)}, may_be_large=True)
    wanted = _several("outputs", outputs)
    check_outputs(code, wanted, packed.packed)
    patterns = _several("save", save)
    request = python_request(
        code,
        choices,
        requirements=named,
        auto_requirements=auto_requirements,
        raw=raw,
        inputs=packed,
        outputs=wanted,
        allow_pickle=allow_pickle,
        files=sent,
        save=patterns,
        first_line=1,
        note=notes.append,
    )
    return _start(request, place, budget, allow_pickle=allow_pickle, notes=notes)


def submit_image(
    image: str,
    command: str | Sequence[str] | None = None,
    machine: str = "cpu",
    *,
    timeout_s: int = MAX_TIMEOUT_S,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    entrypoint: EntryPoint | None = None,
    init: bool = True,
    s3: bool = True,
    s3_path: str = "/mnt/s3",
    registry: str | None = None,
    registry_user: str | None = None,
    registry_password: str | None = None,
    aws_region: str | None = None,
    graceful_timeout_s: int | None = None,
    name: str | None = None,
    labels: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    callback_urls: str | Sequence[str] = (),
    place: str = "auto",
    budget: float | None = None,
) -> Run:
    """Starts a Docker image on Lyceum and returns as soon as the server has accepted it.

    Args:
        image: as `docker run` takes it.
        command: a text is a script for the image's shell, `sh -c`; a list is a program and its
            arguments; None is the image's own command.
        machine, timeout_s, name, labels, metadata, callback_urls, place, budget: as for `submit`.
        env: variables of the container. `%lyceum secrets` keeps those that are secret.
        user: who runs the command there: a name, "1000" or "1000:1000".
        entrypoint: "keep" gives an entry point of the image the command as its arguments, as
            `docker run` does; "skip" leaves it out; "auto" leaves it out where it would not run the
            command. None is "auto" for a script, and "keep" for a list.
        init: whether a small init is process 1, which passes signals on. Images with an init of
            their own, such as s6-overlay, need False. Both are known to be honoured by the embedded
            server alone.
        s3: whether the account's storage is mounted, at `s3_path`.
        registry: "basic" signs in with `registry_user` and `registry_password`; "aws" with the keys
            that boto3 finds here, for a registry in `aws_region`.
        graceful_timeout_s: seconds between SIGTERM and SIGKILL when it is stopped, 1 to 300.

    Returns:
        The run: `run.result()` or `await run` waits for its end.

    Raises:
        OptionError: nothing was started.
        LyceumError: it could not be started.
    """
    callback_urls = hidden_urls(callback_urls)  # as in `submit`, and the password
    registry_password = registry_password and HiddenText(registry_password)
    request = image_request(
        image,
        shell_command(command, first_line=1) if isinstance(command, str) else command,
        _choices(machine, timeout_s, name, labels, metadata, callback_urls),
        env=env,
        user=user,
        entry_point=entrypoint or ("auto" if isinstance(command, str) else None),
        init=init,
        s3=s3,
        s3_path=s3_path,
        graceful_timeout_s=graceful_timeout_s,
        registry=_registry(registry, registry_user, registry_password, aws_region),
    )
    return _start(request, place, budget)


def submit_compose(
    file: str | Path,
    machine: str = "cpu",
    *,
    timeout_s: int = MAX_TIMEOUT_S,
    s3: bool = False,
    registry: str | None = None,
    registry_user: str | None = None,
    registry_password: str | None = None,
    aws_region: str | None = None,
    graceful_timeout_s: int | None = None,
    name: str | None = None,
    labels: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    callback_urls: str | Sequence[str] = (),
    place: str = "auto",
    budget: float | None = None,
) -> Run:
    """Starts a Docker Compose stack on Lyceum and returns as soon as the server has accepted it.

    Args:
        file: the text of a Compose file, or the `Path` of one.
        s3: whether the account's storage is mounted in its services.
        others: as for `submit_image`.

    Returns:
        The run: it ends when every service has ended that no other one depends on and that has no
        restart policy, or `on-failure`.

    Raises:
        OptionError: nothing was started.
        LyceumError: it could not be started.
    """
    callback_urls = hidden_urls(callback_urls)
    registry_password = registry_password and HiddenText(registry_password)
    file_name = "compose.yaml"
    if isinstance(file, Path):
        file_name = file.name
        try:
            file = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            why = getattr(exc, "strerror", None) or "it is not UTF-8"
            raise OptionError(f"{file_name} cannot be read: {why}.") from None
    request = compose_request(
        file,
        _choices(machine, timeout_s, name, labels, metadata, callback_urls),
        file_name=file_name,
        s3=s3,
        graceful_timeout_s=graceful_timeout_s,
        registry=_registry(registry, registry_user, registry_password, aws_region),
    )
    return _start(request, place, budget)


def _without_blocking(
    function: Callable[P, Run], name: str
) -> Callable[P, Coroutine[Any, Any, Run]]:
    """Return the form of a starting function that a coroutine awaits."""

    @functools.wraps(function)
    async def start(*args: P.args, **kwargs: P.kwargs) -> Run:
        _hide(kwargs)  # tracebacks show arguments
        started: list[Run] = []
        is_wanted = True

        def begin() -> Run:
            run = function(*args, **kwargs)
            started.append(run)
            if not is_wanted:
                run.request_abort("its start was cancelled")
            return run

        try:
            # A start packs values, finds modules, and may start a server: up to some seconds.
            return await anyio.to_thread.run_sync(begin, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            is_wanted = False
            for run in started:
                run.request_abort("its start was cancelled")
            raise

    start.__name__ = start.__qualname__ = name
    start.__doc__ = (
        f"Start a run as `{function.__name__}` does, for coroutines: the event loop goes on.\n\n"
        "    Arguments, result and errors are the same. It works under asyncio and trio. A run\n"
        "    whose start is cancelled is aborted.\n    "
    )
    return start


def _hide(arguments: dict[str, Any]) -> None:
    if "callback_urls" in arguments:
        arguments["callback_urls"] = hidden_urls(arguments["callback_urls"])
    if isinstance(password := arguments.get("registry_password"), str):
        arguments["registry_password"] = HiddenText(password)


submit_async = _without_blocking(submit, "submit_async")
submit_image_async = _without_blocking(submit_image, "submit_image_async")
submit_compose_async = _without_blocking(submit_compose, "submit_compose_async")


def _choices(
    machine: str,
    timeout_s: int,
    name: str | None,
    labels: Sequence[str],
    metadata: Mapping[str, str] | None,
    callback_urls: Sequence[str],
) -> Choices:
    if not isinstance(timeout_s, int) or not MIN_TIMEOUT_S <= timeout_s <= MAX_TIMEOUT_S:
        raise OptionError(
            f"timeout_s takes {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S} seconds, not {timeout_s!r}."
        )
    return Choices(machine, timeout_s, name, labels, metadata, callback_urls)


def _registry(
    kind: str | None, user: str | None, password: str | None, region: str | None
) -> RegistryFields | None:
    if kind not in (None, "basic", "aws"):
        raise OptionError(f'registry takes "basic" or "aws", not {kind!r}.')
    if kind != "basic" and (user is not None or password is not None):
        raise OptionError('registry_user and registry_password belong to registry="basic".')
    if kind != "aws" and region is not None:
        raise OptionError('aws_region belongs to registry="aws".')
    if kind == "aws":
        return aws_account(region)
    if kind == "basic" and not (user and password):
        raise OptionError('registry="basic" needs registry_user and registry_password.')
    return basic_account(user, password) if user and password else None


def _start(
    request: Start,
    place: str,
    budget: float | None,
    *,
    allow_pickle: bool = False,
    notes: Sequence[str] = (),
) -> Run:
    _check_place(place)
    if budget is not None and not (isinstance(budget, int | float) and 0 < budget < math.inf):
        raise OptionError(f"budget takes dollars such as 0.50, not {budget!r}.")
    here = workspace()
    client = here.client(cast(Place, place))
    if not client.account.is_embedded:
        for sentence in [*notes, *request.cloud_remarks]:
            warnings.warn(one_line(sentence), stacklevel=3)
    request = for_server(request, client.account.bootstrap)
    return here.submit(client, request, budget=budget, allow_pickle=allow_pickle)


def _several(what: str, texts: str | Sequence[str]) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise OptionError(f"{what} takes texts, not {text!r:.80}.")
    return texts


def runs() -> list[Entry]:
    """Every run of this user that the journal holds, newest first."""
    return workspace().history.entries()


def attach(run_id: str = "last") -> Run:
    """A run of this user by its id, a unique beginning of it, or "last", and follows it on.

    The `tag` of an entry of `runs` does, too: of a run whose start was not answered no more is
    known. The server is asked for it then, and waiting for it says what came of that.

    Raises:
        UnknownRun: there is none, or more than one.
    """
    return workspace().attach(run_id)


def signing_secret(place: str = "auto") -> Secret:
    """What the callbacks of your runs are signed with, for `lyceum_magic.callbacks.verify`.

    Its `reveal()` gives the text, `whsec_...`.

    Args:
        place: as for `submit`.

    Raises:
        LyceumError: the server cannot be asked, or signs nothing: Lyceum Cloud does not.
    """
    _check_place(place)
    here = workspace()
    return here.ask(here.client(cast(Place, place)).callbacks.signing_secret).secret


def _check_place(place: str) -> None:
    if place not in ("auto", "local", "cloud"):
        raise OptionError(f'place takes "auto", "local" or "cloud", not {place!r}.')


def on_finish(function: Callable[[Run], object] | None = None) -> Hook:
    """Calls a function with each run of this process that ends from now on, once.

    It is called on the main thread, never in the middle of a cell: in a notebook at once where its
    kernel is idle, else behind the cell, and what it shows appears in the cell that named it here
    (with nbclient and papermill in the one that has just ended); in a terminal behind the next
    cell; in a script when its main thread waits for a run. What it raises is shown, and breaks
    nothing. A function of the same name takes its place, so that a cell can be run again. To be
    used as a decorator, too.

    Returns:
        The function, with `off()`, which ends this.

    Raises:
        TypeError: it is no function, or an `async def`.
    """
    if function is None:
        raise TypeError(
            "on_finish takes a function of one run; as a decorator it is `@on_finish`, without ()"
        )
    return workspace().hooks.add(function)


def nest_loops() -> None:
    """Lets synchronous calls run inside a coroutine of the same event loop (nest-asyncio2).

    Nothing here needs it: calls wait for a loop on a thread of its own. It is for users whose own
    code has to re-enter their running loop. It changes asyncio in this process for good.
    """
    import nest_asyncio2

    nest_asyncio2.apply()
