"""Runs from Python: in a notebook, a script, or inside a running event loop."""

from __future__ import annotations

import functools
import inspect
import textwrap
import warnings
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import anyio

from .config import Secret
from .exceptions import OptionError
from .journal.journal import Entry
from .protocol.lines import one_line
from .protocol.redaction import HiddenText, hidden_urls
from .protocol.requests import Start
from .runs.accounts import Place
from .runs.hooks import Hook
from .runs.run import Run
from .runs.workspace import workspace
from .submission.compose_request import compose_request
from .submission.image_request import command_of, image_request
from .submission.option import one_of, options_of
from .submission.python_request import prepare_python
from .submission.registry import aws_account
from .submission.specs import ComposeSpec, ContainerSpec, ImageSpec, PythonSpec, RunSpec
from .submission.wrapping import for_server

P = ParamSpec("P")
SpecT = TypeVar("SpecT", bound=RunSpec)


def _starts(kind: Callable[P, SpecT]) -> Callable[[Callable[[SpecT], Run]], Callable[P, Run]]:
    """Return a decorator: a function of a spec becomes one of the spec's options.

    Its signature and the list of its arguments are made from the spec, so that both are complete.
    """

    def decorate(start: Callable[[SpecT], Run]) -> Callable[P, Run]:
        @functools.wraps(start)
        def submit(*args: P.args, **kwargs: P.kwargs) -> Run:
            _hide(kwargs)  # tracebacks show arguments
            try:
                signature.bind(*args, **kwargs)
            except TypeError as exc:
                raise TypeError(f"{start.__name__}() {exc}") from None
            spec = kind(*args, **kwargs)
            spec.validate()
            return start(spec)

        signature = inspect.signature(kind).replace(return_annotation=Run)
        submit.__signature__ = signature  # type: ignore[attr-defined]
        summary, rest = inspect.cleandoc(start.__doc__ or "").split("\n\n", 1)
        submit.__doc__ = f"{summary}\n\n{_arguments_of(kind)}\n\n{rest}"
        del submit.__wrapped__  # its signature is another
        return submit

    return decorate


def _arguments_of(kind: Any) -> str:
    """Return the section of a docstring that describes the arguments of a starting function."""
    lines = ["Args:"]
    for one, declared in options_of(kind):
        if one.init:
            text = f"{one.name}: {declared.doc or declared.help}."
            lines += textwrap.wrap(text, 96, initial_indent="    ", subsequent_indent=" " * 8)
    return "\n".join(lines)


@_starts(PythonSpec)
def submit(spec: PythonSpec) -> Run:
    """Start Python code on Lyceum and return as soon as the server has accepted it.

    Returns:
        The run: `run.result()` or `await run` waits for its end.

    Raises:
        OptionError, SyntaxError: nothing was started.
        LyceumError: it could not be started.
    """
    prepared = prepare_python(spec)
    return _start(spec, prepared.request, prepared.notes, allow_pickle=spec.allow_pickle)


@_starts(ImageSpec)
def submit_image(spec: ImageSpec) -> Run:
    """Start a Docker image on Lyceum and return as soon as the server has accepted it.

    Returns:
        The run: `run.result()` or `await run` waits for its end.

    Raises:
        OptionError: nothing was started.
        LyceumError: it could not be started.
    """
    return _start(spec, image_request(spec, command_of(spec), **_keys(spec)))


@_starts(ComposeSpec)
def submit_compose(spec: ComposeSpec) -> Run:
    """Start a Docker Compose stack on Lyceum and return as soon as the server has accepted it.

    Returns:
        The run: it ends when every service has ended that no other one depends on and that has no
        restart policy, or `on-failure`.

    Raises:
        OptionError: nothing was started.
        LyceumError: it could not be started.
    """
    return _start(spec, compose_request(spec, **_keys(spec)))


def _keys(spec: ContainerSpec) -> dict[str, Any]:
    return aws_account(spec.aws_region) if spec.registry == "aws" else {}


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


def _start(
    spec: RunSpec, request: Start, notes: Sequence[str] = (), *, allow_pickle: bool = False
) -> Run:
    here = workspace()
    client = here.client(cast(Place, spec.place))
    if not client.account.is_embedded:
        for sentence in [*notes, *request.cloud_remarks]:
            warnings.warn(one_line(sentence), stacklevel=4)
    request = for_server(request, client.account.bootstrap)
    return here.submit(client, request, budget=spec.budget, allow_pickle=allow_pickle)


def runs() -> list[Entry]:
    """Return every run of this user that the journal holds, newest first."""
    return workspace().history.entries()


def attach(run_id: str = "last") -> Run:
    """Return a run of this user by its id, a unique beginning of it, or "last", and follow it.

    The `tag` of an entry of `runs` also names a run. A run whose start was not answered has no id:
    the server is asked for it by its tag, and waiting for it says what the server answered.

    Raises:
        UnknownRun: no run has this id, or more than one does.
    """
    return workspace().attach(run_id)


def signing_secret(place: str = "auto") -> Secret:
    """Return the secret that signs your runs' callbacks, for `lyceum_magic.callbacks.verify`.

    Its `reveal()` gives the text, `whsec_...`.

    Args:
        place: as for `submit`.

    Raises:
        LyceumError: the server cannot be reached, or does not sign, as Lyceum Cloud.
    """
    if problem := one_of("auto", "local", "cloud")(place):
        raise OptionError(f"place {problem}.")
    here = workspace()
    return here.ask(here.client(cast(Place, place)).callbacks.signing_secret).secret


def on_finish(function: Callable[[Run], object] | None = None) -> Hook:
    """Call a function once with each run of this process that ends from now on.

    It is called on the main thread, never in the middle of a cell: in a notebook at once if the
    kernel is idle, else after the cell; in a terminal after the next cell; in a script when the
    main thread waits for a run. Its outputs appear in the cell that registered it (with nbclient
    and papermill in the cell that has just ended). Its errors are shown, and break nothing. A
    function of the same name replaces it, so that a cell can be run again. It is a decorator too.

    Returns:
        The function, with a method `off()` that ends the calls.

    Raises:
        TypeError: it is not a function, or it is an `async def`.
    """
    if function is None:
        raise TypeError(
            "on_finish takes a function of one run; as a decorator it is `@on_finish`, without ()"
        )
    return workspace().hooks.add(function)


def nest_loops() -> None:
    """Let synchronous calls run inside a coroutine of the same event loop (nest-asyncio2).

    This package does not need it: its calls wait for a loop on another thread. It is for code of
    your own that re-enters a running loop. It changes asyncio in this process for good.
    """
    import nest_asyncio2

    nest_asyncio2.apply()
