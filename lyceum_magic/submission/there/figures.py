"""Figures of matplotlib."""

from __future__ import annotations


def show_open_figures() -> None:
    raise NotImplementedError
