"""Each option stands in its spec alone, and everything that offers it is made from there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import lyceum_magic
from lyceum_magic.api import _starts
from lyceum_magic.exceptions import OptionError
from lyceum_magic.magic import dry_run
from lyceum_magic.magic.completion import complete
from lyceum_magic.magic.dry_run import describe
from lyceum_magic.magic.options import KINDS, parser_of, read_line
from lyceum_magic.protocol.requests import StartCompose, StartImage, StartPython
from lyceum_magic.runs.run import Run
from lyceum_magic.submission.option import option as declare
from lyceum_magic.submission.option import options_of
from lyceum_magic.submission.option import spec as options
from lyceum_magic.submission.specs import ComposeSpec, ImageSpec, PythonSpec, RunSpec
from lyceum_magic.submission.start import build_start
from tests.tools import readme_options

SUBMIT: dict[type[RunSpec], Callable[..., Run]] = {
    PythonSpec: lyceum_magic.submit,
    ImageSpec: lyceum_magic.submit_image,
    ComposeSpec: lyceum_magic.submit_compose,
}


@pytest.mark.parametrize("kind", SUBMIT)
def test_submit_takes_and_describes_each_option_that_it_offers(kind: type[RunSpec]) -> None:
    offered = [one.name for one, _ in options_of(kind) if one.init]
    signature = inspect.signature(SUBMIT[kind])
    assert list(signature.parameters) == offered
    described = inspect.getdoc(SUBMIT[kind]) or ""
    assert all(f"\n    {name}: " in described for name in offered)
    assert described.index("Args:") < described.index("Returns:") < described.index("Raises:")


@pytest.mark.parametrize("kind", SUBMIT)
def test_a_magic_takes_each_option_that_it_offers(kind: type[RunSpec]) -> None:
    known = parser_of(kind.magic).options
    for _, declared in options_of(kind):
        flags = [flag for flag in (*declared.flags, *declared.switches) if flag[0] == "-"]
        assert set(flags) <= set(known)


def test_every_option_is_offered_somewhere_and_has_help() -> None:
    for kind in SUBMIT:
        for one, declared in options_of(kind):
            assert one.init or declared.flags, one.name
            assert declared.help


def test_what_a_cell_alone_may_choose_is_no_argument() -> None:
    with pytest.raises(TypeError, match=r"submit\(\) got an unexpected keyword argument 'detach'"):
        lyceum_magic.submit("1", detach=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"submit_image\(\) missing a required argument: 'image'"):
        lyceum_magic.submit_image()  # type: ignore[call-arg]


def test_the_tables_of_the_readme_are_current() -> None:
    assert readme_options.README.read_text("utf-8") == readme_options.current(), (
        "run `python -m tests.tools.readme_options`"
    )


@options
class ColdSpec(PythonSpec):
    """A kind of run with an option of its own."""

    magic = "cold"
    cooling: str | None = declare(
        "--cooling", default=None, choices=("air", "water"), help="how to cool it", row="cooling",
        wire="file_name",
    )  # fmt: skip


def test_a_new_option_is_one_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "cold", ColdSpec)
    spec = read_line(ColdSpec, "--cooling water", code="1")
    assert spec.cooling == "water"
    assert "how to cool it" in parser_of("cold").format_help()
    assert complete("%%cold --cooling w", list) == ["water"]
    text = describe(spec, StartPython(code="1"), place="here", price_per_hour=0)
    assert "\ncooling       water\n" in text
    with pytest.raises(OptionError, match="invalid choice: 'sand'"):
        read_line(ColdSpec, "--cooling sand", code="1")

    started: list[Any] = []

    @_starts(ColdSpec)
    def submit_cold(spec: ColdSpec) -> Run:
        """Start it.

        Returns:
            Nothing.
        """
        started.append(spec)
        return None  # type: ignore[return-value]

    submit_cold("1", cooling="air")
    assert started[0].cooling == "air"
    assert "\n    cooling: how to cool it." in (submit_cold.__doc__ or "")
    with pytest.raises(OptionError, match='cooling takes "air" or "water", not \'sand\''):
        submit_cold("1", cooling="sand")


@pytest.mark.parametrize(
    ("chosen", "in_python", "in_a_cell"),
    [
        ({"name": 3}, "name: Input should be a valid string, not 3.", "--name: "),
        (
            {"metadata": {"a": 3}},
            "metadata.a: Input should be a valid string, not 3.",
            "--meta.a: ",
        ),
        (
            {"metadata": {3: "a"}},
            "metadata.3: Input should be a valid string, not 3.",
            "--meta.3: ",
        ),
        ({"metadata": ["a"]}, "metadata takes a dict, not ['a'].", "--meta takes a dict"),
        ({"metadata": 3}, "metadata takes a dict, not 3.", "--meta takes a dict"),
        ({"labels": [3]}, "labels.0: Input should be a valid string, not 3.", "--label.0: "),
        ({"name": "\ud800"}, "name holds half of a surrogate pair", "--name holds half"),
    ],
)
def test_an_error_names_the_option_as_its_user_wrote_it(
    chosen: dict[str, Any], in_python: str, in_a_cell: str
) -> None:
    for spec, expected in [
        (PythonSpec(code="1", **chosen), in_python),
        (PythonSpec.of_cell(code="1", **chosen), in_a_cell),
    ]:
        with pytest.raises(OptionError, match=f"^{re.escape(expected)}"):
            build_start(StartPython, spec, code="1")


REQUESTS = {
    PythonSpec: StartPython(code="1"),
    ImageSpec: StartImage(execution_type="cpu", docker_image_ref="busybox", docker_run_cmd=["a"]),
    ComposeSpec: StartCompose(execution_type="cpu", compose_file_code="services: {}"),
}


@pytest.mark.parametrize("kind", SUBMIT)
def test_no_two_rows_of_a_dry_run_share_a_heading(
    kind: type[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "row_of", lambda _spec, _name, declared: (declared.row, ["x"]))
    spec = kind("1")  # type: ignore[call-arg]
    text = describe(spec, REQUESTS[kind], place="here", price_per_hour=0, notes=["x"])
    headings = [line[:14].strip() for line in text.splitlines() if line[0] != " "]
    assert {declared.row for _, declared in options_of(kind)} - {""} <= set(headings)
    assert len(headings) == len(set(headings)), headings
