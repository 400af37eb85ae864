"""The spec of a run -> the fields that every start request has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from ..exceptions import OptionError
from ..protocol.limits import TAG_KEY
from ..protocol.requests import Start
from ..protocol.surrogates import has_surrogates
from .callback_urls import check_callback_urls
from .option import options_of
from .specs import RunSpec

StartT = TypeVar("StartT", bound=Start)


def build_start(kind: type[StartT], spec: RunSpec, **fields: object) -> StartT:
    """Return the start request of a run.

    Args:
        kind: the class of the request.
        spec: the options; those that say so become the field of the wire that they name.
        fields: further fields, by the wire's names.

    Raises:
        OptionError: a value that the wire does not take, in one sentence.
    """
    names = {
        "user_callback_urls": "callback_urls", "docker_run_cmd": "command",
        "docker_run_env": "env", "docker_entrypoint": "entrypoint",
        "compose_file_code": "the Compose file",
    }  # fmt: skip
    if not isinstance(spec.metadata, Mapping | None):
        raise OptionError(f"{spec.called('metadata')} takes a dict, not {spec.metadata!r:.80}.")
    values: dict[str, object] = {
        "metadata": {**(spec.metadata or {}), TAG_KEY: spec.tag},
        "user_callback_urls": check_callback_urls(spec.callback_urls, here_too=True) or None,
    }
    for one, declared in options_of(spec):
        value = getattr(spec, one.name)
        if declared.wire and value is not None:
            names[declared.wire] = one.name
            values[declared.wire] = declared.to_wire(value) if declared.to_wire else value
    try:
        request = kind.model_validate({**values, **fields})
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_context=False)[0]
    else:
        for field, value in vars(request).items():
            if has_surrogates(value):
                raise OptionError(
                    f"{_called(spec, names.get(field, field))} holds half of a surrogate pair, "
                    "which cannot travel as text; take it out."
                )
        return request
    wire_name, *place = map(str, problem["loc"])
    where = ".".join([_called(spec, names.get(wire_name, wire_name)), *place])
    came = "" if wire_name in kind.sealed else f", not {problem['input']!r:.80}"
    raise OptionError(f"{where.removesuffix('.[key]')}: {problem['msg']}{came}.")


def _called(spec: RunSpec, name: str) -> str:
    """Return an option as its user writes it; a text that is no option's name as it is."""
    declared = {one.name: known for one, known in options_of(spec)}
    is_written = name in declared and (declared[name].label or not spec.is_cell)
    return spec.called(name) if is_written else name
