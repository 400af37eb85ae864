"""The start request of a cell: what is chosen arrives, what cannot travel is one sentence."""

from __future__ import annotations

from typing import Any

import pytest

import lyceum_magic
from lyceum_magic.exceptions import OptionError
from lyceum_magic.protocol.limits import TAG_KEY
from lyceum_magic.submission.python_request import prepare_python
from lyceum_magic.submission.specs import PythonSpec


def test_every_choice_is_in_the_request() -> None:
    spec = PythonSpec(
        "import nowhere\n1",
        "gpu.a100",
        timeout_s=5,
        name="n",
        labels=["l"],
        metadata={"k": "v"},
        requirements=["rich"],
        raw=True,
    )
    request = prepare_python(spec).request
    tag = (request.metadata or {}).get(TAG_KEY, "")
    assert len(tag) == 32
    assert request.to_wire() == {
        "code": "import nowhere\n1",
        "nbcode": 0,
        "timeout": 5,
        "execution_type": "gpu.a100",
        "requirements_content": "rich",
        "file_name": "cell.py",
        "run_name": "n",
        "labels": ["l"],
        "metadata": {"k": "v", TAG_KEY: tag},
    }


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"machine": "gpu-a100"}, "machine takes a name such as gpu.a100, not 'gpu-a100'"),
        ({"machine": ""}, "machine takes a name such as gpu.a100, not ''"),
        ({"timeout_s": 1.5}, "timeout_s takes 1 to 600"),
        ({"timeout_s": "5"}, "timeout_s takes 1 to 600"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"labels": ["x"] * 65}, "labels takes at most 64 labels, not 65"),
        ({"labels": [1]}, "labels.0: "),
        ({"metadata": {"a": 1}}, "metadata.a: "),
        ({"metadata": {str(n): "" for n in range(64)}}, "metadata takes at most 63 pairs, not 64"),
        ({"name": 7}, "name: "),
        ({"place": "here"}, "place takes"),
    ],
)
def test_a_value_that_cannot_travel_is_one_sentence_and_starts_nothing(
    choices: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        lyceum_magic.submit("canary = 1", **choices)
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)
