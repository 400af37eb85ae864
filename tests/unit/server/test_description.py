"""The served OpenAPI description of each start agrees with Lyceum's reference pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol import paths

from .serving import serving

pytestmark = pytest.mark.anyio

REQUIRED = object()
TEXT, NUMBER, FLAG, TEXTS = "string", "integer", "boolean", ["string"]
MACHINE = {"pattern": "^[a-zA-Z0-9_.]+$"}
LIMIT = {"minimum": 1, "maximum": 600}
GRACE = {"minimum": 1, "maximum": 300}

#: Field -> type, whether it may be null, default, and what else limits it.
Field = tuple[Any, bool, Any, dict[str, Any]]

EVERY_KIND: dict[str, Field] = {
    "timeout": (NUMBER, False, 60, LIMIT),
    "file_name": (TEXT, True, None, {}),
    "user_callback_urls": (TEXTS, True, None, {}),
    # The official client sends these; no reference page lists them.
    "run_name": (TEXT, True, None, {}),
    "labels": (TEXTS, True, None, {"maxItems": 64}),
    "metadata": ({"string": "string"}, True, None, {"maxProperties": 64}),
}
REGISTRY: dict[str, Field] = {
    "docker_registry_credential_type": (TEXT, True, None, {"enum": ["aws", "basic"]}),
    "aws_access_key_id": (TEXT, True, None, {}),
    "aws_secret_access_key": (TEXT, True, None, {}),
    "aws_session_token": (TEXT, True, None, {}),
    "aws_region": (TEXT, True, "us-east-1", {}),
    "docker_username": (TEXT, True, None, {}),
    "docker_password": (TEXT, True, None, {}),
    "graceful_timeout": (NUMBER, True, None, GRACE),
}
STARTS: dict[str, dict[str, Field]] = {
    paths.START_PYTHON: {
        **EVERY_KIND,
        "code": (TEXT, False, REQUIRED, {}),
        "nbcode": (NUMBER, False, 0, {}),
        "requirements_content": (TEXT, True, None, {}),
        "prior_imports": (TEXTS, True, None, {}),
        "kernel_state": (TEXT, True, None, {}),
        "import_files": (TEXT, True, None, {}),
        "execution_type": (TEXT, False, "gpu.l40s", MACHINE),
        "session": ("SessionStep", True, None, {}),  # an extension
    },
    paths.START_IMAGE: {
        **EVERY_KIND,
        **REGISTRY,
        "docker_image_ref": (TEXT, False, REQUIRED, {"minLength": 1}),
        "docker_run_cmd": (TEXTS, True, None, {}),
        "docker_run_env": (TEXT, True, None, {}),
        "docker_user": (TEXT, True, None, {}),
        "docker_entrypoint": (TEXT, True, None, {"enum": ["auto", "keep", "skip"]}),
        "docker_init": (FLAG, True, None, {}),
        "job_type": (TEXT, True, None, {}),
        "enable_s3_mount": (FLAG, False, True, {}),
        "s3_mount_path": (TEXT, False, "/mnt/s3", {}),
        "session": ("SessionStep", True, None, {}),  # an extension
        "execution_type": (TEXT, False, "cpu", MACHINE),
    },
    paths.START_COMPOSE: {
        **EVERY_KIND,
        **REGISTRY,
        "compose_file_code": (TEXT, False, REQUIRED, {"minLength": 1}),
        "enable_s3_mount": (FLAG, False, False, {}),
        "execution_type": (TEXT, False, "cpu", MACHINE),
    },
}


@pytest.fixture
async def description(tmp_path: Path) -> dict[str, Any]:
    async with serving(tmp_path) as served:
        reply = await served.client.get(paths.OPENAPI)
    assert reply.status_code == 200
    return dict(reply.json())


@pytest.mark.parametrize("path", STARTS)
async def test_a_start_has_the_fields_of_its_reference_page(
    path: str, description: dict[str, Any]
) -> None:
    content = description["paths"][path]["post"]["requestBody"]["content"]
    schema = resolved(description, content["application/json"]["schema"])
    said = {name: field_of(schema, name) for name in schema["properties"]}
    assert said == STARTS[path]


@pytest.mark.parametrize("path", STARTS)
async def test_all_starts_answer_alike(path: str, description: dict[str, Any]) -> None:
    replies = description["paths"][path]["post"]["responses"]
    schema = resolved(description, replies["200"]["content"]["application/json"]["schema"])
    assert sorted(schema["required"]) == ["execution_id", "status", "streaming_url"]
    assert {"400", "401", "403", "413", "415", "422", "503"} <= set(replies)


async def test_it_names_the_token_that_every_request_needs(description: dict[str, Any]) -> None:
    assert description["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert description["security"] == [{"token": []}]


async def test_every_error_of_every_route_says_that_it_is_one_sentence(
    description: dict[str, Any],
) -> None:
    replies = [
        (path, code, reply)
        for path, methods in description["paths"].items()
        for method in methods.values()
        for code, reply in method["responses"].items()
        if code not in ("200", "422")  # FastAPI has a schema of its own for the latter
    ]
    assert {"401", "404", "409", "503", "507"} <= {code for _, code, _ in replies}
    for path, code, reply in replies:
        schema = resolved(description, reply["content"]["application/json"]["schema"])
        assert schema["properties"]["detail"]["type"] == "string", (path, code)


def resolved(description: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema["$ref"].rpartition("/")[2]
    return dict(description["components"]["schemas"][name])


def field_of(schema: dict[str, Any], name: str) -> Field:
    property_ = schema["properties"][name]
    choices = property_.get("anyOf", [property_])
    [kind] = [choice for choice in choices if choice.get("type") != "null"]
    default = REQUIRED if name in schema["required"] else property_.get("default")
    limits = {
        key: kind[key]
        for key in (
            "minimum", "maximum", "pattern", "enum", "minLength", "maxItems", "maxProperties",
        )
        if key in kind
    }  # fmt: skip
    return type_of(kind), len(choices) > 1, default, limits


def type_of(schema: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if schema["type"] == "array":
        return [schema["items"]["type"]]
    if schema["type"] == "object":
        return {"string": schema["additionalProperties"]["type"]}
    return schema["type"]


async def test_every_route_of_one_thing_says_that_it_may_not_be_there(
    description: dict[str, Any],
) -> None:
    silent = [
        f"{method} {path}"
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
        if "{" in path and "404" not in operation["responses"]
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("get", paths.SIGNING_SECRET), ("post", paths.ROTATE_SIGNING_SECRET)],
)
async def test_what_needs_the_key_says_that_it_may_be_lost(
    method: str, path: str, description: dict[str, Any]
) -> None:
    assert "500" in description["paths"][path][method]["responses"]
