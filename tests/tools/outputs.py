"""The outputs of a cell, as far as two executions of it must show the same."""

from __future__ import annotations

import re
from typing import Any


def seen(outputs: list[Any]) -> list[object]:
    """The visible outputs, errors apart, as far as they must be equal.

    - A result is a display: `execute_result` needs a number that only the kernel can give.
    - Text between two displays is one text for each stream. Which stream came first is not told,
      for a kernel sends each of them when it comes to it.
    - Of rewritten lines the last state counts: the kernel here sends all of them, ours those that
      can be seen.
    """
    shown: list[object] = []
    texts: dict[str, str] = {}

    def end_texts() -> None:
        for stream in sorted(texts):
            if text := normal(last_state(texts[stream])):
                shown.append((stream, text))
        texts.clear()

    for output in outputs:
        if output.output_type == "stream":
            texts[output.name] = texts.get(output.name, "") + output.text
        elif output.output_type != "error":
            end_texts()
            shown.append((normal(output.data), normal(output.metadata)))
    end_texts()
    return shown


def raised(outputs: list[Any]) -> str | None:
    """The traceback as a reader sees it."""
    errors = [output for output in outputs if output.output_type == "error"]
    assert len(errors) <= 1
    if not errors:
        return None
    text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(errors[0].traceback))
    return str(normal(text))


def last_state(text: str) -> str:
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(line.rstrip() for line in lines)


#: Text that differs between any two executions -> the text that replaces it.
NOISE = {
    r"0x[0-9a-f]{6,}": "0x...",
    r"\.\.\.x[0-9a-f]{6,}": "...x...",  # an address that was cut
    r"Cell In\[\d+\]": "Cell In[n]",
    # A syntax error in `eval`: the frame in which the kernel runs a cell.
    r"\n  File \S+/interactiveshell\.py:\d+ in run_code\n    exec\(.*\n": "",
    r"\b1 # here": "1 ",  # the magic line, which tracebacks of runs leave empty
    r"/[\w./-]{0,200}/ipykernel_\d+/(\d+|cell)\.py": "<cell>",  # the file of a cell
    r"\bT_[0-9a-f]{5}": "T_...",  # the id of a styled table of pandas
    r"\bsk-container-id-\d+": "sk-container-id-n",  # scikit-learn counts them
    r"\baltair-viz-[0-9a-f]+": "altair-viz-...",
    r"(CPU times: |Wall time: ).+": r"\1...",
    r"\|[█-▏ ]*\| (\d+/\d+) \[\d\d:\d\d<\S+, +\S+?(/s|it)": r"|bar| \1 [times",  # of tqdm
}


def normal(value: Any) -> Any:
    """The same in every execution, wherever in a bundle it stands."""
    if isinstance(value, dict):
        # A picture is equal as it is, or it is another one.
        return {
            key: item if key.startswith("image/") else normal(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [normal(item) for item in value]
    if not isinstance(value, str):
        return value
    for noise, name in NOISE.items():
        value = re.sub(noise, name, value)
    return value
