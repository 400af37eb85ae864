"""The same way as a cell, from Python: in a notebook, a script, or inside a running loop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import cast

from .exceptions import OptionError
from .protocol.limits import MAX_TIMEOUT_S, MIN_TIMEOUT_S
from .runs.journal import Entry
from .runs.run import Run
from .session import Place, session
from .submission.files import read_files, sizes_of
from .submission.inputs import check_load, check_outputs, check_raw, pack_values
from .submission.request import python_request
from .submission.source import code_of


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
    if place not in ("auto", "local", "cloud"):
        raise OptionError(f'place takes "auto", "local" or "cloud", not {place!r}.')
    if not isinstance(code, str):
        raise OptionError(f"code takes the text of a cell, not a {type(code).__name__}.")
    if not isinstance(timeout_s, int) or not MIN_TIMEOUT_S <= timeout_s <= MAX_TIMEOUT_S:
        raise OptionError(
            f"timeout_s takes {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S} seconds, not {timeout_s!r}."
        )
    if budget is not None and not (isinstance(budget, int | float) and 0 < budget < math.inf):
        raise OptionError(f"budget takes dollars such as 0.50, not {budget!r}.")
    if raw:
        check_raw({"inputs": inputs, "outputs": outputs, "files": files, "save": save})
    notes: list[str] = []
    code = code_of(code, check=check, raw=raw, first_line=1)
    packed = pack_values(inputs or {}, allow_pickle=allow_pickle)
    sent = read_files(_several("files", files))
    check_load({**packed.sizes, **sizes_of(sent)}, may_be_large=True)
    wanted = _several("outputs", outputs)
    check_outputs(code, wanted, packed.packed)
    patterns = _several("save", save)
    request = python_request(
        code,
        machine=machine,
        timeout_s=timeout_s,
        requirements=[requirements] if isinstance(requirements, str) else requirements,
        auto_requirements=auto_requirements,
        name=name,
        labels=labels,
        metadata=metadata,
        raw=raw,
        inputs=packed,
        outputs=wanted,
        allow_pickle=allow_pickle,
        files=sent,
        save=patterns,
        first_line=1,
        note=notes.append,
    )
    here = session()
    client = here.client(cast(Place, place))
    if not client.account.is_embedded:
        for sentence in notes:
            warnings.warn(sentence, stacklevel=2)
    return here.submit(client, request, budget=budget, allow_pickle=allow_pickle)


def _several(what: str, texts: str | Sequence[str]) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise OptionError(f"{what} takes texts, not {text!r:.80}.")
    return texts


def runs() -> list[Entry]:
    """Every run of this user that the journal holds, newest first."""
    return session().entries()


def attach(run_id: str = "last") -> Run:
    """A run of this user by its id, a unique beginning of it, or "last", and follows it on.

    Raises:
        UnknownRun: there is none, or more than one.
    """
    return session().attach(run_id)


def nest_loops() -> None:
    """Lets synchronous calls run inside a coroutine of the same event loop (nest-asyncio2).

    Nothing here needs it: calls wait for a loop on a thread of its own. It is for users whose own
    code has to re-enter their running loop. It changes asyncio in this process for good.
    """
    import nest_asyncio2

    nest_asyncio2.apply()
