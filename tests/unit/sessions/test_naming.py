"""The session that a word means."""

from __future__ import annotations

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.protocol.session_names import is_of_notebook
from lyceum_magic.runs.history import NOTEBOOK_VARIABLE
from lyceum_magic.sessions.naming import session_named


def key(
    word: str = "notebook",
    *,
    path: object = None,
    own: str = "process",
    is_attended: bool = True,
) -> str:
    namespace = {} if path is None else {"__vsc_ipynb_file__": path}
    return session_named(word, namespace, own=own, is_attended=is_attended).key


def test_a_notebook_has_a_session_of_its_own_and_a_copy_another() -> None:
    assert key(path="/a/work.ipynb", own="1") == key(path="/a/work.ipynb", own="2")
    assert key(path="/a/work.ipynb") == key(path="/a/../a/work.ipynb")
    assert key(path="/a/work.ipynb") != key(path="/a/copy.ipynb")
    assert is_of_notebook(key(path="/a/work.ipynb"))


def test_jupyter_names_the_notebook_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOTEBOOK_VARIABLE, "/a/work.ipynb")
    assert key() == key(path="/a/work.ipynb")
    named = session_named("notebook", {}, own="", is_attended=True)
    assert (named.title, named.shown(), named.shown("try")) == ("work.ipynb", "main", "try")


def test_a_kernel_that_no_user_attends_starts_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOTEBOOK_VARIABLE, "/a/work.ipynb")
    assert key(is_attended=False, own="1") != key(is_attended=False, own="2")
    assert key(is_attended=False) != key()
    assert key("train", is_attended=False) == "train"


def test_a_kernel_without_a_notebook_has_its_own() -> None:
    assert key(own="1") != key(own="2")
    assert key(path=7, own="1") == key(own="1")


def test_a_name_is_its_own_key() -> None:
    named = session_named("train", {}, own="", is_attended=True)
    assert (named.key, named.title, named.shown(), named.shown("try")) == (
        "train", "train", "train", "train/try",
    )  # fmt: skip


@pytest.mark.parametrize("word", ["", "Train", "../x", ".x", "a/b", "a" * 65, "a\n"])
def test_anything_else_is_no_name(word: str) -> None:
    with pytest.raises(OptionError, match="A session has a name of a-z"):
        key(word)
