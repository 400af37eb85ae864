"""Tab completion for `%%lyceum` and `%lyceum`: options, machines, subcommands, run ids."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..protocol.machines import MACHINES
from .options import cell_parser, line_parser

_CELL, _LINE = "%%lyceum", "%lyceum"


def complete(line: str, run_ids: Callable[[], list[str]]) -> list[str] | None:
    """What may follow `line`, which ends at the cursor in the word to complete.

    Args:
        run_ids: gives the ids to offer; asked only where an id belongs.

    Returns:
        Whole words; None where the line is not one of ours, and others should complete it.
    """
    words = line.split(" ")
    magic, *before, word = words if len(words) > 1 else [*words, ""]
    if len(words) < 2 or magic not in (_CELL, _LINE):
        return None
    if magic == _CELL:
        offers = _cell_offers(before)
    else:
        offers = _line_offers([part for part in before if part], run_ids)
    return [offer for offer in offers if offer.startswith(word)]


def _cell_offers(before: list[str]) -> list[str]:
    if before and before[-1] in ("-m", "--machine"):
        return list(MACHINES)
    action = cell_parser()._option_string_actions.get(before[-1]) if before else None
    if action is not None and action.nargs != 0:
        return []  # the option's value, which only the user knows
    return sorted(cell_parser()._option_string_actions, key=lambda name: name.lstrip("-"))


def _line_offers(before: list[str], run_ids: Callable[[], list[str]]) -> list[str]:
    (commands,) = (
        action
        for action in line_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    if not before:
        return sorted(commands.choices)
    parser = commands.choices.get(before[0])
    if parser is None:
        return []
    options = sorted(parser._option_string_actions)
    takes_id = any(action.dest == "id" for action in parser._actions)
    return [*options, *(["last", *run_ids()] if takes_id else [])]


def install(shell: Any, run_ids: Callable[[], list[str]]) -> None:
    """Adds the completion to an IPython shell, in the way its version knows."""
    completer = shell.Completer
    try:
        from IPython.core.completer import SimpleCompletion, context_matcher
    except ImportError:  # IPython before 8.6: a matcher of words, beside all others

        def match_words(text: str) -> list[str]:
            return complete(completer.line_buffer[: len(completer.text_until_cursor)],
                            run_ids) or []  # fmt: skip

        _replace(completer.custom_matchers, match_words)
        return

    @context_matcher()  # type: ignore[untyped-decorator]
    def match_line(context: Any) -> dict[str, Any]:
        offers = None
        if context.cursor_line == 0 or context.line_with_cursor.startswith(_LINE + " "):
            offers = complete(context.line_with_cursor[: context.cursor_position], run_ids)
        if offers is None:
            return {"completions": []}
        found = [SimpleCompletion(text=offer, type="magic") for offer in offers]
        # Python's own names have no place in a magic's line.
        return {"completions": found, "suppress": True}

    _replace(completer.custom_matchers, match_line)


def _replace(matchers: list[Any], matcher: Any) -> None:
    """Adds a matcher in place of the one that an earlier %load_ext or %reload_ext added."""
    matcher.is_lyceum = True
    matchers[:] = [known for known in matchers if not getattr(known, "is_lyceum", False)]
    matchers.append(matcher)
