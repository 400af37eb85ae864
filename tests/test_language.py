"""The language of the package, its documents and its tests: plain English, as CONTRIBUTING.md says.

Checked are docstrings, comments, the package's messages, the documents, and the notebooks' text.
What stands in `backquotes` or in a block of code is left alone.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Room -> number of passages that are not in plain English yet. A number may only shrink; a room
#: without an entry has none. Empty is the aim.
REMAINING: dict[str, int] = {}

#: First words that turn a docstring into a riddle.
OPENERS = re.compile(
    r"(?:what|who|where|when)(?:ever)?|whose|how|of|as|whether|which|so", re.IGNORECASE
)

#: First words that tell of an act, in place of naming it: "Returns", not "Return". Ruff's D401
#: would also refuse noun phrases ("The run's id"), which the style allows.
DESCRIPTIONS = re.compile(
    r"""(?:add|append|ask|assert|begin|bind|build|close|collect|compare|compile|count|create|decode
    |delete|encode|ensure|execute|exit|fill|find|follow|format|gather|generate|get|give|handle|hold|i
    |join|keep|listen|load|look|make|open|pack|parse|post|prepare|print|put|raise|read|receive
    |refuse|register|reject|release|remove|rename|render|replace|report|reset|restore|return|sample
    |save|say|see|select|send|serve|set|show|sign|skip|sleep|split|strip|take|tell|travel|turn
    |unpack|update|use|validate|wait|walk|wrap|write|yield)s(?!:)
    |(?:appli|copi|do|fetch|go|pass|publish|switch|tri)es|has|verifies
    |(?:answer|call|check|end|kill|lock|log|mark|move|note|record|run|start|stop
    |store|test)s(?!:)(?![ ](?:and|are|as|at|for|from|in|of|on|that|which|whose|with|without)\b)""",
    re.IGNORECASE | re.VERBOSE,
)

#: Words and turns that the style refuses -> the way out.
REFUSED = {
    r"\banew\b": "again",
    r"\bwhoever\b|\bnobody\b|\bsomebody\b": "name the actor: the client, the server, the user",
    r"\bshall\b": "must, or the present tense",
    # But left behind, lagging behind, behind a proxy; and a table of that name.
    r"(?<!left )(?<!lags )(?<!falls )(?<!stays )(?<!table )(?<!from )(?<!update )"
    r"\bbehind\b(?! (?:an? |the )?(?:\w+ )?(?:proxy|proxies|firewall)\b)": "after",
    r"\bso (?:many|much|often|long)\b(?! (?:as|that|so)\b)"
    r"|\b(?:that|this) (?:many|much)\b(?= (?:of|bytes|lines|runs|seconds|times)\b|[.,;:)]|$)": (
        "at most, at least, or the number"
    ),
    r"\bnone there\b": "not found",
}
#: "leave the same files behind", with the words between made invisible.
LEFT_BEHIND = r"\b(?:leav(?:e|es|ing)|left)(?: \w+){1,4} behind\b"


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern, whose spaces may be ends of lines."""
    return re.compile(pattern.replace(" ", "[ \n]"), re.IGNORECASE)


REFUSED_RE = {compiled(pattern): advice for pattern, advice in REFUSED.items()}
LEFT_BEHIND_RE = compiled(LEFT_BEHIND)
CODE_BLOCK = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
IN_BACKQUOTES = re.compile(r"(`+)[^`]+\1")


@dataclass(frozen=True)
class Passage:
    """A piece of text of a file: where it begins, and whether it is a docstring."""

    path: Path
    line: int
    text: str
    is_docstring: bool = False

    def faults(self) -> Iterator[str]:
        """The refused words of the text, each with its place and the way out."""
        text = re.sub(r"\n[\s:]+", lambda blank: "\n" * blank[0].count("\n"), self.text)
        text = IN_BACKQUOTES.sub(lambda span: "\n" * span[0].count("\n") + "``", text)
        text = LEFT_BEHIND_RE.sub(lambda turn: turn[0].replace("behind", "over"), text)
        if self.is_docstring:
            yield from self._opening_faults(text.lstrip(": \n"))
        for pattern, advice in REFUSED_RE.items():
            for found in pattern.finditer(text):
                yield self._at(text.count("\n", 0, found.start()), f"{found[0]!r}: {advice}")

    def _opening_faults(self, text: str) -> Iterator[str]:
        for pattern, advice in (
            (OPENERS, "open with a verb or a noun phrase"),
            (DESCRIPTIONS, "use the imperative"),
        ):
            if (found := pattern.match(text)) and re.match(r"[^\w'’]|$", text[found.end() :]):
                yield self._at(0, f"opens with {found[0]!r}: {advice}")

    def _at(self, lines_down: int, fault: str) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line + lines_down}: {fault}"


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def is_message(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value


def python_passages(path: Path) -> Iterator[Passage]:
    """The docstrings and comments of a module, and a package's strings of several words."""
    source = path.read_text("utf-8")
    docstrings: set[ast.expr] = set()
    for node in ast.walk(ast.parse(source)):  # a function comes before its docstring
        if isinstance(node, DOCUMENTED):
            if ast.get_docstring(node, clean=False) is not None:
                docstrings.add(node.body[0].value)
        elif node in docstrings:
            yield Passage(path, node.lineno, node.value, is_docstring=True)
        elif is_message(node) and "tests" not in path.parts:
            yield Passage(path, node.lineno, node.value)
    yield from comments(path, source)


def comments(path: Path, source: str) -> Iterator[Passage]:
    """The comments of a module; lines that follow each other are one passage."""
    block: list[tokenize.TokenInfo] = []
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    for token, following in zip(tokens, [*tokens[1:], None], strict=False):
        block.append(token)
        if following is None or following.start != (token.start[0] + 1, token.start[1]):
            text = "\n".join(part.string.removeprefix("#") for part in block)
            # `#:` documents a constant, as a docstring does a function.
            yield Passage(path, block[0].start[0], text, text.startswith(":"))
            block = []


def document_passages(path: Path) -> Iterator[Passage]:
    """The text of a Markdown file, a script or a style sheet, without its blocks of code."""
    text = path.read_text("utf-8")
    yield Passage(path, 1, CODE_BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text))


def notebook_passages(path: Path) -> Iterator[Passage]:
    """The Markdown cells of a notebook; the line is the cell's number."""
    for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"], 1):
        if cell["cell_type"] == "markdown":
            text = CODE_BLOCK.sub("", "".join(cell["source"]))
            yield Passage(path, number, text.replace("\n", " "))


READERS = {".py": python_passages, ".ipynb": notebook_passages}
FILES = [
    path
    for folder in ("lyceum_magic", "tests", "notebooks", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".ipynb", ".md", ".js", ".css"}
    and path != Path(__file__)  # names what it refuses
    and ".ipynb_checkpoints" not in path.parts
] + [*ROOT.glob("*.md"), ROOT / "Makefile"]


def room_of(path: Path) -> str:
    """`lyceum_magic/server/app.py` -> `server`; `tests/unit/server/test_app.py` -> the folder."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "lyceum_magic":
        return parts[1].removesuffix(".py")
    return "/".join(parts[:-1][: 3 if parts[:2] == ("tests", "unit") else 2]) or parts[0]


@cache
def faults() -> dict[str, list[str]]:
    """Room -> its faults, over all files."""
    found = defaultdict(list)
    for path in sorted(FILES):
        for passage in READERS.get(path.suffix, document_passages)(path):
            found[room_of(path)] += passage.faults()
    return dict(found)


@pytest.mark.parametrize("room", sorted({room_of(path) for path in FILES}))
def test_room_is_in_plain_english(room):
    found = faults().get(room, [])
    assert len(found) <= REMAINING.get(room, 0), "\n".join(found)


def test_rooms_still_to_be_cleaned_exist():
    assert set(REMAINING) - {room_of(path) for path in FILES} == set()


@pytest.mark.parametrize(
    ("text", "is_docstring", "refused"),
    [
        ("The run's id.", True, False),
        ("Return the run's id.", True, False),
        ("Returns the run's id.", True, True),
        ("What the run is called.", True, True),
        ("What's new.", True, False),
        ("Raises: OptionError if the file is missing.", True, False),
        ("Runs of the stack.", True, False),
        ("Names that many packages share.", True, False),
        ("Return once that many have come, or that much.", True, True),
        ("Runs the stack.", True, True),
        ("Run the stack.", True, False),
        ("Issue a key.", True, False),
        ("Asks nothing of the user.", False, False),
        (": Of so many bytes.", True, True),
        ("It is sent anew.", False, True),
        ("Nobody is asked.", False, True),
        ("The line behind the frame.", False, True),
        ("The files that it left behind.", False, False),
        ("Leave the same files behind.", False, False),
        ("A machine behind an inspecting proxy.", False, False),
        ("It waits for so many seconds.", False, True),
        ("It waits so long that the run ends.", False, False),
        ("Use `shall` in no docstring.", False, False),
    ],
)
def test_riddles_are_found(text, is_docstring, refused):
    passage = Passage(ROOT / "README.md", 1, text, is_docstring)
    assert bool(list(passage.faults())) == refused
