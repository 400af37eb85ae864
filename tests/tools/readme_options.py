"""The README's tables of options, made from the specs: `python -m tests.tools.readme_options`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import Field
from pathlib import Path
from typing import Any

from lyceum_magic.submission.option import Option, options_of, own_first
from lyceum_magic.submission.specs import ComposeSpec, ImageSpec, PythonSpec, RunSpec

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- options: python -m tests.tools.readme_options -->", "<!-- end of options -->"


def tables() -> str:
    """Return both tables, as Markdown."""
    of_python = {one.name for one, _ in options_of(PythonSpec)}
    of_stacks = {one.name for one, _ in options_of(ComposeSpec)}
    lines = ["| `%%lyceum` | `submit` | |", "| --- | --- | --- |"]
    lines += [_row(one, declared) for one, declared in _ordered(PythonSpec)]
    lines += ["", "Images and stacks have those that make sense for them, and these:", ""]
    lines += ["| `%%lyceum_image`, `%%lyceum_compose` | `submit_image`, `submit_compose` | |"]
    lines += ["| --- | --- | --- |"]
    for one, declared in _ordered(ImageSpec):
        if one.name not in of_python:
            lines.append(_row(one, declared, "" if one.name in of_stacks else "images: "))
    return "\n".join(lines)


def current() -> str:
    """Return the README as it is when its tables are made again."""
    marked = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    return marked.sub(lambda _: f"{BEGIN}\n\n{tables()}\n\n{END}", README.read_text("utf-8"))


def _ordered(kind: type[RunSpec]) -> list[tuple[Field[Any], Option]]:
    return sorted(own_first(kind), key=lambda item: item[0].name not in ("machine", "timeout_s"))


def _row(one: Field[Any], declared: Option, which: str = "") -> str:
    argument = f"`{one.name}`" if one.init else ""
    return f"| {', '.join(_flags(declared))} | {argument} | {which}{_text(one, declared)} |"


def _flags(declared: Option) -> Iterator[str]:
    choices = declared.argument.get("choices", ())
    value = "\\|".join(choices) or declared.argument.get("metavar", "")
    if declared.argument.get("nargs") == "?":
        value = f"[{value}]"
    elif "nargs" in declared.argument:
        value += " ..."
    for number, flag in enumerate(declared.flags):
        is_named = flag.startswith("-")
        shown = f"{flag} {value}".strip() if is_named else value
        yield f"`{shown if number == 0 else flag}`"
        if declared.argument.get("action") == "boolean":
            yield f"`{flag.replace('--', '--no-')}`"
    yield from (f"`{flag}`" for flag in declared.switches)


def _text(one: Field[Any], declared: Option) -> str:
    texts = [text for _, text in declared.switches.values()]
    text = "; ".join([*([declared.help] if declared.flags else []), *texts]) or declared.help
    if isinstance(one.default, str | int) and not isinstance(one.default, bool) and not texts:
        text += f" (default `{one.default}`)"
    return f"{text}. {declared.more.removesuffix('.')}".removesuffix(". ")


if __name__ == "__main__":
    README.write_text(current(), "utf-8")
