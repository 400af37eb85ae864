"""The table of sampled tests names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.tools.samples import IN_PROCESSES, SAMPLES

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("file", SAMPLES)
def test_each_sampled_test_is_there(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = {node.name for node in tree.body if isinstance(node, kinds)}
    assert set(SAMPLES[file]) <= functions


def test_each_module_in_processes_is_there() -> None:
    assert [file for file in IN_PROCESSES if not (ROOT / file).is_file()] == []
