"""Hooks: one for each name, called once for each run, even if one of them fails."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest

import lyceum_magic
from lyceum_magic.runs.hooks import Hooks


@dataclass(frozen=True)
class Ended:
    id: str = "0123456789"


def test_a_hook_is_called_once_with_each_run() -> None:
    hooks, called = Hooks(), []
    hook = hooks.add(called.append)
    first, second = Ended("first"), Ended("second")
    hooks.note(first)
    hooks.note(second)
    assert called == []
    hooks.script_waits()
    hooks.script_waits()
    assert called == [first, second]
    hook(first)
    assert called == [first, second, first]


def test_a_function_of_the_same_name_takes_the_place_of_the_earlier() -> None:
    hooks, called = Hooks(), []

    def define(what: str):
        @hooks.add
        def done(run: Ended) -> None:
            called.append(what)

        return done

    define("old")
    hooks.note(Ended())
    define("new")
    hooks.script_waits()
    assert called == ["new"]


def test_functions_without_a_name_of_their_own_are_different() -> None:
    hooks, called = Hooks(), []
    hooks.add(lambda run: called.append(1))
    hooks.add(lambda run: called.append(2))
    hooks.add(functools.partial(lambda word, run: called.append(word), "three"))
    hooks.note(Ended())
    hooks.script_waits()
    assert called == [1, 2, "three"]


def test_off_holds_for_what_is_due_and_not_for_its_successor() -> None:
    hooks, called = Hooks(), []
    old = hooks.add(called.append)
    hooks.note(Ended())
    old.off()
    hooks.script_waits()
    assert called == []
    hooks.add(called.append)
    old.off()
    hooks.note(Ended())
    hooks.script_waits()
    assert len(called) == 1


def test_what_a_hook_raises_is_shown_and_stops_no_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hooks, called = Hooks(), []

    @hooks.add
    def bad(run: Ended) -> None:
        raise {"interrupted": KeyboardInterrupt(), "exits": SystemExit(3)}.get(
            run.id, ValueError("of the hook")
        )

    hooks.add(called.append)
    hooks.note(Ended())
    hooks.note(Ended("interrupted"))
    hooks.note(Ended("exits"))
    hooks.script_waits()
    said = capsys.readouterr().err
    assert "because run 01234567 has ended, raised\n" in said
    assert "ValueError: of the hook\n" in said
    assert "KeyboardInterrupt" in said
    assert "SystemExit: 3" in said
    assert "hooks.py" not in said.replace("test_hooks.py", "")
    assert len(called) == 3


def test_a_hook_that_waits_for_a_run_is_not_called_within_itself() -> None:
    hooks, called = Hooks(), []

    @hooks.add
    def waiting(run: Ended) -> None:
        called.append(run.id)
        if run.id == "first":
            hooks.note(Ended("of the hook"))
            hooks.script_waits()
            called.append("has waited")

    hooks.note(Ended("first"))
    hooks.script_waits()
    assert called == ["first", "has waited", "of the hook"]


def test_a_hook_is_a_function() -> None:
    with pytest.raises(TypeError, match="takes a function of one run, not 7"):
        Hooks().add(7)  # type: ignore[arg-type]


async def awaited(run: Ended) -> None: ...


class Awaited:
    async def __call__(self, run: Ended) -> None: ...


@pytest.mark.parametrize("function", [awaited, functools.partial(awaited), Awaited()])
def test_what_nobody_would_await_is_refused(function) -> None:
    with pytest.raises(TypeError, match="plain function"):
        Hooks().add(function)


def test_a_decorator_with_brackets_is_refused_in_a_sentence() -> None:
    with pytest.raises(TypeError, match=r"`@on_finish`, without \(\)"):
        lyceum_magic.on_finish()
