"""Tab completion for the magics: options, machines, subcommands, run ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..protocol.machines import MACHINES

if TYPE_CHECKING:
    from .parsing import Parser

_LINE = "%lyceum"


def complete(line: str, run_ids: Callable[[], list[str]]) -> list[str] | None:
    """What may follow `line`, which ends at the cursor in the word to complete.

    Args:
        run_ids: gives the ids to offer; asked only where an id belongs.

    Returns:
        Whole words; None where the line is not one of ours, and others should complete it.
    """
    words = line.split(" ")
    magic, *before, word = words if len(words) > 1 else [*words, ""]
    if len(words) < 2 or not magic.startswith(_LINE[:1]):
        return None
    # Loading the extension has to cost next to nothing, so the parsers are made at their first use.
    from .commands import line_parser
    from .options import CELL_PARSERS

    before = [part for part in before if part]
    if magic == _LINE:
        offers = _line_offers(line_parser(before), before, run_ids)
    elif parser := CELL_PARSERS.get(magic.removeprefix("%").removeprefix("%")):
        offers = _cell_offers(parser(), before)
    else:
        return None
    return [offer for offer in offers if offer.startswith(word)]


def _cell_offers(parser: Parser, before: list[str]) -> list[str]:
    if before and before[-1] in ("-m", "--machine"):
        return list(MACHINES)
    if "--cmd" in before:
        return []  # what follows is another program's line
    option = parser.options.get(before[-1]) if before else None
    if option is not None and option.nargs != 0:
        return list(option.choices or ())  # else the option's value, which only the user knows
    return sorted(parser.options, key=lambda name: name.lstrip("-"))


def _line_offers(parser: Parser, before: list[str], run_ids: Callable[[], list[str]]) -> list[str]:
    if parser.subcommands:
        default = parser.subcommands.get(parser.default or "")
        if not before:
            also = [] if default is None else _line_offers(default, [], run_ids)
            return [*sorted(parser.subcommands), *also]
        below = parser.subcommands.get(before[0])
        return [] if below is None else _line_offers(below, before[1:], run_ids)
    takes_id = any(argument.dest == "id" for argument in parser.positionals)
    return [*sorted(parser.options), *(["last", *run_ids()] if takes_id else [])]


def install(shell: Any, run_ids: Callable[[], list[str]]) -> None:
    """Adds the completion to an IPython shell, in the way its version knows."""
    completer = shell.Completer
    try:
        from IPython.core.completer import SimpleCompletion, context_matcher
    except ImportError:  # IPython before 8.6: a matcher of words, beside all others

        def match_words(text: str) -> list[str]:
            return complete(completer.line_buffer[: len(completer.text_until_cursor)],
                            run_ids) or []  # fmt: skip

        _add(shell, match_words)
        return

    @context_matcher()  # type: ignore[untyped-decorator]
    def match_line(context: Any) -> dict[str, Any]:
        offers = None
        if context.cursor_line == 0 or context.line_with_cursor.startswith(_LINE):
            offers = complete(context.line_with_cursor[: context.cursor_position], run_ids)
        if offers is None:
            return {"completions": []}
        found = [SimpleCompletion(text=offer, type="magic") for offer in offers]
        # Python's own names have no place in a magic's line.
        return {"completions": found, "suppress": True}

    _add(shell, match_line)


def remove(shell: Any) -> None:
    """Take the completion out of an IPython shell; not being there is no error."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [known for known in matchers if not getattr(known, "is_lyceum", False)]


def _add(shell: Any, matcher: Any) -> None:
    remove(shell)  # an earlier %load_ext may have added one
    matcher.is_lyceum = True
    shell.Completer.custom_matchers.append(matcher)
