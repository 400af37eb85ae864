"""The start request: ranges, older names of fields, what travels."""

from __future__ import annotations

import json

import httpx
import pytest
from pydantic import ValidationError

from lyceum_magic.protocol.requests import StartPython, decode_import_files


def test_only_what_was_said_travels() -> None:
    assert StartPython(code="1").to_wire() == {
        "code": "1",
        "nbcode": 0,
        "timeout": 60,
        "execution_type": "gpu.l40s",
    }


def test_older_names_are_read_and_modern_names_win() -> None:
    old = StartPython.model_validate({"code": "", "machine_type": "cpu", "requirements": "a"})
    assert (old.execution_type, old.requirements_content) == ("cpu", "a")
    both = StartPython.model_validate(
        {
            "code": "",
            "machine_type": "gpu",
            "execution_type": "cpu",
            "requirements": "old",
            "requirements_content": "new",
        }
    )
    assert (both.execution_type, both.requirements_content) == ("cpu", "new")


def test_only_modern_names_are_written() -> None:
    wire = StartPython.model_validate({"code": "", "machine_type": "cpu", "requirements": "a"})
    assert wire.to_wire().keys() == {
        "code", "nbcode", "timeout", "execution_type", "requirements_content",
    }  # fmt: skip


def test_unknown_fields_are_ignored() -> None:
    assert "pythia" not in StartPython.model_validate({"code": "", "pythia": 1}).to_wire()


@pytest.mark.parametrize(
    "fields",
    [
        {"timeout": 0},
        {"timeout": 601},
        {"timeout": "soon"},
        {"execution_type": "gpu-a100"},
        {"execution_type": ""},
        {"execution_type": "cpu\n"},
        {"labels": ["x"] * 65},
        {"metadata": {str(n): "x" for n in range(65)}},
        {"metadata": {"a": 1}},
        {"import_files": "[]"},
        {"import_files": "{"},
        {"import_files": '{"a.py": 1}'},
        {"code": None},
        {"nbcode": "x"},
    ],
)
def test_what_is_out_of_range_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        StartPython.model_validate({"code": "1", **fields})


@pytest.mark.parametrize("timeout", [1, 600])
def test_both_ends_of_the_time_limit_are_allowed(timeout: int) -> None:
    assert StartPython(code="1", timeout=timeout).timeout == timeout


@pytest.mark.parametrize("path", ["/a.py", "../a.py", "a/../../b.py", "a\\b.py", "", "a\0.py"])
def test_an_import_file_stays_below_the_folder_of_its_run(path: str) -> None:
    with pytest.raises(ValueError, match="not a relative path"):
        decode_import_files(json.dumps({path: "x = 1"}))


def test_import_files_decode_to_sources() -> None:
    files = {"helpers.py": "x = 1", "package/__init__.py": ""}
    assert decode_import_files(json.dumps(files)) == files


@pytest.mark.parametrize("text", ["x", "\0", "ü", "\U0001f600", '"', "\n"])
def test_the_size_of_a_request_is_that_of_its_body(text: str) -> None:
    request = StartPython(code=text * 1000, metadata={text: text * 500}, labels=[text * 100])
    with httpx.Client() as client:
        sent = client.build_request("POST", "http://x", json=request.to_wire())
    assert request.body() == sent.content
    assert request.size() == len(sent.content)
    assert request.may_exceed(request.size() - 1)
    assert not request.may_exceed(100 * request.size())
