"""Where others reach this Jupyter: what is said first counts, and must be an address."""

from __future__ import annotations

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.here import BASE_VARIABLE, HUB_VARIABLE, public_base

A, B, C = ("https://a.example/", "https://b.example/user/ann/", "https://c.example")


@pytest.mark.parametrize(
    ("setting", "environ", "base"),
    [
        ("", {}, None),
        (A, {BASE_VARIABLE: B, HUB_VARIABLE: C}, A),
        ("", {BASE_VARIABLE: B, HUB_VARIABLE: C}, B),
        ("", {BASE_VARIABLE: "", HUB_VARIABLE: C}, C),
        ("", {HUB_VARIABLE: ""}, None),
        ("http://127.0.0.1:8888", {}, "http://127.0.0.1:8888"),
    ],
)
def test_the_base(setting: str, environ: dict[str, str], base: str | None) -> None:
    assert public_base(setting, environ) == base


@pytest.mark.parametrize(
    "setting",
    ["me.example", "http://me.example", "https://u:p@me.example", "https://me.example/?token=x",
     "https://me.example/#x", "ftp://me.example", "https://"],
)  # fmt: skip
def test_what_is_no_base_is_refused_in_a_sentence(setting: str) -> None:
    with pytest.raises(OptionError, match="callback_base_url is where others reach this Jupyter"):
        public_base(setting, {})
