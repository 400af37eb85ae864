"""Values that are made once."""

from __future__ import annotations

import threading

import pytest

from lyceum_magic.runs.once import Once


def test_a_value_is_made_at_its_first_use_alone() -> None:
    made: list[str] = []
    once: Once[str, str] = Once()
    for key in ("a", "b", "a"):
        once.get(key, lambda key=key: made.append(key) or key)  # type: ignore[misc]
    assert (made, once.made()) == (["a", "b"], ["a", "b"])


def test_who_waits_for_another_thread_that_fails_makes_it_himself() -> None:
    once: Once[str, int] = Once()
    is_making, may_fail = threading.Event(), threading.Event()

    def fail() -> int:
        is_making.set()
        may_fail.wait()
        raise KeyboardInterrupt

    def first() -> None:
        with pytest.raises(KeyboardInterrupt):
            once.get("key", fail)

    thread = threading.Thread(target=first)
    thread.start()
    is_making.wait()
    results: list[int] = []
    waiting = threading.Thread(target=lambda: results.append(once.get("key", lambda: 1)))
    waiting.start()
    assert once.made() == []
    may_fail.set()
    thread.join()
    waiting.join()
    assert (results, once.made()) == ([1], [1])
