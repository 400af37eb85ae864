"""YAML as Compose reads it: a text in, its value and the lines of its keys out.

Compose's own parser knows fewer types than YAML 1.1, and takes no key twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..base import EngineUnavailable

if TYPE_CHECKING:
    import yaml

_MAX_VALUES = 100_000


def read_yaml(text: str) -> Any:
    """Return the value of a text, its aliases written out.

    Raises:
        ValueError: it is not YAML, or too much of it: what to say of the file, as in "is not valid
            YAML: ...", with line and column if they are known.
        EngineUnavailable: PyYAML is not installed.
    """
    try:
        import yaml
    except ModuleNotFoundError as exc:
        raise EngineUnavailable(
            "Stacks need the extra `containers`: pip install 'lyceum-magic[containers]'."
        ) from exc
    try:
        content = yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join((exc.problem or exc.context or "it cannot be read").split())
        raise ValueError(f"is not valid YAML: {problem}{where}") from exc
    except yaml.reader.ReaderError as exc:
        before = text[: exc.position]
        line, column = before.count("\n") + 1, exc.position - before.rfind("\n")
        sentence = f"is not valid YAML: {exc.reason} in line {line}, column {column}"
        raise ValueError(sentence) from exc
    except RecursionError as exc:
        raise ValueError("is nested too deeply") from exc
    except (ValueError, AttributeError, LookupError) as exc:
        # PyYAML's own errors, of values that their tags do not fit: `!!timestamp hello`, or an
        # integer of thousands of digits.
        raise ValueError("is not valid YAML: a value does not fit its type") from exc
    _check_size(content)
    return content


def line_of(text: str, place: Sequence[str]) -> int | None:
    """Return the line in which the keys lead to a value, or to the last of them that exists.

    Args:
        text: one that `read_yaml` takes.
        place: the keys, from the outermost on; numbers for the entries of lists.
    """
    import yaml

    try:
        node = yaml.compose(text, Loader=_loader())
    except yaml.YAMLError:
        return None
    line = None
    for key in place:
        for number, (name, value) in enumerate(_children(node)):
            if key in (name.value if name is not None else "", str(number)):
                node, line = value, (name or value).start_mark.line + 1
                break
        else:
            break
    return line


def _children(node: yaml.Node | None) -> list[tuple[yaml.ScalarNode | None, yaml.Node]]:
    """Return the values in a mapping with their keys, or in a list."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
    if isinstance(node, yaml.SequenceNode):
        return [(None, value) for value in node.value]
    return []


def _loader() -> type[yaml.SafeLoader]:
    """Return a loader that reads scalars as Compose does: `22:22`, `yes` and dates are texts."""
    import yaml

    class Loader(yaml.SafeLoader):
        # Not those of YAML 1.1, which the class above has.
        yaml_implicit_resolvers = {}  # noqa: RUF012 - add_implicit_resolver() fills it

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"the key `{key.value}` is there twice", key.start_mark
                        )
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    for name, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)", list("-+0123456789")),
        (
            "float",
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
            list("-+.0123456789"),
        ),
        ("merge", r"<<", ["<"]),
    ):
        Loader.add_implicit_resolver(
            f"tag:yaml.org,2002:{name}", re.compile(rf"(?:{pattern})\Z"), first
        )
    return Loader


def _check_size(content: object) -> None:
    """Refuse a small file that aliases make large, or endless."""
    left = [content]
    for _ in range(_MAX_VALUES):
        if not left:
            return
        value = left.pop()
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    raise ValueError(f"holds more than {_MAX_VALUES} values once its aliases are written out")
