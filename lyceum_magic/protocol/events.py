"""The events of a run's stream: JSON text of one `data:` field <-> frozen values.

No source publishes the stream's schema; this follows what the official client parses, tolerates
older forms when decoding, and adds members that older clients ignore when encoding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from .states import State, parse_state
from .surrogates import parse_json

StreamName = Literal["stdout", "stderr"]

#: `status_details` of a run whose time limit ended it; a status of its own in older vocabulary.
TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Output:
    """Text of the program. `timestamp` in seconds since 1970, None where the server gives none."""

    text: str
    stream: StreamName = "stdout"
    timestamp: float | None = None

    @property
    def size(self) -> int:
        """The bytes of the text in UTF-8."""
        return len(self.text.encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Progress:
    """News of a run that has not ended.

    `detail` is one phrase about this moment ("2 runs ahead", "installing requirements"), `note`
    one about the whole run ("no GPU on this machine: runs on the CPU").
    """

    state: State
    detail: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a run; no event follows.

    `state` is None if the server does not send it: it then is `completed` if there is neither an
    error nor a non-zero return code. `timed_out` says that the run's own time limit ended it.
    """

    state: State | None = None
    return_code: int | None = None
    error: str = ""
    timed_out: bool = False

    @property
    def final_state(self) -> State:
        if self.state is not None:
            return self.state
        return State.FAILED if self.error or self.return_code else State.COMPLETED


Event = Output | Progress | Finished


def encode(event: Event) -> str:
    """Return the JSON text of one event: one line, ASCII only.

    ASCII, because the official client splits its input at U+2028 and the like as well.
    """
    return json.dumps(_to_object(event), ensure_ascii=True, separators=(",", ":"))


def _to_object(event: Event) -> dict[str, Any]:
    if isinstance(event, Output):
        output: dict[str, Any] = {"content": event.text, "stream": event.stream}
        if event.timestamp is not None:
            output["timestamp"] = event.timestamp
        return {"output": output}
    if isinstance(event, Progress):
        progress = {"status": event.state.value, "detail": event.detail, "note": event.note}
        return {"progress": progress}
    # Null members would break the official client, so unknown ones are left out.
    result: dict[str, Any] = {}
    if event.return_code is not None:
        result["returnCode"] = event.return_code
    if event.error:
        result["error"] = event.error
    if event.state is not None:
        result["status"] = event.state.value
    if event.timed_out:
        result["statusDetails"] = TIMEOUT
    return {"jobFinished": {"job": {"result": result}}}


def decode(data: str) -> list[Event]:
    """Return the events in the data of one server-sent event; unknown ones are left out.

    A server that forgets the blank line between two events makes one datum of several lines;
    each line is then tried by itself, which is how the official client reads.
    """
    obj = _parse(data)
    objects = [obj] if obj is not None else [_parse(line) for line in data.split("\n")]
    decoded = (_from_object(obj) for obj in objects if obj is not None)
    return [event for event in decoded if event is not None]


def _parse(text: str) -> dict[str, Any] | None:
    try:
        obj = parse_json(text)
    except (ValueError, RecursionError):
        return None
    return obj if isinstance(obj, dict) else None


def _from_object(obj: dict[str, Any]) -> Event | None:
    if isinstance(output := obj.get("output"), dict):
        return _output(output)
    if "jobFinished" in obj:
        job = _object(_object(obj["jobFinished"]).get("job"))
        return _finished(_object(job.get("result")))
    if isinstance(progress := obj.get("progress"), dict):
        state = parse_state(str(progress.get("status")))
        if state is None:
            return None
        return Progress(state, _text(progress.get("detail")), _text(progress.get("note")))
    match obj.get("type"):
        case "output":
            return _output(obj)
        case "completed":
            state = parse_state(str(obj.get("status"))) or State.FAILED
            error = "" if state is State.COMPLETED else f"the run ended as {obj.get('status')}"
            return Finished(state, None, error, obj.get("status") == TIMEOUT)
        case "error":
            return Finished(None, None, _text(obj.get("message")) or "unknown error")
    return None


def _output(obj: dict[str, Any]) -> Output | None:
    text = obj.get("content")
    if not isinstance(text, str) or not text:
        return None
    timestamp = obj.get("timestamp")
    return Output(
        text,
        "stderr" if obj.get("stream") == "stderr" else "stdout",
        float(timestamp) if isinstance(timestamp, int | float) else None,
    )


def _finished(result: dict[str, Any]) -> Finished:
    state = parse_state(str(result.get("status")))
    return Finished(
        state if state is not None and state.is_final else None,
        parse_return_code(result.get("returnCode")),
        _text(result.get("error")),
        TIMEOUT in (result.get("status"), result.get("statusDetails")),
    )


def parse_return_code(value: object) -> int | None:
    """Return the code in an integer or a digit string; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        try:
            return int(value.strip())
        except ValueError:
            return None
    return None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
