"""`%lyceum session`: the sessions of the account, their cells, and the way back to earlier ones.

All of it reads manifests, which are JSON: no variable is loaded in the notebook.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...client.api import Client
from ...client.sessions import Head, SessionFacts, SnapshotFacts
from ...display.tables import Says, Table
from ...exceptions import OptionError
from ...protocol.lines import one_line
from ...protocol.session_names import is_of_notebook, is_session_name
from ...protocol.sizes import in_words
from ...protocol.times import day_and_time
from ...runs.workspace import workspace
from ...sessions.manifest import Manifest, read_manifest
from ...sessions.naming import SessionName
from ...sessions.session import checkout, no_such_cell, snapshot_of
from ...sessions.steps import head_of
from ...submission.specs import OWN_SESSION
from ..parsing import Parser
from ..session_cell import session_meant
from . import Call

_WHICH = "a session's name (else this notebook's own session), and the number of a cell"


def add_arguments(parser: Parser) -> None:
    add_action = parser.subcommand_adder(
        title="actions", dest="action",
        metavar="list|show|diff|checkout|branch|keep|new|rm", required=True,
    )  # fmt: skip
    add_action("list", "the sessions of the account")
    parser.default = "list"
    for name, text in {
        "show": "the variables of a session, and what was not kept: [NAME] [CELL]",
        "checkout": "go back to an earlier cell, or forward again: [NAME] CELL",
        "keep": "spare a cell when older ones are removed: [NAME] [CELL]",
    }.items():
        below = add_action(name, text)
        below.add_argument("which", metavar="NAME CELL", nargs="*", help=_WHICH)
        if name == "keep":
            below.add_argument("--off", action="store_true", help="spare it no longer")
    diff = add_action("diff", "what changed between two cells: CELL, NAME or NAME:CELL, twice")
    diff.add_argument("a", metavar="A")
    diff.add_argument("b", metavar="B")
    branch = add_action("branch", "go on, on another branch, from the present cell")
    branch.add_argument("branch", metavar="BRANCH", help="a new name, or that of a branch")
    branch.add_argument("name", metavar="NAME", nargs="?", help="a session")
    new = add_action("new", "begin a session again, without variables")
    new.add_argument("name", metavar="NAME", nargs="?", help="a session")
    rm = add_action("rm", "remove a session with all its cells, or one of its branches")
    rm.add_argument("name", metavar="NAME")
    rm.add_argument("branch", metavar="BRANCH", nargs="?")


def run(call: Call) -> Says | Table | Shown:
    options = call.options
    found = _Sessions(call)
    match options.action:
        case "show":
            return found.show(*_which(options.which))
        case "diff":
            return found.diff(options.a, options.b)
        case "checkout":
            return found.checkout(*_which(options.which))
        case "keep":
            return found.keep(*_which(options.which), is_kept=not options.off)
        case "branch":
            return found.branch(options.branch, options.name)
        case "new":
            return found.new(options.name)
        case "rm":
            return found.remove(options.name, options.branch)
    return found.table()


class Shown:
    """Tables below each other, for a notebook and a terminal."""

    def __init__(self, *tables: Table) -> None:
        self._tables = [table for table in tables if table.rows] or tables[:1]

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self._tables))

    def _repr_html_(self) -> str | None:
        shown = [table._repr_html_() for table in self._tables]
        return None if None in shown else "".join(filter(None, shown))


class _Sessions:
    """The sessions of the account that cells of this notebook would use."""

    def __init__(self, call: Call) -> None:
        self._here = workspace()
        self._client: Client = self._here.client()
        self._default = call.defaults.session or OWN_SESSION

    def table(self) -> Table:
        rows = [row for facts in self._here.ask(self._client.sessions.all) for row in _rows(facts)]
        head = ["session", "title", "cell", "cells", "size", "changed", ""]
        return Table(head, rows, empty="no sessions; a cell with --session begins one")

    def show(self, word: str | None, cell: int | None) -> Shown:
        name = self._name(word)
        snapshot = self._snapshot(name, cell)
        manifest = self._manifest(name, snapshot)
        variables = [
            (v.name, v.type, v.lengths, in_words(v.size), v.text)
            for _, v in sorted(manifest.variables.items())
        ]
        variables += [(n, "module", "", "", m) for n, m in sorted(manifest.modules.items())]
        when = day_and_time(manifest.saved_at)
        title = f"session {name.shown(manifest.branch)} · cell {manifest.cell} · {when}"
        lost = [
            (variable, f"cell {at}", reason)
            for variable, (at, reason) in sorted(manifest.missing.items())
        ]
        files = [(path, in_words(size)) for path, size in sorted(manifest.files.items())]
        return Shown(
            Table(
                ["name", "type", "shape", "size", "value"],
                variables, title=title, empty="no variables",
            ),
            Table(["not kept", "after", "reason"], lost),
            Table(["file", "size"], files),
            self._cells(name) if cell is None else Table(["cell"], []),
        )  # fmt: skip

    def diff(self, first: str, second: str) -> Table:
        before, after = (self._manifest(*self._at(text)) for text in (first, second))
        names = sorted({*before.variables, *after.variables})
        rows = [
            (name, said) for name in names if (said := _change(name, before, after))
        ]  # fmt: skip
        title = f"from cell {before.cell} to cell {after.cell}"
        return Table(["name", "change"], rows, title=title, empty="the same variables")

    def checkout(self, word: str | None, cell: int | None) -> Says:
        if cell is None:
            raise OptionError("checkout takes the number of a cell: `%lyceum session checkout 3`.")
        name = self._name(word)
        branch = self._branch(name)
        checkout(self._here, self._client, name, branch, cell)
        return Says(
            f"Session {name.shown(branch)} is at cell {cell}: the next cell continues from there."
        )

    def keep(self, word: str | None, cell: int | None, *, is_kept: bool) -> Says:
        name = self._name(word)
        snapshot = self._snapshot(name, cell)
        sessions = self._client.sessions
        change = sessions.keep if is_kept else sessions.release
        self._here.ask(change, name.key, snapshot.id)
        does = "keeps" if is_kept else "no longer spares"
        return Says(f"Session {name.shown()} {does} cell {snapshot.cell}.")

    def branch(self, branch: str, word: str | None) -> Says:
        if not is_session_name(branch):
            raise OptionError(
                f"A branch has a name of a-z, 0-9, '.', '_' and '-', not {branch!r:.80}."
            )
        name = self._name(word)
        facts = self._facts(name)
        known = facts.branches.get(branch) if facts is not None else None
        if known is None:
            head = head_of(facts, name, self._branch(name))
            sessions = self._client.sessions
            self._here.ask(lambda: sessions.move(name.key, branch, before=None, to=head.id))
            known = head
        self._here.sessions.switch(name.key, branch)
        return Says(
            f"Cells of this notebook work on branch {branch} of session {name.shown()} from now "
            f"on, which is at cell {known.cell}."
        )

    def new(self, word: str | None) -> Says:
        name = self._name(word)
        branch = self._branch(name)
        facts = self._facts(name)
        head = None if facts is None else facts.branches.get(branch)
        if head is not None:
            sessions, before = self._client.sessions, head.id
            self._here.ask(lambda: sessions.move(name.key, branch, before=before, to=None))
        return Says(f"Session {name.shown(branch)} is empty: its next cell is its first.")

    def remove(self, word: str, branch: str | None) -> Says:
        name = self._name(word)
        if branch is None:
            self._here.ask(self._client.sessions.remove, name.key)
            self._here.sessions.forget(name.key)
            return Says(f"Session {name.shown()} is removed.")
        self._here.ask(self._client.sessions.remove_branch, name.key, branch)
        if branch == self._branch(name):
            self._here.sessions.forget(name.key)
        return Says(f"Branch {one_line(branch)} of session {name.shown()} is removed.")

    # Helpers.

    def _name(self, word: str | None) -> SessionName:
        return session_meant(self._default if word is None else word)

    def _branch(self, name: SessionName) -> str:
        return self._here.sessions.branch(name.key)

    def _facts(self, name: SessionName) -> SessionFacts | None:
        return self._here.ask(self._client.sessions.find, name.key)

    def _snapshot(self, name: SessionName, cell: int | None) -> Head | SnapshotFacts:
        """Return the snapshot of a cell; the head if `cell` is None."""
        branch = self._branch(name)
        head = head_of(self._facts(name), name, branch)
        if cell is None or cell == head.cell:
            return head
        snapshots = self._here.ask(self._client.sessions.snapshots, name.key)
        found = snapshot_of(snapshots, branch, cell, head)
        if found is None:
            raise no_such_cell(name, branch, cell)
        return found

    def _manifest(self, name: SessionName, snapshot: Head | SnapshotFacts) -> Manifest:
        return read_manifest(self._here.ask(self._client.sessions.manifest, name.key, snapshot))

    def _at(self, text: str) -> tuple[SessionName, Head | SnapshotFacts]:
        """Return the session and the snapshot that `CELL`, `NAME` or `NAME:CELL` means."""
        word, colon, number = text.rpartition(":")
        which = [word, number] if colon else [text]
        name, cell = _which(which)
        found = self._name(name)
        return found, self._snapshot(found, cell)

    def _cells(self, name: SessionName) -> Table:
        snapshots = self._here.ask(self._client.sessions.snapshots, name.key)
        rows = [
            (
                one.cell, one.branch, day_and_time(one.saved_at), f"{one.variables:,}",
                in_words(one.size), "kept" if one.is_kept else "",
            )
            for one in snapshots
        ]  # fmt: skip
        return Table(["cell", "branch", "saved", "variables", "size", ""], rows)


def _which(words: Sequence[str]) -> tuple[str | None, int | None]:
    """Return the name and the cell in `NAME CELL`, each of which may be missing.

    Raises:
        OptionError: there is something else.
    """
    numbers = [word for word in words if word.isdecimal()]
    names = [word for word in words if not word.isdecimal()]
    if len(numbers) > 1 or len(names) > 1:
        raise OptionError("Name one session and one cell: `%lyceum session show train 3`.")
    return (names[0] if names else None), (int(numbers[0][:9]) if numbers else None)


def _rows(facts: SessionFacts) -> list[tuple[object, ...]]:
    """Return the rows of one session: one for each branch."""
    title = facts.title if is_of_notebook(facts.key) else ""
    rows: list[tuple[object, ...]] = []
    heads: dict[str, Head | None] = {**facts.branches} or {"main": None}
    for branch, head in sorted(heads.items()):
        named = facts.key if branch == "main" else f"{facts.key}/{branch}"
        busy = (facts.busy or {}).get(branch)
        rows.append(
            (
                named, title, "–" if head is None else head.cell, facts.cells,
                in_words(facts.size), day_and_time(facts.updated_at),
                f"run {busy[:8]} works on it" if busy else "",
            )
        )  # fmt: skip
    return rows


def _change(name: str, before: Manifest, after: Manifest) -> str:
    """Return what became of a variable, in words; empty if it is the same."""
    old, new = before.variables.get(name), after.variables.get(name)
    if old is None and new is not None:
        return f"new: {new.type} {new.lengths}".rstrip()
    if old is not None and new is None:
        lost = after.lost.get(name)
        return f"not kept: {lost}" if lost else "gone"
    if old is None or new is None or before.digests.get(name) == after.digests.get(name):
        return ""
    was, now = (" ".join(filter(None, [v.type, v.lengths, v.text])) for v in (old, new))
    return f"{was} → {now}" if was != now else f"changed: {now}"
