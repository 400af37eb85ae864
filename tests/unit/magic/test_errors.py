"""Errors of the package look right when they leave a magic, and survive a pickle."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from lyceum_magic import exceptions
from lyceum_magic.exceptions import (
    ApiError,
    CellSyntaxError,
    LyceumError,
    OptionError,
    RunFailed,
    RunTimedOut,
)
from lyceum_magic.magic.errors import plainly


def family(kind: type[LyceumError]) -> Iterator[type[LyceumError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == exceptions.__name__:
            yield from family(child)


KINDS = list(family(LyceumError))


def made(kind: type[LyceumError]) -> LyceumError:
    if issubclass(kind, ApiError):
        return kind("refused", status_code=418, retry_after_s=2.5)
    if issubclass(kind, RunFailed):
        return kind("it failed", run_id="run", state="failed", return_code=3)
    return kind("it went wrong")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_shown", [False, True])
def test_every_error_survives_a_pickle(kind: type[LyceumError], is_shown: bool) -> None:
    error = made(kind)
    if is_shown:
        with pytest.raises(kind):
            plainly(_raise)(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    for name in ("status_code", "retry_after_s", "run_id", "state", "return_code", "reason"):
        assert getattr(again, name, None) == getattr(error, name, None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_drawn_in_the_tree(kind: type[LyceumError]) -> None:
    assert kind.__name__ in (exceptions.__doc__ or "") or kind is ApiError


def _raise(error: BaseException) -> None:
    raise error


def shown(error: BaseException) -> list[str]:
    render = error._render_traceback_  # type: ignore[attr-defined]
    return list(render())


def test_an_error_of_ours_is_shown_by_its_text_alone() -> None:
    with pytest.raises(RunTimedOut) as caught:
        plainly(_raise)(RunTimedOut("the time limit ended it", run_id="run", state="failed"))
    assert shown(caught.value) == ["RunTimedOut: the time limit ended it"]


def test_a_typing_error_is_shown_as_python_shows_it() -> None:
    def check() -> None:
        compile("x = 1\nfor for", "<cell>", "exec")

    with pytest.raises(CellSyntaxError) as caught:
        plainly(check)()
    assert shown(caught.value) == [
        '  File "<cell>", line 2',
        "    for for",
        "        ^^^",
        "SyntaxError: invalid syntax",
    ]
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug of ours")])
def test_what_is_not_ours_is_left_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        plainly(_raise)(error)
    assert caught.value is error
    assert not hasattr(error, "_render_traceback_")


def test_the_same_error_from_python_shows_the_users_own_frames() -> None:
    """The face of an error is set on the one exception that left a magic."""
    with pytest.raises(OptionError):
        plainly(_raise)(OptionError("one"))
    assert not hasattr(OptionError("two"), "_render_traceback_")
