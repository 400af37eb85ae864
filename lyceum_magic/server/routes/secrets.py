"""`environment-variables/`: the account's secrets, which are set and listed but never read back.

Clients speak two dialects (`lyceum-api.md` 9): the official client sends a list of `name` and
`value` in an object, the documentation has `key`, `value` and `is_secret`, one or several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field

from ...protocol import paths
from ...protocol.times import iso
from ..account.secrets import (
    MAX_NAME,
    NAME_PATTERN,
    NewSecret,
    problem_of_name,
    problem_of_value,
)
from ..stores.base import SecretRecord
from .description import problems
from .parts import Secrets

_MAX_AT_ONCE = 100


def _usable_name(name: str) -> str:
    if problem := problem_of_name(name):
        raise ValueError(problem)
    return name


def _usable_value(value: str) -> str:
    if problem := problem_of_value(value):
        raise ValueError(problem)
    return value


class Variable(BaseModel):
    """One variable, in either dialect."""

    name: Annotated[
        str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME), AfterValidator(_usable_name)
    ] = Field(validation_alias=AliasChoices("name", "key"))
    value: Annotated[str, AfterValidator(_usable_value)] = Field(repr=False)
    is_secret: bool = True


class Variables(BaseModel):
    """Several variables, as the official client sends them."""

    environment_variables: list[Variable]


def _unwrapped(body: object) -> object:
    if not isinstance(body, dict):
        return body
    return body.get("environment_variables", [body])


def _different(variables: list[Variable]) -> list[Variable]:
    names = [variable.name for variable in variables]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"each variable may be set once in a request; {twice} comes twice")
    return variables


_Set = Annotated[
    list[Variable],
    Field(min_length=1, max_length=_MAX_AT_ONCE),
    AfterValidator(_different),
    BeforeValidator(_unwrapped, json_schema_input_type=Variables | Variable | list[Variable]),
]


router = APIRouter()


@router.get(paths.SECRETS)
async def list_variables(secrets: Secrets) -> dict[str, Any]:
    return _listed(await secrets.list())


@router.post(paths.SECRETS)
async def set_variables(body: Annotated[_Set, Body()], secrets: Secrets) -> dict[str, Any]:
    wanted = [NewSecret(item.name, item.value, item.is_secret) for item in body]
    return _listed(await secrets.put(wanted))


@router.delete(paths.secret("{secret_id}"), responses=problems(404))
async def remove_variable(secret_id: str, secrets: Secrets) -> dict[str, str]:
    await secrets.remove(secret_id)
    return {"message": "The environment variable was removed."}


@router.delete(paths.SECRETS)
async def remove_all_variables(secrets: Secrets) -> dict[str, str]:
    await secrets.remove_all()
    return {"message": "All environment variables were removed."}


def _listed(records: Sequence[SecretRecord]) -> dict[str, Any]:
    return {"environment_variables": [_shown(record) for record in records]}


def _shown(record: SecretRecord) -> dict[str, Any]:
    return {
        "id": record.secret_id,
        "name": record.name,
        "key": record.name,
        "value": "***",
        "is_secret": record.is_secret,
        "updated_at": iso(record.updated_at),
    }
