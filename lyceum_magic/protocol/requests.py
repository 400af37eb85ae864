"""The bodies of start requests: one frozen type that the client fills and the server validates.

Source: `POST execution/streaming/start` of Lyceum's API v2, and the fields that the official
client sends beyond it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from .limits import (
    DEFAULT_TIMEOUT_S,
    MAX_LABELS,
    MAX_METADATA,
    MAX_TIMEOUT_S,
    MIN_TIMEOUT_S,
)
from .machines import MACHINE_PATTERN


class _Start(BaseModel):
    """What every kind of start request may carry."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    timeout: Annotated[int, Field(ge=MIN_TIMEOUT_S, le=MAX_TIMEOUT_S)] = DEFAULT_TIMEOUT_S
    file_name: str | None = None
    user_callback_urls: list[str] | None = None
    run_name: str | None = None
    labels: Annotated[list[str], Field(max_length=MAX_LABELS)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA)] | None = None

    def to_wire(self) -> dict[str, Any]:
        """The JSON object to send: fields that are None stay away, as the official client does."""
        return self.model_dump(exclude_none=True)

    def may_exceed(self, size: int) -> bool:
        """Whether it may have more bytes: almost all are too small for it to be written out."""
        values = vars(self).values()
        characters = sum(len(v if isinstance(v, str) else repr(v)) for v in values)
        return 6 * characters + 1000 > size  # `\u0000`, and the names of the fields

    def size(self) -> int:
        """How many bytes the body has when it is sent."""
        text = json.dumps(self.to_wire(), ensure_ascii=False, separators=(",", ":"))
        return len(text.encode("utf-8", "surrogatepass"))


class StartPython(_Start):
    """`POST execution/streaming/start`. Times in seconds.

    `import_files` is JSON *text* of an object path -> source. `machine_type` and `requirements`
    are older names of `execution_type` and `requirements_content`; the modern name wins.
    """

    code: str
    nbcode: int = 0
    requirements_content: str | None = Field(
        None, validation_alias=AliasChoices("requirements_content", "requirements")
    )
    prior_imports: list[str] | None = None
    kernel_state: str | None = None
    import_files: str | None = None
    execution_type: Annotated[str, Field(pattern=MACHINE_PATTERN)] = Field(
        "gpu.l40s", validation_alias=AliasChoices("execution_type", "machine_type")
    )

    @field_validator("import_files")
    @classmethod
    def _import_files_is_an_object_of_texts(cls, value: str | None) -> str | None:
        if value is not None:
            decode_import_files(value)
        return value


def decode_import_files(text: str) -> dict[str, str]:
    """The files in an `import_files` field: relative path with `/` -> source.

    Raises:
        ValueError: the text is not a JSON object of strings, or a path would leave the run's
            folder.
    """
    try:
        files = json.loads(text)
    except ValueError as exc:
        raise ValueError("import_files must be the JSON text of an object path -> source") from exc
    if not isinstance(files, dict) or not all(isinstance(v, str) for v in files.values()):
        raise ValueError("import_files must be the JSON text of an object path -> source")
    for path in files:
        parts = path.split("/")
        if not path or path.startswith("/") or "\\" in path or "\0" in path or ".." in parts:
            raise ValueError(
                f"import_files: {path!r} is not a relative path below the run's folder"
            )
    return files
