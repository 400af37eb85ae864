"""Files that travel with the cell, and those that it wrote on their way back."""

from __future__ import annotations


def write_files(files: dict[str, str]) -> None:
    raise NotImplementedError


def send_files(patterns: list[str], *, sent: dict[str, str]) -> None:
    raise NotImplementedError
