"""The meaning of a requirements text, before anything is installed."""

import json
from pathlib import Path

import pytest
from packaging.version import Version

from lyceum_magic.protocol.requests import import_statements
from lyceum_magic.server.runners.process.requirements import (
    Refusal,
    Wanted,
    installed_versions,
    missing_requirements,
)

INSTALLED = {"numpy": Version("2.1.0"), "torch": Version("2.1+cu121"), "my-pkg": Version("1.0rc1")}


def wanted(text: str, *provided: str) -> Wanted:
    return missing_requirements(text, provided, INSTALLED)


def test_blank_lines_and_comments_mean_nothing() -> None:
    assert wanted("\n# a comment\r\n   \nnumpy  # another\n") == Wanted()


def test_what_is_installed_is_dropped_and_the_rest_is_sorted() -> None:
    assert wanted("zeta>=1\nnumpy>=2\nMy.Pkg\nalpha").requirements == ("alpha", "zeta>=1")


def test_another_version_than_the_installed_one_is_wanted() -> None:
    assert wanted("numpy<2").requirements == ("numpy<2",)


@pytest.mark.parametrize("name", ["__future__", "zoneinfo", "tomllib", "json==1.0"])
def test_standard_modules_are_no_requirements(name: str) -> None:
    assert wanted(name) == Wanted()


def test_modules_that_travel_with_the_run_are_no_requirements() -> None:
    assert wanted("util\nmy_module==1.2\nother", "util", "my_module").requirements == ("other",)


def test_a_marker_that_does_not_hold_drops_its_line() -> None:
    assert wanted("a; python_version<'3'\nb; python_version>'3'").requirements == (
        'b; python_version > "3"',
    )


def test_a_local_tag_is_stripped_with_a_notice() -> None:
    result = wanted("jax==0.4+cuda12")
    assert result.requirements == ("jax==0.4",)
    assert "jax==0.4+cuda12" in result.notices[0]


def test_the_installed_build_satisfies_its_own_local_tag() -> None:
    assert wanted("torch==2.1+cu121") == Wanted()


@pytest.mark.parametrize(
    "line",
    [
        "-r other.txt",
        "--index-url https://example.org",
        "-e .",
        "a --hash=sha256:00",
        "./a.whl",
        "/tmp/a",
        "git+https://example.org/a",
        "a @ https://example.org/a.whl",
        "https://example.org/a.whl",
        "a b c",
    ],
)
def test_everything_else_is_refused_in_one_sentence(line: str) -> None:
    with pytest.raises(Refusal, match=r"^requirements: .*$"):
        wanted(line)


def test_what_was_installed_from_a_url_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    vcs = {"vcs": "git", "commit_id": "abc"}
    (info / "direct_url.json").write_text(
        json.dumps({"url": "https://example.org/mine.git", "vcs_info": vcs})
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert wanted("mine @ git+https://example.org/mine.git@abc#subdirectory=x") == Wanted()
    with pytest.raises(Refusal, match="URLs and paths"):
        wanted("mine @ git+https://example.org/mine.git@other")


def test_this_interpreter_knows_what_it_has() -> None:
    assert installed_versions()["pytest"] == Version(pytest.__version__)


def test_an_extra_is_satisfied_only_with_what_it_needs() -> None:
    installed = {"anyio": Version("4.4"), "trio": Version("99")}
    assert missing_requirements("anyio[trio]", (), installed) == Wanted()
    del installed["trio"]
    assert missing_requirements("anyio[trio]", (), installed).requirements == ("anyio[trio]",)


@pytest.mark.parametrize(
    ("item", "statement"),
    [
        ("numpy", "import numpy"),
        (" os.path ", "import os.path"),
        ("import numpy as np", "import numpy as np"),
        ("from a import b, c", "from a import b, c"),
        ("import a; import b", "import a; import b"),
    ],
)
def test_a_prior_import_is_a_name_or_a_statement(item: str, statement: str) -> None:
    assert import_statements([item]) == [statement]


@pytest.mark.parametrize("item", ["", "print(1)", "a b", "import", "class", "import a; a()", "\0"])
def test_a_prior_import_is_nothing_else(item: str) -> None:
    with pytest.raises(ValueError, match="prior_imports"):
        import_statements([item])
