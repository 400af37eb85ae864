"""Rich display."""

from __future__ import annotations

from .frames import send


def send_result(value: object) -> None:
    send("display", {"data": {"text/plain": repr(value)}, "result": True}, readable=repr(value))


def display(*objects: object, **options: object) -> object:
    for value in objects:
        send("display", {"data": {"text/plain": repr(value)}}, readable=repr(value))
    return None
